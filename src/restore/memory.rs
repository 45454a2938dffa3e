//! The memory that a target will need against what it has: what is warned of, and what is refused.

use serde::Serialize;

use super::scales::{EMPTY_SERVER, Scales};
use crate::failure::{Failure, Kind};
use crate::server::Facts;
use crate::target::live::OnConflict;
use crate::units::HumanBytes;

/// What a target has, and will need.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryPlan {
    /// What the keys will need, in bytes: an estimate.
    pub needs: u64,
    /// What they need for certain: their bytes in the file.
    pub at_least: u64,
    /// What the target uses now, as it counts towards `maxmemory`.
    pub used: u64,
    /// What becomes free first (`--flush`): an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freed: Option<u64>,
    /// `maxmemory`; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maxmemory: Option<u64>,
    /// `maxmemory-policy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The memory of the target's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<u64>,
}

/// What is done to the target besides writing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doing {
    /// How many of the target's keys are deleted first.
    pub(super) flushed_keys: u64,
    pub(super) on_conflict: OnConflict,
    /// Whether a database that gets keys has some, and keeps them.
    pub(super) occupied: Occupied,
}

/// Whether the databases that get keys have some already, after what is emptied first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupied {
    /// One of them has.
    Yes,
    /// None has.
    No,
}

impl MemoryPlan {
    pub(super) fn of(scales: &Scales, info: &Facts, doing: Doing) -> MemoryPlan {
        let number = |name: &str| info.get(name).and_then(|text| text.parse::<u64>().ok());
        let uncounted = number("mem_not_counted_for_evict").unwrap_or(0);
        let used = info.used_memory.saturating_sub(uncounted);
        let freed = (doing.flushed_keys > 0).then(|| {
            let keys = info.keys().max(doing.flushed_keys);
            let data = u128::from(used.saturating_sub(EMPTY_SERVER));
            let share = data * u128::from(doing.flushed_keys) / u128::from(keys);
            u64::try_from(share).unwrap_or(used)
        });
        MemoryPlan {
            needs: scales.needs(info.product),
            at_least: scales.meant.raw,
            used,
            freed,
            maxmemory: (info.maxmemory > 0).then_some(info.maxmemory),
            policy: info.get("maxmemory_policy").map(str::to_owned),
            host: number("total_system_memory").filter(|bytes| *bytes > 0),
        }
    }

    /// What is free below a limit once what goes has gone.
    fn room(&self, limit: u64) -> u64 {
        let used = self.used.saturating_sub(self.freed.unwrap_or(0));
        limit.saturating_sub(used)
    }

    /// Whether the target deletes keys when it is full; not known counts as not.
    fn evicts(&self) -> bool {
        self.policy
            .as_deref()
            .is_some_and(|policy| policy != "noeviction")
    }

    /// What to know before it begins, when it will probably not fit.
    pub(super) fn warning(&self) -> Option<String> {
        let needs = HumanBytes(self.needs);
        let Some(limit) = self.maxmemory else {
            let host = self.host?;
            let room = self.room(host);
            return (self.needs > room).then(|| {
                format!(
                    "the keys need about {needs}, and the target's host has {} in all, {} of it used by this server: the target may be killed for want of memory",
                    HumanBytes(host),
                    HumanBytes(self.used)
                )
            });
        };
        let room = self.room(limit);
        if self.needs <= room {
            return None;
        }
        let what = match (self.evicts(), &self.policy) {
            (true, Some(policy)) => format!("the target will evict keys ({policy})"),
            _ => "the target will probably refuse some of them".to_owned(),
        };
        Some(format!(
            "the keys need about {needs}, and the target has {} left of {} (maxmemory): {what}",
            HumanBytes(room),
            HumanBytes(limit)
        ))
    }

