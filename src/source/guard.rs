//! Whether a fork would be bad for the server, looked at before a dump that makes it fork.
//!
//! BGSAVE and a full synchronisation both fork. The child shares the server's memory, and each page that the server
//! changes meanwhile is copied. [`judge`] is a pure function of what is known. Its model: in the worst case all of
//! `used_memory` is copied; what is expected is the larger of what the last save copied (`rdb_last_cow_size`) and of
//! one page for each change in the time that a save takes, at the rate of the changes since the last save; at least
//! a tenth of `used_memory`, at most all of it.

mod host;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::ForkGuard;
use crate::server::info::Version;
use crate::server::{Control, Facts};
use crate::units::{HumanBytes, HumanDuration};

use super::{Error, Method};
use host::Host;

/// How fast a server is taken to save where it does not tell how long its last save took, in bytes a second.
const SAVES: u64 = 50 << 20;
/// A page of memory, and one where the kernel makes them huge.
const PAGE: (u64, u64) = (4 << 10, 2 << 20);
/// A fork that takes this long is felt by the server's clients.
const LONG_FORK: Duration = Duration::from_secs(1);

/// Something that a person should know before a dump that forks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Whether it is a reason not to fork, or only worth knowing.
    pub(super) grave: bool,
    /// What, and why.
    pub(super) text: String,
    /// What can be done about it.
    pub(super) cure: Option<&'static str>,
}

impl Finding {
    fn grave(text: String, cure: &'static str) -> Finding {
        Finding {
            grave: true,
            text,
            cure: Some(cure),
        }
    }

    fn note(text: String) -> Finding {
        Finding {
            grave: false,
            text,
            cure: None,
        }
    }

    /// In one line.
    pub(super) fn told(self) -> String {
        match self.cure {
            Some(cure) => format!("{}; {cure}", self.text),
            None => self.text,
        }
    }
}

/// What is known before a fork.
#[derive(Clone, Debug, Default)]
struct Situation {
    /// Bytes that the server's data take.
    used: u64,
    /// Bytes of it that are in memory, with all that surrounds them.
    resident: u64,
    /// What the last save made the server copy.
    last_copied: u64,
    /// Changes of keys a second.
    changes_per_second: u64,
    /// Bytes a second that clients send.
    input_per_second: u64,
    /// How long a save should take.
    save: Duration,
    /// How long the last fork held the server up.
    last_fork: Duration,
    /// Whether an AOF rewrite runs.
    rewrites_aof: bool,
    /// The memory of the server's host, as it tells.
    total: Option<u64>,
    /// What its host says itself, where it is this one.
    host: Option<Host>,
    /// How much the server may keep back for us, where it does that.
    buffer: Option<BufferLimit>,
    /// Whether it sends its data without writing a file, where it told.
    diskless: Option<bool>,
}

/// `client-output-buffer-limit replica`: bytes at once, and bytes for so long. Zero is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BufferLimit {
    hard: u64,
    soft: u64,
    soft_for: Duration,
}

impl BufferLimit {
    /// Reads it out of the answer to CONFIG GET, which has a limit for each class of clients.
    fn parse(text: &str) -> Option<BufferLimit> {
        let mut words = text.split_ascii_whitespace();
        words.find(|word| matches!(*word, "slave" | "replica"))?;
        let mut number = || words.next()?.parse().ok();
        Some(BufferLimit {
            hard: number()?,
            soft: number()?,
            soft_for: Duration::from_secs(number()?),
        })
    }
}

impl Situation {
    fn new(facts: &Facts, host: Option<Host>, now_s: i64) -> Situation {
        let number = |name: &str| facts.get(name).and_then(|text| text.parse::<u64>().ok());
        let zero = |name: &str| number(name).unwrap_or(0);
        let since_save = now_s.saturating_sub(facts.last_save_s).max(1);
        let by_size = Duration::from_secs((facts.used_memory / SAVES).max(1));
        let last_save = number("rdb_last_bgsave_time_sec").filter(|seconds| *seconds > 0);
        // INFO counts in KiB, with a fraction.
        let input: Option<f64> = facts
            .get("instantaneous_input_kbps")
            .and_then(|text| text.parse().ok());
        Situation {
            used: facts.used_memory,
            resident: zero("used_memory_rss"),
            last_copied: zero("rdb_last_cow_size"),
            changes_per_second: zero("rdb_changes_since_last_save") / since_save.unsigned_abs(),
            input_per_second: (input.unwrap_or(0.0) * 1024.0) as u64,
            save: last_save.map_or(by_size, Duration::from_secs),
            last_fork: Duration::from_micros(zero("latest_fork_usec")),
            rewrites_aof: facts.aof_rewrite_in_progress,
            total: number("total_system_memory").filter(|bytes| *bytes > 0),
            host,
            buffer: None,
            diskless: None,
        }
    }

    /// How many bytes a fork is expected to make the server copy.
    fn expected(&self) -> u64 {
        let huge = self.host.as_ref().is_some_and(|host| host.huge_pages);
        let page = if huge { PAGE.1 } else { PAGE.0 };
        let changes = self.changes_per_second.saturating_mul(self.save.as_secs());
        let written = changes.saturating_mul(page);
        let least = self.used / 10;
        written.max(self.last_copied).clamp(least, self.used)
    }

    /// The memory that is left for it, and whose that is.
    fn left(&self) -> Option<(u64, &'static str)> {
        if let Some(host) = &self.host {
            return Some(match host.group_left {
                Some(left) if left < host.available => (left, "the server's control group has"),
                _ => (host.available, "this host has"),
            });
        }
        let taken = self.resident.max(self.used);
        let left = self.total?.saturating_sub(taken);
        Some((left, "the server's host has at most"))
    }
}

