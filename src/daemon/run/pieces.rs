//! From what is due to what came of it: pieces of work are made, begin when there is a place for them, and end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::task::{Id, JoinError};
use tokio::time::Instant;

use super::Daemon;
use crate::backup::Job;
use crate::daemon::agenda::{Ended, JobId, Why};
use crate::daemon::board::Running;
use crate::daemon::work::{self, AtWork, Outcome, Piece};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::runs::{Keeper, Task};
use crate::setup::Overrides;

/// A failure like the one before is told in full again after this.
const TOLD_AGAIN: Duration = Duration::from_secs(24 * 3600);

impl Daemon {
    /// Makes pieces of work of what is due: backups of one server share a dump.
    pub(super) fn plan(&mut self, due: Vec<(JobId, Why)>, now: Timestamp) {
        let mut backups = Vec::new();
        for (id, why) in due {
            match id.task {
                Task::Backup => backups.push((id, why)),
                _ => self.queue(vec![(id, why)], Vec::new(), None, now),
            }
        }
        if backups.is_empty() {
            return;
        }
        let config = Arc::clone(&self.config);
        let databases: Vec<_> = backups
            .iter()
            .filter_map(|(id, _)| config.database(&id.database).ok())
            .collect();
        let keeper = Keeper::new(&config, self.cancel.clone()).telling_by(self.teller.clone());
        let (groups, failed) = keeper.plan_backups(&databases, &Overrides::default());
        for outcome in failed {
            let outcome = work::of_backup(outcome);
            if let Err(failure) = &outcome.result {
                work::failure_hooks(&config, &self.cancel, &outcome.id, failure);
            }
            self.settle(outcome, now);
        }
        for group in groups {
            let of_group = |id: &JobId| group.iter().any(|job| job.name == id.database);
            let ids = backups.iter().filter(|(id, _)| of_group(id)).cloned();
            let ids: Vec<(JobId, Why)> = ids.collect();
            let server = group.first().map(|job| job.source.endpoint.address.place());
            self.queue(ids, group, server, now);
        }
    }

    fn queue(
        &mut self,
        ids: Vec<(JobId, Why)>,
        group: Vec<Job>,
        server: Option<String>,
        now: Timestamp,
    ) {
        let meter = Meter::default();
        self.board.change(|seen| {
            for (id, _) in &ids {
                seen.jobs.entry(id.clone()).or_default().running = Some(Running {
                    since: now,
                    waiting: true,
                    meter: meter.clone(),
                });
            }
        });
        self.waiting.push_back(Piece {
            ids,
            group,
            server,
            config: Arc::clone(&self.config),
            gate: self.gate.clone(),
            meter,
            teller: self.teller.clone(),
        });
    }

    /// Starts what waits and finds a place.
    pub(super) fn begin_waiting(&mut self) {
        let mut left = VecDeque::new();
        for piece in std::mem::take(&mut self.waiting) {
            let Some(place) = self.places.take(piece.ids.len(), piece.server.as_deref()) else {
                left.push_back(piece);
                continue;
            };
            for (id, why) in &piece.ids {
                work::log_begin(id, *why);
            }
            let at_work = AtWork {
                ids: piece.ids.iter().map(|(id, _)| id.clone()).collect(),
                place,
                since: Timestamp::now(),
                config: Arc::clone(&piece.config),
            };
            self.board.change(|seen| {
                for id in &at_work.ids {
                    if let Some(running) =
                        seen.jobs.get_mut(id).and_then(|job| job.running.as_mut())
                    {
                        running.since = at_work.since;
                        running.waiting = false;
                    }
                }
            });
            let work = work::run(piece, self.cancel.clone());
            let task = self.tasks.spawn(work);
            self.at_work.insert(task.id(), at_work);
        }
        self.waiting = left;
    }

    /// A task has ended, with outcomes or in a panic.
    pub(super) fn done(&mut self, done: Result<(Id, Vec<Outcome>), JoinError>) {
        let now = Timestamp::now();
        let (id, outcomes) = match done {
            Ok((id, outcomes)) => (id, outcomes),
            Err(error) => (error.id(), Vec::new()),
        };
        let Some(at_work) = self.at_work.remove(&id) else {
            return;
        };
        self.places.give(at_work.place);
        let told: Vec<JobId> = outcomes.iter().map(|outcome| outcome.id.clone()).collect();
        let seconds = now.duration_since(at_work.since).as_secs_f64();
        for outcome in outcomes {
            self.end(outcome, seconds, now);
        }
        for id in at_work.ids.into_iter().filter(|id| !told.contains(id)) {
            let failure = work::panicked(&id);
            if let Ok(database) = at_work.config.database(&id.database) {
                Keeper::new(&at_work.config, self.cancel.clone())
                    .telling_by(self.teller.clone())
                    .record_failure(database, id.task, at_work.since, &failure);
                work::failure_hooks(&at_work.config, &self.cancel, &id, &failure);
            }
            let outcome = Outcome {
                id,
                result: Err(failure),
                kept: false,
                counts: None,
            };
            self.end(outcome, seconds, now);
        }
        self.remember(now);
        self.begin_waiting();
        self.show(now);
        self.board.look_again();
    }

    /// Runs the failure hooks of backups that do not end: what was paused before them is to be resumed.
    pub(super) fn left_behind(&self) -> impl Future<Output = ()> + use<> {
        let mut all = Vec::new();
        for at_work in self.at_work.values() {
            for id in at_work.ids.iter().filter(|id| id.task == Task::Backup) {
                let record = self.ledger.read(&id.database, id.task);
                if record
                    .attempt
                    .is_some_and(|attempt| attempt.finished_at >= at_work.since)
                {
                    continue;
                }
                let (config, cancel) = (Arc::clone(&at_work.config), self.cancel.clone());
                let name = id.database.clone();
                all.push(async move {
                    let failure = Failure::new(Kind::Interrupted, "stopped, and it did not end");
                    let keeper = Keeper::new(&config, cancel);
                    keeper.failure_hooks(&name, &failure).await;
                });
            }
        }
        async {
            join_all(all).await;
        }
    }

    /// A run that was never begun, because its configuration makes no job.
    fn settle(&mut self, outcome: Outcome, now: Timestamp) {
        self.end(outcome, 0.0, now);
        self.remember(now);
    }

    fn end(&mut self, outcome: Outcome, seconds: f64, now: Timestamp) {
        let id = outcome.id.clone();
        let like_before = match &outcome.result {
            Ok(_) => {
                self.told.remove(&id);
                false
            }
            Err(failure) => {
                let like_before = self
                    .told
                    .get(&id)
                    .is_some_and(|(told, at)| told == failure && at.elapsed() < TOLD_AGAIN);
                if !like_before {
                    self.told
                        .insert(id.clone(), (failure.clone(), Instant::now()));
                }
                like_before
            }
        };
        work::log_end(&outcome, seconds, like_before);
        let ended = outcome.ended();
        self.agenda.ended(&id, ended, now);
        let record = self.ledger.read(&id.database, id.task);
        self.board.change(|seen| {
            let job = seen.jobs.entry(id).or_default();
            job.running = None;
            job.record = record;
            match ended {
                Ended::Well => job.counts.succeeded += 1,
                Ended::Kept => job.counts.failed += 1,
                Ended::Failed(kind) if kind != Kind::Busy => job.counts.failed += 1,
                Ended::Failed(_) | Ended::Stopped => {}
            }
            if let Some(counts) = outcome.counts {
                job.sweeps.get_or_insert_default().add(counts);
            }
        });
    }
}
