//! What keeps a good backup good.
//!
//! A backup is judged by the good one before it. When a database shrinks slowly, each step is good, but a backup of
//! the end is shrunk beside one of the beginning. So of the steps between two that stay, as many stay as it takes:
//! else the removal of what no rule keeps would make the newest backups suspicious, and trip the guard.

use super::{Fact, Standing};

/// Whether so many keys are too few after so many before.
pub fn is_shrunk(keys: u64, before: u64, guard: f64) -> bool {
    (keys as f64) < guard * before as f64
}

/// One more backup that has to stay, and the one that it keeps good; `None` when all that stay and are good remain
/// good. `order` has all backups that can be judged, oldest first.
pub(super) fn missing(
    facts: &[Fact],
    order: &[usize],
    stays: impl Fn(usize) -> bool,
    guard: f64,
) -> Option<(usize, usize)> {
    // The last one that stays and will not be shrunk, and its place.
    let mut baseline: Option<(usize, u64)> = None;
    for (place, &at) in order.iter().enumerate() {
        let fact = &facts[at];
        if !stays(at) {
            continue;
        }
        let shrunk = |before: u64| !fact.accepted && is_shrunk(fact.keys, before, guard);
        match baseline {
            Some((since, before)) if shrunk(before) => {
                if fact.standing != Standing::Good {
                    continue;
                }
                // The oldest step from which it is good: that takes the fewest.
                let between = &order[since + 1..place];
                let step = between.iter().find(|&&step| {
                    facts[step].standing == Standing::Good && !shrunk(facts[step].keys)
                });
                if let Some(&step) = step {
                    return Some((step, at));
                }
            }
            _ => baseline = Some((place, fact.keys)),
        }
    }
    None
}
