//! Which backups stay, and why: a pure function of what there is, the policy, the time zone and now.
//!
//! It promises that the newest good backup, a pinned one, and one that cannot be judged (damaged, of a newer
//! format, from the future) never go, and that nothing goes without a policy or while the shrink guard is
//! tripped. A rule counts periods that *have* a good backup, so a month without backups does not eat those
//! before it. The trap is what may count: a shrunk backup must not take a good one's place, and one that a
//! clock a year ahead once made must not pass for the newest.

mod baseline;
mod period;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::config::Keep;
use crate::units::HumanDuration;

pub use baseline::is_shrunk;
pub use period::Rule;

/// A backup that was begun later than this after now is from the future: a clock was, or is, wrong.
pub const FUTURE: Duration = Duration::from_secs(5 * 60);

/// A backup of one database in one storage, as far as retention asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Its ID: the order of those that were begun at the same moment.
    pub id: String,
    /// When it was begun.
    pub began: Timestamp,
    /// What it is worth.
    pub standing: Standing,
    /// Its keys: what those after it are judged by.
    pub keys: u64,
    /// Whether a person pinned it.
    pub pinned: bool,
    /// Whether a person said that it is as small as it should be.
    pub accepted: bool,
}

/// What a backup is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Committed and not shrunk: it counts.
    Good,
    /// It has far fewer keys than the good one before it, and nobody accepted it.
    Shrunk,
    /// Its manifest or its data is not as it was written.
    Damaged,
    /// A later version wrote it.
    Newer,
}

/// Why a backup stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The so-manyeth newest good one, from 1.
    Last(u32),
    /// The newest good one of a period.
    Newest(Rule, String),
    /// Not older than the newest good one by more than this.
    Within(Duration),
    /// It is shrunk, and if it counted this would keep it.
    Shrunk(Box<Reason>),
    /// Without it this one, which stays, would be shrunk.
    Baseline(String),
    /// A person pinned it.
    Pinned,
    /// There is no newer good one.
    NewestGood,
    /// It was begun after now.
    Future,
    /// A person has to look at it.
    Damaged,
    /// So has a later version.
    Newer,
    /// No rule keeps it, and there is none that lets it go.
    NoPolicy,
    /// No rule keeps it, but the newest backup is shrunk.
    Guard,
    /// No rule keeps it, and its storage does not let it go yet.
    Locked(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Last(place) => write!(f, "last {place}"),
            Reason::Newest(rule, period) => write!(f, "{rule} {period}"),
            Reason::Within(span) => write!(f, "within {}", HumanDuration(*span)),
            Reason::Shrunk(reason) => write!(f, "shrunk beside {reason}"),
            Reason::Baseline(id) => write!(f, "baseline of {id}"),
            Reason::Pinned => f.write_str("pinned"),
            Reason::NewestGood => f.write_str("newest good"),
            Reason::Future => f.write_str("from the future"),
            Reason::Damaged => f.write_str("damaged"),
            Reason::Newer => f.write_str("newer format"),
            Reason::NoPolicy => f.write_str("no policy"),
            Reason::Guard => f.write_str("guard"),
            Reason::Locked(why) => f.write_str(why),
        }
    }
}

/// What becomes of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays, for each of these reasons; at least one.
    Stays(Vec<Reason>),
    /// No rule keeps it.
    Goes,
}

/// What a person configured.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The policy; `None`: nothing ever goes.
    pub policy: Option<&'a Keep>,
    /// The time zone of its periods.
    pub zone: &'a TimeZone,
    /// Fewer keys than this times those of the good one before are suspicious.
    pub shrink_guard: f64,
}

/// Whether the newest backup is shrunk, so that nothing may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It is not.
    Clear,
    /// It is.
    Tripped,
}

/// The newest backup that counts as one: neither from the future nor beyond judgement.
pub fn newest(facts: &[Fact], now: Timestamp) -> Option<&Fact> {
    facts
        .iter()
        .filter(|fact| matches!(fact.standing, Standing::Good | Standing::Shrunk))
        .filter(|fact| !is_future(fact.began, now))
        .max_by_key(|fact| order(fact))
}

/// The shrink guard, as these backups of one storage set it.
pub fn guard(facts: &[Fact], now: Timestamp) -> Guard {
    match newest(facts, now) {
        Some(fact) if fact.standing == Standing::Shrunk => Guard::Tripped,
        _ => Guard::Clear,
    }
}

/// Whether a backup was begun later than can be.
pub fn is_future(began: Timestamp, now: Timestamp) -> bool {
    began.duration_since(now) > SignedDuration::try_from(FUTURE).unwrap_or_default()
}

