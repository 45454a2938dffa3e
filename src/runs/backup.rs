//! Backing up as it is configured.

use jiff::Timestamp;

use super::{Keeper, Task};
use crate::backup::{self, Context, Job, Locked, Outcome, back_up_group, cannot, group};
use crate::config::DatabaseConfig;
use crate::setup::{self, Overrides};

impl Keeper<'_> {
    /// Backs up these databases, one server after the other.
    pub async fn back_up(
        &self,
        databases: &[&DatabaseConfig],
        overrides: &Overrides,
    ) -> Vec<Outcome> {
        let (groups, mut outcomes) = self.plan_backups(databases, overrides);
        for group in groups {
            outcomes.extend(self.back_up_group(group).await);
        }
        outcomes
    }

    /// The groups of databases that share a dump, and those whose configuration does not even make a job.
    pub fn plan_backups(
        &self,
        databases: &[&DatabaseConfig],
        overrides: &Overrides,
    ) -> (Vec<Vec<Job>>, Vec<Outcome>) {
        let mut jobs = Vec::new();
        let mut outcomes = Vec::new();
        for database in databases {
            match setup::job(self.config, database, overrides, &self.cancel) {
                Ok(job) => jobs.push(job),
                Err(failure) => {
                    let failure = cannot(database.name.as_str(), failure);
                    self.record(database, Task::Backup, Timestamp::now(), Some(&failure));
                    outcomes.push(Outcome {
                        name: database.name.to_string(),
                        result: Err(failure),
                        kept_in: Vec::new(),
                    });
                }
            }
        }
        (group(jobs), outcomes)
    }

    /// Backs up the databases of one group with one dump.
    pub async fn back_up_group(&self, group: Vec<Job>) -> Vec<Outcome> {
        let started_at = Timestamp::now();
        let mut outcomes = Vec::with_capacity(group.len());
        let mut locked = Vec::with_capacity(group.len());
        for job in group {
            let name = job.name.clone();
            match Locked::take(job, &self.config.daemon.state_dir) {
                Ok(job) => locked.push(job),
                Err(failure) => outcomes.push(Outcome {
                    name,
                    result: Err(failure),
                    kept_in: Vec::new(),
                }),
            }
        }
        let context = Context {
            host: self.host.clone(),
            threads: self.config.daemon.compression_threads(),
            cancel: self.cancel.clone(),
            meter: self.meter.clone(),
        };
        outcomes.extend(back_up_group(&locked, &context).await);
        for outcome in &mut outcomes {
            self.settle(outcome, started_at);
            self.prune_after(outcome).await;
        }
        outcomes
    }

    /// What follows a backup, while its lock is held.
    fn settle(&self, outcome: &backup::Outcome, started_at: Timestamp) {
        if let Ok(database) = self.config.database(&outcome.name) {
            let failure = outcome.result.as_ref().err();
            self.record(database, Task::Backup, started_at, failure);
        }
    }
}
