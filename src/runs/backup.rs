//! Backing up as it is configured.

use std::sync::PoisonError;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::hooks::{self, Facts, Hook, Moment};
use super::notices::{beginning, took};
use super::{Keeper, Task, says_nothing};
use crate::backup::{self, Context, Job, Locked, Made, Outcome, back_up_group, cannot, group};
use crate::config::DatabaseConfig;
use crate::failure::Failure;
use crate::setup::{self, Overrides};
use crate::spool::Spool;

impl Keeper<'_> {
    /// Backs up these databases, one server after the other.
    pub async fn back_up(
        &self,
        databases: &[&DatabaseConfig],
        overrides: &Overrides,
    ) -> Vec<Outcome> {
        let (groups, mut outcomes) = self.plan_backups(databases, overrides);
        for outcome in &outcomes {
            if let Err(failure) = &outcome.result {
                self.failure_hooks(&outcome.name, failure).await;
            }
        }
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
                    self.record(database, Task::Backup, Timestamp::now(), Err(&failure));
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

    /// Backs up the databases of one group with one dump, with all that follows.
    pub async fn back_up_group(&self, group: Vec<Job>) -> Vec<Outcome> {
        let mut settled = self.dump_group(group).await;
        self.wind_up(&mut settled).await;
        settled.outcomes
    }

    /// Backs up the databases of one group with one dump, and records how that went. Nothing that comes after changes
    /// it: [`Keeper::wind_up`] does the rest.
    pub async fn dump_group(&self, group: Vec<Job>) -> Settled {
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
        let (locked, stopped) = self.before(locked).await;
        for (job, failure) in &stopped {
            let name = job.job().name.clone();
            outcomes.push(Outcome {
                result: Err(cannot(&name, failure.clone())),
                name,
                kept_in: Vec::new(),
            });
        }
        for outcome in &outcomes {
            self.settle(outcome, started_at);
        }
        // Whoever paused something must not wait for the others' dump to resume it.
        let resuming = outcomes
            .iter()
            .filter(|outcome| {
                stopped
                    .iter()
                    .any(|(job, _)| job.job().name == outcome.name)
            })
            .map(|outcome| self.hooks_after(&outcome.name, outcome.result.as_ref(), started_at));
        let context = Context {
            host: self.host.clone(),
            threads: self.config.daemon.compression_threads().get(),
            spool: Spool::new(&self.config.daemon.spool_dir),
            cancel: self.cancel.clone(),
            meter: self.meter.clone(),
        };
        let (_, dumped) = tokio::join!(join_all(resuming), back_up_group(&locked, &context));
        for outcome in &dumped {
            self.settle(outcome, started_at);
        }
        outcomes.extend(dumped);
        Settled {
            outcomes,
            started_at,
            locked,
        }
    }

    /// What follows the backups of a group, while their locks are held: the hooks of all, then pruning. What a
    /// backup's hooks put right does not wait for old backups to go.
    pub async fn wind_up(&self, settled: &mut Settled) {
        let dumped = |outcome: &&Outcome| {
            let mut jobs = settled.locked.iter().map(Locked::job);
            jobs.any(|job| job.name == outcome.name)
        };
        let hooks = settled.outcomes.iter().filter(dumped).map(|outcome| {
            self.hooks_after(&outcome.name, outcome.result.as_ref(), settled.started_at)
        });
        join_all(hooks).await;
        for outcome in &mut settled.outcomes {
            self.prune_after(outcome).await;
        }
    }

    /// Whether how a backup of this database went is recorded by now, or was found to be nothing to record.
    pub fn has_settled(&self, name: &str) -> bool {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.contains(name)
    }

    /// Runs the `failure` hooks of a backup that could not run them itself: its configuration makes no job, or it was
    /// given up, or it panicked.
    pub async fn failure_hooks(&self, name: &str, failure: &Failure) {
        self.hooks_after(name, Err(failure), Timestamp::now()).await;
    }

    /// Says that backups begin, and runs the hooks before them. Gives the jobs that may go on, and those that may not.
    async fn before(&self, jobs: Vec<Locked>) -> (Vec<Locked>, Vec<(Locked, Failure)>) {
        let hooks = jobs.iter().map(|job| self.hooks_before(job.job()));
        let results = join_all(hooks).await;
        let mut ready = Vec::with_capacity(jobs.len());
        let mut stopped = Vec::new();
        for (job, result) in jobs.into_iter().zip(results) {
            match result {
                Ok(()) => ready.push(job),
                Err(failure) => stopped.push((job, failure)),
            }
        }
        (ready, stopped)
    }

    async fn hooks_before(&self, job: &Job) -> Result<(), Failure> {
        let name = job.name.as_str();
        let Ok(database) = self.config.database(name) else {
            return Ok(());
        };
        let storages = job.storages.iter().map(|storage| storage.name.as_str());
        if let Some(notify) = &database.notify
            && everywhere(database, storages)
            && let Some(notice) = beginning(notify)
        {
            self.teller.tell(name, &notify.url, notice);
        }
        let facts = self.facts(name, Moment::Before);
        for command in &database.hooks.before {
            let hook = self.hook(database, command, Moment::Before, &facts);
            hooks::run(&hook, &self.cancel).await?;
        }
        Ok(())
    }

    /// Runs the hooks after a backup. They do not change its result.
    async fn hooks_after(
        &self,
        name: &str,
        result: Result<&Made, &Failure>,
        started_at: Timestamp,
    ) {
        let Ok(database) = self.config.database(name) else {
            return;
        };
        let moment = match result {
            Ok(_) => Moment::After,
            Err(_) => Moment::Failure,
        };
        let mut facts = self.facts(name, moment);
        facts.insert("STARTED_AT", started_at.to_string());
        match result {
            Ok(made) => facts.extend(facts_of_backup(made)),
            Err(failure) => {
                // Whoever paused something before a backup that was then stopped has to resume it.
                if says_nothing(failure.kind) && database.hooks.before.is_empty() {
                    return;
                }
                facts.extend([
                    ("ERROR", failure.message.clone()),
                    ("ERROR_KIND", failure.kind.as_str().to_owned()),
                    ("CAUSES", failure.causes.join("\n")),
                ]);
            }
        }
        let commands = match moment {
            Moment::After => &database.hooks.after,
            _ => &database.hooks.failure,
        };
        // When the run is stopped what was paused has still to be resumed: they get a little longer.
        let late = CancellationToken::new();
        let work = async {
            for command in commands {
                let hook = self.hook(database, command, moment, &facts);
                if let Err(error) = hooks::run(&hook, &late).await {
                    let failure = Failure::from(error);
                    tracing::warn!(
                        database = name,
                        "{}; the backup's own result stands",
                        std::iter::once(failure.message.clone())
                            .chain(failure.causes_and_said())
                            .collect::<Vec<_>>()
                            .join(": ")
                    );
                }
            }
        };
        let stop = async {
            self.cancel.cancelled().await;
            sleep(hooks::LIMIT_STOPPED).await;
            late.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = work => {}
            () = stop => {}
        }
    }

    fn hook<'h>(
        &self,
        database: &'h DatabaseConfig,
        command: &'h [String],
        moment: Moment,
        facts: &'h Facts,
    ) -> Hook<'h> {
        Hook {
            command,
            database: database.name.as_str(),
            moment,
            facts,
            limit: self.hook_limit.min(database.timeout),
        }
    }

    /// What every hook is told.
    fn facts(&self, database: &str, moment: Moment) -> Facts {
        Facts::from([
            ("EVENT", moment.as_str().to_owned()),
            ("DATABASE", database.to_owned()),
            ("HOST", self.host.clone()),
            ("TASK", Task::Backup.to_string()),
        ])
    }

    /// Records how a backup went. One that was asked for in fewer storages than are configured says nothing about
    /// those: it neither ends what fails, nor is it a success.
    fn settle(&self, outcome: &backup::Outcome, started_at: Timestamp) {
        if let Ok(database) = self.config.database(&outcome.name) {
            let counts = match &outcome.result {
                Ok(made) => everywhere(database, made.storages.iter().map(String::as_str)),
                Err(_) => true,
            };
            if counts {
                let result = outcome.result.as_ref().map(Some);
                self.record(database, Task::Backup, started_at, result);
            }
        }
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.insert(outcome.name.clone());
    }
}

