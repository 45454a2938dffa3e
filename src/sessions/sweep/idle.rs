//! Whether a server's idle times can be trusted, and since when.
//!
//! OBJECT IDLETIME says how long ago a key was used, with one hole: while the server has a child (BGSAVE, an AOF
//! rewrite, a diskless synchronisation) a read leaves the time as it is, to spare memory. So a session that was
//! used then looks idle. A server counts its forks, and says whether a child lives: two looks with no child at the
//! first and the same count prove that there was none between. What they prove is kept in a small file, for sweeps
//! are short and timeouts are long.
//!
//! Only the time without a fork that lasts until now counts. An earlier one would prove that a session was idle
//! once; but it may have been used since, unseen. Three traps:
//! - CONFIG RESETSTAT sets the count back to 0, so other traces of children, which it does not reset, must be
//!   the same too.
//! - A server that was a replica for a while did not see what was read on its primary. It has the same run ID when
//!   it is promoted again, but another replication ID.
//! - The clock has 24 bits. A key whose last use lies ahead of it, after a step back, looks as if it had not been
//!   used for 194 days; after an LFU policy it shows what that has written there. So an idle time that
//!   is longer than the server has run, or close to the most that it can be, is believed of no key.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Guard;
use crate::config::SessionRule;
use crate::server::Facts;
use crate::sessions::stores;
use crate::storage::private::{self, TemporaryFile};

/// What is taken off every idle time: it counts in whole seconds, and its clock may lag behind a little.
const DOUBT: Duration = Duration::from_secs(2);

/// The longest idle time that is believed, in seconds: the clock counts 2^24 of them, and one that was set back by up
/// to a week makes those that were used most recently seem idle for nearly as long.
const BELIEVED_S: u64 = (1 << 24) - 7 * 86_400;

/// The lines of INFO that are the same as long as no child has been.
const TRACES: [&str; 4] = [
    "total_forks",
    "latest_fork_usec",
    "used_cpu_sys_children",
    "used_cpu_user_children",
];

/// The lines of INFO that say whether a child lives.
const CHILDREN: [&str; 3] = [
    "rdb_bgsave_in_progress",
    "aof_rewrite_in_progress",
    "module_fork_in_progress",
];

/// The lines of INFO that are the same as long as it is a primary, and the same one.
const STANDING: [&str; 2] = ["role", "master_replid"];

/// What must be the same for two looks to be at one server that saw all reads between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    /// New at every start.
    run_id: String,
    /// New at every promotion.
    replid: String,
    /// Under an LFU policy the place of idle times is used for something else.
    policy: String,
}

/// One look at a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Its time before INFO was asked for, Unix, in milliseconds.
    before_ms: i64,
    /// And after.
    after_ms: i64,
    /// When it was started, Unix, in seconds.
    started_s: i64,
    identity: Identity,
    /// Lines that say that it is a primary, and which.
    standing: Vec<String>,
    /// Lines of INFO that are the same as long as no child has been.
    traces: Vec<String>,
    /// Lines that say that there is none.
    childless: Vec<String>,
    child: bool,
}

impl Look {
    /// What INFO says, or the guard that refuses whatever was seen before.
    pub(super) fn of(facts: &Facts, before_ms: i64, after_ms: i64) -> Result<Look, Guard> {
        if let Some(policy) = facts.get("maxmemory_policy")
            && policy.contains("lfu")
        {
            return Err(Guard::Lfu {
                policy: policy.to_owned(),
            });
        }
        if facts.get("total_forks").is_none() || facts.run_id.is_empty() {
            return Err(Guard::ForksUncounted);
        }
        let lines = |names: &[&str]| {
            let found = names
                .iter()
                .filter_map(|name| Some(format!("{name}:{}", facts.get(name)?)));
            found.collect::<Vec<String>>()
        };
        let childless = lines(&CHILDREN);
        let uptime = i64::try_from(uptime(facts).as_secs()).unwrap_or(0);
        Ok(Look {
            before_ms,
            after_ms,
            started_s: before_ms / 1000 - uptime,
            identity: Identity {
                run_id: facts.run_id.clone(),
                replid: facts.replid.clone().unwrap_or_default(),
                policy: facts.get("maxmemory_policy").unwrap_or_default().to_owned(),
            },
            standing: lines(&STANDING),
            traces: lines(&TRACES),
            child: childless.iter().any(|line| !line.ends_with(":0")),
            childless,
        })
    }
}

