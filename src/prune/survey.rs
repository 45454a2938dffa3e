//! What a storage holds of a database, and what retention says of it.

use jiff::Timestamp;

use super::{Job, Judged, Report, State};
use crate::catalog::debris::{self, Debris};
use crate::catalog::list::list;
use crate::catalog::{Backup, BackupId, Error};
use crate::failure::Failure;
use crate::retention::{self, Fact, Fate, Guard, Reason, Rules, Standing};
use crate::storage::NamedStore;

/// Everything of a database in one storage.
#[derive(Debug)]
pub(super) struct Survey {
    items: Vec<Item>,
    /// What may be debris, of any age.
    pub(super) debris: Vec<Debris>,
}

#[derive(Debug)]
struct Item {
    id: BackupId,
    fact: Fact,
    /// `None` when it is damaged or of a later version: it never goes.
    backup: Option<Backup>,
}

/// What is to be done in one storage.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) report: Report,
    /// Those that go, oldest first, each with its place in the report.
    pub(super) going: Vec<(usize, Backup)>,
    /// What replaces them: it must still be there when they go.
    pub(super) newest_good: Option<Backup>,
}

/// Looks at what there is. What cannot be read now, for whatever reason, makes this fail: the newest backup may be
/// among it, and nothing may be decided without it.
pub(super) async fn survey(storage: &NamedStore, job: &Job) -> Result<Survey, Failure> {
    let mut listing = list(std::slice::from_ref(storage), Some(&job.name)).await?;
    listing.mark_shrunk(|_| job.shrink_guard);
    if !job.shared {
        listing.must_be_of(&job.host)?;
    }
    let mut items = Vec::new();
    for broken in listing.broken {
        let standing = match broken.error {
            Error::Storage(error) => return Err(Error::Storage(error).into()),
            Error::Newer { .. } => Standing::Newer,
            _ => Standing::Damaged,
        };
        items.push(Item {
            fact: Fact {
                id: broken.id.to_string(),
                began: broken.id.time(),
                standing,
                keys: 0,
                pinned: false,
                accepted: false,
            },
            id: broken.id,
            backup: None,
        });
    }
    for backup in listing.backups {
        items.push(Item {
            id: backup.manifest.id.clone(),
            fact: Fact {
                id: backup.manifest.id.to_string(),
                began: backup.manifest.started_at,
                standing: match (backup.damaged, backup.shrunk) {
                    (true, _) => Standing::Damaged,
                    (false, true) => Standing::Shrunk,
                    (false, false) => Standing::Good,
                },
                keys: backup.manifest.rdb.keys,
                pinned: backup.pinned,
                accepted: backup.accepted,
            },
            backup: Some(backup),
        });
    }
    items.sort_by(|a, b| (a.fact.began, &a.id).cmp(&(b.fact.began, &b.id)));
    let debris = debris::find(storage, &job.name).await?;
    Ok(Survey { items, debris })
}

impl Survey {
    pub(super) fn facts(&self) -> Vec<Fact> {
        self.items.iter().map(|item| item.fact.clone()).collect()
    }

    /// Decides. `guard` is the newest backup of all storages, when it is shrunk.
    pub(super) fn plan(
        self,
        job: &Job,
        storage: &str,
        guard: Option<&BackupId>,
        now: Timestamp,
    ) -> (Plan, Vec<Debris>) {
        let policy = job.policies.of(storage);
        let facts = self.facts();
        // Without a newer one elsewhere, it is the newest here.
        let here = || match retention::guard(&facts, now) {
            Guard::Tripped => retention::newest(&facts, now)?.id.parse().ok(),
            Guard::Clear => None,
        };
        let guard = guard.cloned().or_else(here);
        let tripped = match guard {
            Some(_) => Guard::Tripped,
            None => Guard::Clear,
        };
        let rules = Rules {
            policy,
            zone: &job.zone,
            shrink_guard: job.shrink_guard,
        };
        let fates = retention::judge(&facts, rules, now, tripped);
        let mut plan = Plan {
            report: Report {
                policy: policy.copied(),
                guard,
                ..Report::default()
            },
            going: Vec::new(),
            newest_good: None,
        };
        for (at, (item, fate)) in self.items.into_iter().zip(fates).enumerate() {
            let bytes = item
                .backup
                .as_ref()
                .map(|backup| backup.manifest.data.bytes);
            let (state, reasons) = match fate {
                Fate::Stays(reasons) => (State::Kept, reasons),
                Fate::Goes => (State::Goes, Vec::new()),
            };
            if reasons.contains(&Reason::NewestGood) {
                plan.newest_good = item.backup.clone();
            }
            if let (State::Goes, Some(backup)) = (state, item.backup) {
                plan.going.push((at, backup));
            }
            plan.report.backups.push(Judged {
                id: item.id,
                began: item.fact.began,
                bytes,
                state,
                reasons,
            });
        }
        (plan, self.debris)
    }
}