/// The backups of a group that were made, or failed, and their locks.
#[derive(Debug)]
pub struct Settled {
    /// What became of each.
    pub outcomes: Vec<Outcome>,
    started_at: Timestamp,
    /// Those whose dump was begun.
    locked: Vec<Locked>,
}

/// Whether these are all the storages of a database.
pub(super) fn everywhere<'s>(
    database: &DatabaseConfig,
    storages: impl Iterator<Item = &'s str>,
) -> bool {
    let storages: Vec<&str> = storages.collect();
    let mut configured = database.storage.iter();
    configured.all(|name| storages.contains(&name.as_str()))
}

fn facts_of_backup(made: &Made) -> Facts {
    let manifest = &made.manifest;
    Facts::from([
        ("BACKUP_ID", manifest.id.to_string()),
        ("KEYS", manifest.rdb.keys.to_string()),
        ("BYTES", manifest.data.bytes.to_string()),
        ("PLAIN_BYTES", manifest.data.plain_bytes.to_string()),
        ("METHOD", manifest.method.clone()),
        ("STORAGES", made.storages.join(",")),
        ("SHRUNK", made.shrunk.to_string()),
        (
            "DURATION_SECONDS",
            format!("{:.3}", took(made).as_secs_f64()),
        ),
    ])
}
