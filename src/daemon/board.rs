//! What is going on, for whoever asks: metrics, health, status, systemd.
//!
//! The work loop writes, everybody reads. A reader gets a copy and holds nothing: a client that reads slowly
//! must never keep the loop from going round.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::agenda::JobId;
use crate::config::Config;
use crate::meter::Meter;
use crate::runs::ledger::Record;
use crate::sessions::tally::{RuleCounts, sum};

/// The shared picture of the daemon. Cloning it gives another handle.
#[derive(Clone, Debug)]
pub struct Board(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    seen: Mutex<Seen>,
    look_again: Notify,
}

/// What there is to see at one moment.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The configuration that holds now.
    pub config: Arc<Config>,
    /// When the daemon was started.
    pub started_at: Timestamp,
    /// When its configuration was taken.
    pub configured_at: Timestamp,
    /// Every scheduled job, and those that are still running although they are scheduled no more.
    pub jobs: BTreeMap<JobId, JobSeen>,
    /// What is wrong with the daemon itself, with what it is about.
    pub troubles: BTreeMap<Trouble, Told>,
}

/// What there is to see of a job.
#[derive(Clone, Debug, Default)]
pub struct JobSeen {
    /// Its cron expression; `None`: it is scheduled no more.
    pub schedule: Option<String>,
    /// How its last runs ended, whoever asked for them.
    pub record: Record,
    /// The run that is going on.
    pub running: Option<Running>,
    /// When it begins next: a due time with its jitter, or a failed run tried again. `None` while that is not known.
    pub next: Option<Timestamp>,
    /// Whether `next` is a failed run that is tried again.
    pub again: bool,
    /// Runs of this process, by result.
    pub counts: Counts,
    /// What its sweeps over sessions counted.
    pub sweeps: Option<Sweeps>,
}

/// What the sweeps over a database's sessions counted, in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweeps {
    /// The last one, by rule, in the order of the configuration; also when it failed on the way.
    pub last: Vec<RuleCounts>,
    /// Keys of all sweeps, by the place of the rule and what was done: `set`, `shortened`, `deleted`.
    pub done: BTreeMap<(usize, &'static str), u64>,
}

impl Sweeps {
    /// Adds another sweep.
    pub(super) fn add(&mut self, counts: Vec<RuleCounts>) {
        for rule in &counts {
            let done = [
                ("set", rule.set),
                ("shortened", rule.shortened),
                ("deleted", sum(&rule.deleted)),
            ];
            for (action, keys) in done {
                *self.done.entry((rule.rule.number, action)).or_default() += keys;
            }
        }
        self.last = counts;
    }
}

/// A run that is going on.
#[derive(Clone, Debug)]
pub struct Running {
    /// Since when.
    pub since: Timestamp,
    /// Whether it waits for a place, or for another dump of its server.
    pub waiting: bool,
    /// How far it is. Databases that share a dump share it.
    pub meter: Meter,
}

/// Runs of this process, by result. One that was stopped, or found another process at it, is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that succeeded.
    pub succeeded: u64,
    /// Those that failed.
    pub failed: u64,
}

/// What can be wrong with the daemon itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// What was served cannot be kept in the state folder.
    State,
    /// A new configuration was refused; the old one goes on.
    Reload,
    /// The scheduler does not tick.
    Scheduler,
    /// Nothing is removed for a day, because the clock leapt forward.
    Pruning,
    /// The configuration schedules nothing.
    Idle,
    /// A change of the configuration that needs a restart.
    Restart,
}

impl Trouble {
    /// The word in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Trouble::State => "state",
            Trouble::Reload => "reload",
            Trouble::Scheduler => "scheduler",
            Trouble::Pruning => "pruning",
            Trouble::Idle => "idle",
            Trouble::Restart => "restart",
        }
    }
}

/// A trouble as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Since when.
    pub since: Timestamp,
    /// One sentence, lower case, without a full stop.
    pub text: String,
}

impl Board {
    /// The picture of a daemon that was just started.
    pub fn new(config: Arc<Config>, now: Timestamp) -> Board {
        let seen = Seen {
            config,
            started_at: now,
            configured_at: now,
            jobs: BTreeMap::new(),
            troubles: BTreeMap::new(),
        };
        Board(Arc::new(Shared {
            seen: Mutex::new(seen),
            look_again: Notify::new(),
        }))
    }

    /// A copy of the picture.
    pub fn read(&self) -> Seen {
        self.lock().clone()
    }

    /// Waits until something happened that changes what the stores hold. One call hears of all that happened
    /// since the last.
    pub async fn stores_changed(&self) {
        self.0.look_again.notified().await;
    }

    /// Says that a run may have changed what the stores hold.
    pub(super) fn look_again(&self) {
        self.0.look_again.notify_one();
    }

    /// Changes the picture. What `change` does must be short.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(&mut self.lock())
    }

    /// Says that something is wrong; true when it is news.
    pub(super) fn trouble(&self, trouble: Trouble, now: Timestamp, text: String) -> bool {
        self.change(|seen| match seen.troubles.get_mut(&trouble) {
            Some(told) if told.text == text => false,
            Some(told) => {
                told.text = text;
                true
            }
            None => {
                let told = Told { since: now, text };
                seen.troubles.insert(trouble, told);
                true
            }
        })
    }

    /// Says that something is right again; true when it was wrong.
    pub(super) fn right(&self, trouble: Trouble) -> bool {
        self.change(|seen| seen.troubles.remove(&trouble).is_some())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Whoever panicked while holding it left a picture that is at worst half updated.
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