/// What speaks against a dump that forks, the gravest first, and what else is worth knowing.
fn judge(situation: &Situation) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(refused_by_kernel(situation));
    found.extend(out_of_memory(situation));
    found.extend(cut_off(situation));
    if situation.last_fork >= LONG_FORK {
        let took = HumanDuration(situation.last_fork);
        found.push(Finding::note(format!(
            "the server's last fork held up its clients for {took}"
        )));
    }
    if situation.rewrites_aof {
        found.push(Finding::note(
            "the server rewrites its AOF: the dump waits for that".to_owned(),
        ));
    }
    if situation.diskless == Some(false) {
        found.push(Finding::note(
            "repl-diskless-sync is no: the server first writes the file to its own disk".to_owned(),
        ));
    }
    found.sort_by_key(|finding| !finding.grave);
    found
}

/// Whether the kernel may say no to the fork.
fn refused_by_kernel(situation: &Situation) -> Option<Finding> {
    let host = situation.host.as_ref()?;
    let used = situation.used;
    let (left, cure) = match host.overcommit {
        0 => (
            host.available.saturating_add(host.swap_free),
            "set vm.overcommit_memory = 1 (sysctl)",
        ),
        2 => (
            host.commit_left?,
            "set vm.overcommit_memory = 1, or raise vm.overcommit_ratio (sysctl)",
        ),
        _ => return None,
    };
    (left < used).then(|| {
        let text = format!(
            "the kernel may refuse the fork: vm.overcommit_memory is {}, {} can be had, and the server's data take {}",
            host.overcommit,
            HumanBytes(left),
            HumanBytes(used)
        );
        Finding::grave(text, cure)
    })
}

/// Whether what is copied may take the memory that there is.
fn out_of_memory(situation: &Situation) -> Option<Finding> {
    let (left, whose) = situation.left()?;
    let (expected, worst) = (situation.expected(), situation.used);
    let (left_shown, worst_shown) = (HumanBytes(left), HumanBytes(worst));
    if left < expected {
        let text = format!(
            "a fork may use up the memory: {whose} {left_shown} left, and about {} of {worst_shown} may be copied while the server goes on",
            HumanBytes(expected)
        );
        return Some(Finding::grave(
            text,
            "give it more memory, or back up while less is written",
        ));
    }
    (left < worst).then(|| {
        Finding::note(format!(
            "{whose} {left_shown} left: enough for what a fork is expected to copy ({}), not for the worst case ({worst_shown})",
            HumanBytes(expected)
        ))
    })
}

/// Whether the server would close the connection because too much waits for us.
fn cut_off(situation: &Situation) -> Option<Finding> {
    let limit = situation.buffer?;
    let waiting = situation
        .input_per_second
        .saturating_mul(situation.save.as_secs());
    let hard = limit.hard > 0 && waiting > limit.hard;
    let soft = limit.soft > 0 && waiting > limit.soft && situation.save > limit.soft_for;
    (hard || soft).then(|| {
        let (which, bytes) = match hard {
            true => ("hard", limit.hard),
            false => ("soft", limit.soft),
        };
        let text = format!(
            "the server may hang up: it keeps what is written during the dump, about {} in {}, and the {which} limit of client-output-buffer-limit replica is {}",
            HumanBytes(waiting),
            HumanDuration(situation.save),
            HumanBytes(bytes)
        );
        Finding::grave(
            text,
            "raise client-output-buffer-limit replica (CONFIG SET)",
        )
    })
}

/// Whether a server keeps what is written for one that asks for its data: those that know `rdb-only` do not.
pub(super) fn keeps_writes(facts: &Facts) -> bool {
    !facts.is_at_least(Version(6, 2, 0), Version(7, 2, 0))
}

/// How much is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// What decides.
    Grave,
    /// And what else is worth knowing.
    All,
}

/// Looks at what a dump by this method, which forks, would do to the server.
pub(super) async fn look(
    method: Method,
    control: &mut Control,
    facts: &Facts,
    depth: Depth,
) -> Vec<Finding> {
    let (host, blind) = match control.is_local() {
        true => match host::look(facts) {
            Ok(host) => (host, None),
            Err(error) => (None, Some(error)),
        },
        false => (None, None),
    };
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
    let mut situation = Situation::new(facts, host, now_s);
    if method == Method::Replication {
        // A user that may not ask leaves it open: the server's own log tells, if it comes to that.
        if keeps_writes(facts) {
            let told = control.config_get("client-output-buffer-limit").await;
            situation.buffer = told
                .ok()
                .flatten()
                .and_then(|text| BufferLimit::parse(&text));
        }
        if depth == Depth::All {
            let told = control.config_get("repl-diskless-sync").await;
            situation.diskless = told.ok().flatten().map(|text| text == "yes");
        }
    }
    let mut found = judge(&situation);
    if let Some(error) = blind {
        found.push(Finding::note(format!(
            "this host's memory cannot be seen from here ({error}): a fork is judged by what the server tells"
        )));
    }
    found.retain(|finding| finding.grave || depth == Depth::All);
    found
}

/// Looks before a dump, and does what is configured: gives what is to be told, or refuses.
pub(super) async fn before(
    guard: ForkGuard,
    method: Method,
    control: &mut Control,
    facts: &Facts,
    place: String,
) -> Result<Vec<String>, Error> {
    if guard == ForkGuard::Off {
        return Ok(Vec::new());
    }
    let found = look(method, control, facts, Depth::Grave).await;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    if guard == ForkGuard::Refuse {
        return Err(Error::ForkRefused {
            method,
            place,
            cures: found.iter().filter_map(|finding| finding.cure).collect(),
            why: found.into_iter().map(|finding| finding.text).collect(),
        });
    }
    Ok(found.into_iter().map(Finding::told).collect())
}

#[cfg(test)]
mod tests;