/// How long a server has run.
fn uptime(facts: &Facts) -> Duration {
    facts
        .get("uptime_in_seconds")
        .and_then(|seconds| seconds.parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs)
}

/// What is known of a server's forks from all looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Watch {
    identity: Identity,
    /// The first look, Unix time in milliseconds by the server's clock, as all times here.
    watched_since_ms: i64,
    /// Since when there was certainly no child; nothing while one lives.
    calm_since_ms: Option<i64>,
    /// The last look.
    seen_ms: i64,
    /// The longest time without a child that was seen.
    longest_ms: i64,
    traces: Vec<String>,
}

impl Watch {
    /// What is known after one more look.
    fn after(known: Option<Watch>, look: &Look) -> Watch {
        let begins = (!look.child).then_some(look.after_ms);
        let fresh = Watch {
            identity: look.identity.clone(),
            watched_since_ms: look.before_ms,
            calm_since_ms: begins,
            seen_ms: look.before_ms,
            longest_ms: 0,
            traces: look.traces.clone(),
        };
        // Another run of the server, or of another standing, or a clock that was set back: what was known is of no use.
        let Some(known) = known
            .filter(|known| known.identity == look.identity && known.seen_ms <= look.before_ms)
        else {
            return fresh;
        };
        let calm = known
            .calm_since_ms
            .filter(|_| !look.child && known.traces == look.traces);
        Watch {
            watched_since_ms: known.watched_since_ms,
            calm_since_ms: calm.or(begins),
            longest_ms: known
                .longest_ms
                .max(calm.map_or(0, |since| look.before_ms - since)),
            ..fresh
        }
    }

    /// How long a key was certainly not used until `now_ms`, whose idle time was `idle_s` seconds then.
    fn unused(&self, idle_s: u64, now_ms: i64) -> Option<Duration> {
        let watched = u64::try_from(now_ms - self.calm_since_ms?).ok()?;
        Some(
            Duration::from_secs(idle_s)
                .saturating_sub(DOUBT)
                .min(Duration::from_millis(watched)),
        )
    }

    /// Whether the time without a fork is long enough for a rule, and if not, why.
    fn judge(&self, needs: Duration) -> Result<(), Guard> {
        let millis = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        let calm = millis(self.calm_since_ms.map_or(0, |since| self.seen_ms - since));
        if calm > needs {
            return Ok(());
        }
        let longest = millis(self.longest_ms).max(calm);
        let watched = millis(self.seen_ms - self.watched_since_ms);
        // One fork in the middle is not often.
        if longest <= needs && watched > needs.saturating_mul(2) {
            return Err(Guard::ForksTooOften {
                watched,
                longest,
                needs,
            });
        }
        let Some(since) = self.calm_since_ms else {
            return Err(Guard::ChildAtWork);
        };
        Err(Guard::Watching {
            since: shown(since),
            needs,
            able: shown(
                since
                    .saturating_add(i64::try_from(needs.as_millis()).unwrap_or(i64::MAX))
                    .saturating_add(1000),
            ),
        })
    }
}