/// What becomes of each of one database's backups in one storage, in the order in which they are given.
///
/// `guard` adds to what the backups themselves say: [`Guard::Tripped`] when another storage has a newer,
/// shrunk one.
pub fn judge(facts: &[Fact], rules: Rules<'_>, now: Timestamp, guard: Guard) -> Vec<Fate> {
    let guarded = guard == Guard::Tripped || self::guard(facts, now) == Guard::Tripped;
    let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); facts.len()];

    let mut newest_first: Vec<usize> = (0..facts.len()).collect();
    newest_first.sort_by_key(|&at| Reverse(order(&facts[at])));
    let readable = of(&newest_first, facts, &[Standing::Good, Standing::Shrunk]);
    // Shrunk ones are judged beside the good ones, as if they counted, and take nobody's place: when an
    // accepted backup ends weeks of shrunk ones, those weeks do not vanish at once.
    newest_first.retain(|&at| !is_future(facts[at].began, now));
    let with_shrunk = of(&newest_first, facts, &[Standing::Good, Standing::Shrunk]);
    let good = of(&newest_first, facts, &[Standing::Good]);
    if let Some(policy) = rules.policy {
        apply(policy, &good, facts, rules.zone, |at, reason| {
            reasons[at].push(reason);
        });
        apply(policy, &with_shrunk, facts, rules.zone, |at, reason| {
            if facts[at].standing == Standing::Shrunk {
                reasons[at].push(Reason::Shrunk(Box::new(reason)));
            }
        });
    }
    if let Some(&at) = good.first() {
        reasons[at].push(Reason::NewestGood);
    }
    for (fact, reasons) in facts.iter().zip(&mut reasons) {
        if fact.pinned {
            reasons.push(Reason::Pinned);
        }
        match fact.standing {
            Standing::Damaged => reasons.push(Reason::Damaged),
            Standing::Newer => reasons.push(Reason::Newer),
            Standing::Good | Standing::Shrunk => {}
        }
        if is_future(fact.began, now) {
            reasons.push(Reason::Future);
        }
        if reasons.is_empty() && rules.policy.is_none() {
            reasons.push(Reason::NoPolicy);
        }
        if reasons.is_empty() && guarded {
            reasons.push(Reason::Guard);
        }
    }
    let oldest_first: Vec<usize> = readable.into_iter().rev().collect();
    let stays = |reasons: &[Vec<Reason>], at: usize| !reasons[at].is_empty();
    while let Some((step, of)) = baseline::missing(
        facts,
        &oldest_first,
        |at| stays(&reasons, at),
        rules.shrink_guard,
    ) {
        reasons[step].push(Reason::Baseline(facts[of].id.clone()));
    }
    let fate = |reasons: Vec<Reason>| match reasons.is_empty() {
        true => Fate::Goes,
        false => Fate::Stays(reasons),
    };
    reasons.into_iter().map(fate).collect()
}

/// Backups of the same moment are told apart by their IDs, the same way every time.
fn order(fact: &Fact) -> (Timestamp, &str) {
    (fact.began, &fact.id)
}

fn of(order: &[usize], facts: &[Fact], standings: &[Standing]) -> Vec<usize> {
    let fits = |at: &usize| standings.contains(&facts[*at].standing);
    order.iter().copied().filter(fits).collect()
}

/// Tells what each rule keeps of these backups, newest first.
fn apply(
    policy: &Keep,
    newest_first: &[usize],
    facts: &[Fact],
    zone: &TimeZone,
    mut keeps: impl FnMut(usize, Reason),
) {
    for (place, &at) in (1..=policy.last).zip(newest_first) {
        keeps(at, Reason::Last(place));
    }
    for rule in Rule::ALL {
        let most = rule.count(policy);
        // The clock may come back to a day that it had left: a set, and not the last one seen.
        let mut seen = BTreeSet::new();
        for &at in newest_first {
            if seen.len() >= most {
                break;
            }
            let period = rule.period(facts[at].began, zone);
            if seen.insert(period.clone()) {
                keeps(at, Reason::Newest(rule, period));
            }
        }
    }
    if policy.within.is_zero() {
        return;
    }
    let Some(newest) = newest_first.first().map(|&at| facts[at].began) else {
        return;
    };
    let within = SignedDuration::try_from(policy.within).unwrap_or(SignedDuration::MAX);
    for &at in newest_first {
        if newest.duration_since(facts[at].began) <= within {
            keeps(at, Reason::Within(policy.within));
        }
    }
}

#[cfg(test)]
mod tests;