    /// Refuses what can't fit, whatever the estimate is worth.
    ///
    /// # Errors
    /// [`Kind::Refused`].
    pub(super) fn judge(&self, place: &str, doing: Doing) -> Result<(), Failure> {
        let Some(limit) = self.maxmemory.filter(|_| !self.evicts()) else {
            return Ok(());
        };
        // What goes first, or is replaced, gives back nobody knows how much; what is skipped needs nothing.
        let room = match (doing.occupied, doing.on_conflict) {
            (Occupied::Yes, OnConflict::Skip) => return Ok(()),
            (Occupied::Yes, OnConflict::Replace) => limit,
            _ if self.freed.is_some() => limit,
            _ => limit.saturating_sub(self.used),
        };
        if self.at_least <= room {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Refused,
            format!(
                "{place} has no room for the keys: they need about {}, at least {}, and it has {} of {} (maxmemory)",
                HumanBytes(self.needs),
                HumanBytes(self.at_least),
                HumanBytes(room),
                HumanBytes(limit)
            ),
        )
        .hint("raise `maxmemory` (CONFIG SET maxmemory), empty the databases first with --flush, or choose fewer keys with --db, --match or --type"))
    }
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "needs about {}; the target ", HumanBytes(self.needs))?;
        match self.maxmemory {
            Some(limit) => {
                let (room, limit) = (HumanBytes(self.room(limit)), HumanBytes(limit));
                write!(f, "has {room} of {limit} (maxmemory)")?;
                match &self.policy {
                    Some(policy) => write!(f, ", policy {policy}"),
                    None => Ok(()),
                }
            }
            None => {
                write!(f, "has no maxmemory and uses {}", HumanBytes(self.used))?;
                match self.host {
                    Some(host) => write!(f, " of its host's {}", HumanBytes(host)),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> Facts {
        Facts::parse(&format!("redis_version:7.0.15\r\n{text}"))
    }

    const DOING: Doing = Doing {
        flushed_keys: 0,
        on_conflict: OnConflict::Fail,
        occupied: Occupied::No,
    };

    #[test]
    fn only_what_is_certain_refuses() {
        let scales = Scales::loaded(1000, 3000);
        let plan = |text: &str, doing: Doing| MemoryPlan::of(&scales, &info(text), doing);
        let limit = |limit: u64| {
            format!(
                "used_memory:500\r\nmaxmemory:{limit}\r\nmaxmemory_policy:noeviction\r\ndb0:keys=10,expires=0\r\n"
            )
        };
        let refused = |text: &str, doing: Doing| plan(text, doing).judge("it", doing).is_err();
        assert!(!refused("used_memory:500\r\n", DOING));
        assert!(refused(&limit(1499), DOING) && !refused(&limit(1500), DOING));
        assert!(plan(&limit(1500), DOING).warning().is_some());
        assert!(plan(&limit(3500), DOING).warning().is_none());
        let replaced = Doing {
            on_conflict: OnConflict::Replace,
            occupied: Occupied::Yes,
            ..DOING
        };
        assert!(refused(&limit(999), replaced) && !refused(&limit(1000), replaced));
        let skipped = Doing {
            on_conflict: OnConflict::Skip,
            ..replaced
        };
        assert!(!refused(&limit(1), skipped));
        let flushed = Doing {
            flushed_keys: 10,
            ..DOING
        };
        assert!(refused(&limit(999), flushed) && !refused(&limit(1000), flushed));
        assert!(!refused(
            &limit(1499).replace("noeviction", "allkeys-lru"),
            DOING
        ));
        let uncounted = format!("{}mem_not_counted_for_evict:500\r\n", limit(1000));
        assert!(!refused(&uncounted, DOING));
    }

    #[test]
    fn without_a_limit_the_hosts_memory_warns() {
        let scales = Scales::loaded(1000, 3000);
        let plan = |host: u64| {
            let text = format!("used_memory:500\r\ntotal_system_memory:{host}\r\n");
            MemoryPlan::of(&scales, &info(&text), DOING)
        };
        assert!(plan(3499).warning().is_some() && plan(3500).warning().is_none());
        assert!(plan(0).warning().is_none());
        assert!(plan(1).judge("it", DOING).is_ok());
    }
}