/// A time for people: UTC, to the second.
fn shown(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(
        |_| "the end of time".to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

/// How long a session of a rule is idle before it goes, the session's own timeout aside.
fn bound(rule: &SessionRule) -> Duration {
    rule.timeout
        .saturating_add(stores::margin(rule.store))
        .saturating_add(rule.grace)
}

/// What else must be so for idle times to be acted upon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abilities {
    /// EVAL is allowed.
    pub(super) scripts: bool,
    /// Reading counts as no use.
    pub(super) no_touch: bool,
}

/// Idle times as far as they can be trusted, and what must still be so when a deletion rests on them.
#[derive(Clone, Debug)]
pub(super) struct Trusted {
    watch: Watch,
    /// Lines that INFO must still have: it is a primary, no fork has been, and no child is.
    pub(super) lines: Vec<String>,
    /// When the server was started, Unix, in seconds.
    started_s: i64,
    /// The server's time when it was asked last.
    asked_ms: i64,
    /// Its clock was set back since this began.
    set_back: bool,
    /// Why nothing counts as idle yet, by rules: their places, and guards that pass with time.
    waits: Vec<(usize, Guard)>,
    /// Rules with `idle`.
    rules: usize,
}

impl Trusted {
    /// How long a key was certainly not used until `now_ms`, whose idle time was `idle_s` seconds then.
    pub(super) fn unused(&self, idle_s: u64, now_ms: i64) -> Option<Duration> {
        if self.set_back || idle_s > self.most(now_ms / 1000) {
            return None;
        }
        self.watch.unused(idle_s, now_ms)
    }

    /// The longest idle time that is believed at this time.
    fn most(&self, now_s: i64) -> u64 {
        let ran = u64::try_from(now_s - self.started_s).unwrap_or(0);
        BELIEVED_S.min(ran.saturating_add(DOUBT.as_secs()))
    }

    /// For the script, which finds out the same: the longest idle time that is ever believed, in seconds,
    /// and since when, Unix, a key can have been idle.
    pub(super) fn bounds(&self) -> (u64, i64) {
        let doubt = i64::try_from(DOUBT.as_secs()).unwrap_or(0);
        (BELIEVED_S, self.started_s - doubt)
    }

    /// Takes the server's time. One that is earlier than the last ends all trust for this run.
    pub(super) fn at(&mut self, now_ms: i64) {
        self.set_back |= now_ms < self.asked_ms;
        self.asked_ms = now_ms;
    }

    /// Why nothing counts as idle yet, for people; `None` when idle sessions are found.
    pub(super) fn waits(&self) -> Option<String> {
        if self.set_back {
            return Some("its clock was set back while it was swept".to_owned());
        }
        let mut told: Vec<String> = Vec::new();
        for (rule, guard) in &self.waits {
            let text = match guard.hint() {
                Some(hint) => format!("{guard}; {hint}"),
                None => guard.to_string(),
            };
            told.push(match self.rules {
                1 => text,
                _ => format!("rule {}: {text}", rule + 1),
            });
        }
        (!told.is_empty()).then(|| told.join(". "))
    }
}

/// Judges a server for the rules that have `idle`. What passes with time refuses nothing: until then no key of the
/// rule was unused for long enough, whatever its idle time.
pub(super) fn judge(
    rules: &[SessionRule],
    facts: &Facts,
    abilities: Abilities,
    watch: Watch,
    look: &Look,
) -> Result<Trusted, Guard> {
    let uptime = uptime(facts);
    if !abilities.scripts {
        return Err(Guard::NoScripts);
    }
    let mut waits = Vec::new();
    let idle = || rules.iter().enumerate().filter(|(_, rule)| rule.idle);
    for (number, rule) in idle() {
        if stores::reads_values(rule.store) && !abilities.no_touch {
            return Err(Guard::ReadsTouch {
                store: rule.store.as_str(),
            });
        }
        let needs = bound(rule);
        let judged = match uptime <= needs {
            true => Err(Guard::Young { uptime, needs }),
            false => watch.judge(needs),
        };
        match judged {
            Ok(()) => {}
            Err(guard) if guard.passes() => waits.push((number, guard)),
            Err(guard) => return Err(guard),
        }
    }
    let lines = [&look.standing, &look.traces, &look.childless];
    Ok(Trusted {
        lines: lines.into_iter().flatten().cloned().collect(),
        started_s: look.started_s,
        asked_ms: look.after_ms,
        set_back: false,
        waits,
        rules: idle().count(),
        watch,
    })
}

/// The file that keeps what was seen of one database's server.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) path: PathBuf,
}

impl Memory {
    pub(super) fn of(state_dir: &Path, name: &str) -> Memory {
        Memory {
            path: state_dir.join("idle").join(format!("{name}.json")),
        }
    }

    /// What was known, and now this look. A file that is not ours to read, or makes no sense, is as none.
    pub(super) fn add(&self, look: &Look) -> io::Result<Watch> {
        let known = match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Watch::after(known, look))
    }

    /// Forgets all.
    pub(super) fn forget(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Keeps it for the next time.
    pub(super) fn keep(&self, watch: &Watch) -> io::Result<()> {
        private::make_folders(private::parent_of(&self.path))?;
        let mut file = TemporaryFile::create(&self.path)?;
        serde_json::to_writer(file.file(), watch)?;
        file.replace()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
