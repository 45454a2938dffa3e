//! The work loop. What it does with a piece of work is in `pieces`; with a backup that does not come, in `late`.

mod late;
mod pieces;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::agenda::{Agenda, JobId, Known, Scheduled};
use super::board::{Board, JobSeen, Trouble};
use super::clock::{self, ClockWatch};
use super::picture::{self, Gallery};
use super::places::Places;
use super::schedule::{Heartbeat, SILENCE};
use super::signals::{self, Signal};
use super::state::{Alone, StateFile};
use super::systemd::{self, Systemd};
use super::work::{AtWork, Outcome, Piece};
use super::{Origin, http, stores};
use crate::backup;
use crate::config::Config;
use crate::failure::{Failure, Kind};
use crate::prune::{self, Gate};
use crate::runs::ledger::Ledger;
use crate::runs::teller::{Patience, Teller};
use crate::runs::{Task, hooks};
use crate::setup;
use crate::source::put_compression_back;
use crate::spool::Spool;
use crate::turns::COMPRESSION;

/// How long running jobs may take to end by themselves when the daemon stops, and then to end when they are stopped.
const DRAIN: Duration = Duration::from_secs(5);
const STOP: Duration = Duration::from_secs(3);

// A removal or a commit that was begun comes to its end in that time, and hooks put right what they began.
const _: () = assert!(prune::GRACE.as_millis() < STOP.as_millis());
const _: () = assert!(backup::GRACE.as_millis() < STOP.as_millis());
const _: () = assert!(hooks::LONGEST_STOPPED.as_millis() < STOP.as_millis());
// And all of it is over before whoever stops us loses patience.
const _: () = assert!(DRAIN.as_secs() + STOP.as_secs() + LAST_NOTICES.as_secs() < 10);

/// How long notices may take to be delivered when all work has ended.
const LAST_NOTICES: Duration = Duration::from_secs(1);

/// So many fresh starts of a silent scheduler in a row are one too many, and so many are hopeless.
const STARTS: u32 = 3;
const HOPELESS: u32 = 5;

/// The daemon.
pub(super) struct Daemon {
    config: Arc<Config>,
    gate: Gate,
    origin: Origin,
    agenda: Agenda,
    board: Board,
    state: StateFile,
    ledger: Ledger,
    places: Places,
    waiting: VecDeque<Piece>,
    tasks: JoinSet<Vec<Outcome>>,
    at_work: HashMap<Id, AtWork>,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
    heartbeat: Heartbeat,
    last_tick: Instant,
    starts: u32,
    signals: mpsc::Receiver<Signal>,
    clock: ClockWatch,
    systemd: Systemd,
    cancel: CancellationToken,
    told: HashMap<JobId, (Failure, Instant)>,
    teller: Teller,
    bound: Option<http::Bound>,
    gallery: Gallery,
    /// When the picture was taken that was looked through for backups that are late.
    looked_through: Option<Timestamp>,
    _alone: Alone,
}

/// What the stores say of a database.
struct Answer {
    database: String,
    known: Known,
}

impl Daemon {
    /// Gets everything ready.
    pub(super) async fn start(config: Config, origin: Origin) -> Result<Daemon, Failure> {
        let signals = signals::watch()?;
        let alone = Alone::take(&config.daemon.state_dir)?;
        if let Err(error) = Spool::new(&config.daemon.spool_dir).sweep() {
            let folder = config.daemon.spool_dir.display();
            tracing::warn!("the spool folder {folder} cannot be swept: {error}");
        }
        let bound = match config.daemon.listen {
            Some(address) => Some(http::bind(address).await?),
            None => None,
        };
        let config = Arc::new(config);
        let now = Timestamp::now();
        let state = StateFile::new(&config.daemon.state_dir);
        let mut agenda = Agenda::new(setup::host_name());
        agenda.configure(
            scheduled(&config),
            config.daemon.timezone.clone(),
            &state.read(),
            now,
        );
        let mut daemon = Daemon {
            agenda,
            board: Board::new(Arc::clone(&config), now),
            ledger: Ledger::new(&config.daemon.state_dir),
            places: Places::new(config.daemon.concurrency.get()),
            waiting: VecDeque::new(),
            tasks: JoinSet::new(),
            at_work: HashMap::new(),
            answers: mpsc::channel(16),
            heartbeat: Heartbeat::start().await?,
            last_tick: Instant::now(),
            starts: 0,
            signals,
            clock: ClockWatch::new(now, clock::up()),
            systemd: Systemd::of_process(),
            cancel: CancellationToken::new(),
            told: HashMap::new(),
            teller: Teller::new(Patience::DAEMON),
            bound,
            gallery: Gallery::default(),
            looked_through: None,
            _alone: alone,
            state,
            config,
            gate: Gate::default(),
            origin,
        };
        daemon.ask_stores(now);
        daemon.put_servers_right();
        daemon.remember(now);
        daemon.show(now);
        Ok(daemon)
    }

    /// Goes round until a signal says to stop.
    ///
    /// # Errors
    /// When the scheduler cannot be brought to tick: whoever started this process has to start it anew.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        self.log_start();
        let serving = self.serve();
        self.systemd.ready();
        let ended = loop {
            let silent = self.last_tick + SILENCE;
            tokio::select! {
                signal = self.signals.recv() => match signal {
                    Some(Signal::Reload) => self.reload(),
                    Some(Signal::Stop) | None => break Ok(()),
                },
                Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.done(done),
                Some(answer) = self.answers.1.recv() => {
                    self.agenda.learn(&answer.database, answer.known, Timestamp::now());
                    self.remember(Timestamp::now());
                }
                () = self.heartbeat.tick() => self.tick(),
                () = tokio::time::sleep_until(silent) => {
                    if let Err(failure) = self.start_scheduler_anew().await {
                        break Err(failure);
                    }
                }
            }
        };
        self.drain().await;
        serving.cancel();
        ended
    }

    /// Begins to look at the stores, and to serve what there is to see. Both go on until the token is cancelled.
    fn serve(&mut self) -> CancellationToken {
        let (board, gallery) = (self.board.clone(), self.gallery.clone());
        let serving = CancellationToken::new();
        tokio::spawn(picture::keep(
            board.clone(),
            gallery.clone(),
            serving.clone(),
        ));
        if let Some(bound) = self.bound.take() {
            tracing::info!(
                "metrics, health and status are at http://{}",
                bound.address()
            );
            tokio::spawn(bound.serve(board, gallery, serving.clone()));
        }
        serving
    }

    /// A round: what is due begins.
    fn tick(&mut self) {
        self.last_tick = Instant::now();
        self.starts = 0;
        let now = Timestamp::now();
        if self.board.right(Trouble::Scheduler) {
            tracing::info!("the scheduler ticks again");
        }
        self.watch_clock(now);
        let due = self.agenda.due(now);
        for id in &due.set_back {
            let (database, task) = (id.database.as_str(), id.task.as_str());
            tracing::warn!(
                database,
                task,
                "the clock was set back by more than three hours: what is due is counted from now"
            );
        }
        for id in &due.passed_over {
            let (database, task) = (id.database.as_str(), id.task.as_str());
            tracing::warn!(
                database,
                task,
                "it is due again while it is still going on: passed over, and so are the next until it ends"
            );
        }
        // First remembered, then begun: a run that ends the process is known after it.
        self.remember(now);
        self.plan(due.begin, now);
        self.begin_waiting();
        self.tell_late(now);
        self.show(now);
        self.systemd.went_round();
    }

    fn watch_clock(&mut self, now: Timestamp) {
        let leap = self.clock.look(now, clock::up());
        self.gate.doubt_clock(self.clock.holds());
        if let Some(leap) = leap {
            let text = format!(
                "the clock leapt forward by {} hours: nothing is removed for a day",
                leap.as_hours()
            );
            tracing::warn!("{text}");
            self.board.trouble(Trouble::Pruning, now, text);
        } else if !self.clock.holds() {
            self.board.right(Trouble::Pruning);
        }
    }

    /// Keeps what was served. When that cannot be done it is told once, and goes on in memory.
    fn remember(&mut self, now: Timestamp) {
        match self.state.write(self.agenda.remembered()) {
            Ok(()) => {
                if self.board.right(Trouble::State) {
                    tracing::info!("what was done can be kept in the state folder again");
                }
            }
            Err(error) => {
                let path = self.state.path().display();
                let text = format!("what was done cannot be kept in {path}: {error}");
                if self.board.trouble(Trouble::State, now, text.clone()) {
                    tracing::warn!("{text}; after a restart a job may run once more");
                }
            }
        }
    }

    /// Brings board and systemd up to date.
    fn show(&mut self, now: Timestamp) {
        let next = self.agenda.next(now);
        let config = &self.config;
        let ledger = &self.ledger;
        self.board.change(|seen| {
            seen.jobs
                .retain(|id, job| next.contains_key(id) || job.running.is_some());
            for (id, (next, again)) in next {
                let schedule = cron_of(config, &id).map(|cron| cron.as_str().to_owned());
                let job = seen.jobs.entry(id).or_insert_with_key(|id| JobSeen {
                    record: ledger.read(&id.database, id.task),
                    ..JobSeen::default()
                });
                (job.schedule, job.next, job.again) = (schedule, next, again);
            }
        });
        if self.agenda.is_empty() {
            let text = "nothing is scheduled: no database has schedule, verify_schedule or sessions_schedule";
            if self.board.trouble(Trouble::Idle, now, text.to_owned()) {
                tracing::warn!("{text}");
            }
        } else {
            self.board.right(Trouble::Idle);
        }
        self.systemd
            .status(systemd::status(&self.board.read(), now));
    }

    /// Puts back what backups that were killed have left changed on servers. One that cannot be reached now is put right by
    /// its next backup.
    fn put_servers_right(&self) {
        let config = Arc::clone(&self.config);
        tokio::spawn(async move {
            let endpoints = setup::endpoints(&config);
            for told in put_compression_back(&config.daemon.state_dir, &endpoints).await {
                tracing::warn!("{told}");
            }
        });
    }

    /// Asks the stores of the backups of which they must say what is the newest.
    fn ask_stores(&self, now: Timestamp) {
        for database in self.agenda.unknown() {
            let config = Arc::clone(&self.config);
            let answers = self.answers.0.clone();
            tokio::spawn(async move {
                // Without an answer the backup would never be due: a panic is one, too.
                let asking = tokio::spawn(stores::newest(config, database.clone(), now));
                let known = asking.await.unwrap_or_default();
                let _ = answers.send(Answer { database, known }).await;
            });
        }
    }

    /// Takes the configuration as it is now. One that is wrong is refused, and the old one goes on.
    fn reload(&mut self) {
        self.systemd.reloading();
        let now = Timestamp::now();
        match setup::load(self.origin.named.as_deref(), &self.origin.environment) {
            Ok(config) => self.take(config, now),
            Err(failure) => {
                let message = &failure.message;
                tracing::error!("the new configuration is refused, the old one goes on: {message}");
                for mistake in &failure.causes {
                    // The excerpt below the first line is for a terminal.
                    tracing::error!("{}", mistake.lines().next().unwrap_or_default());
                }
                let text = format!("the new configuration is refused: {}", failure.message);
                self.board.trouble(Trouble::Reload, now, text);
            }
        }
        self.show(now);
        self.systemd.ready();
    }

    fn take(&mut self, mut config: Config, now: Timestamp) {
        let old = &self.config.daemon;
        let mut fixed = Vec::new();
        if config.daemon.state_dir != old.state_dir {
            config.daemon.state_dir.clone_from(&old.state_dir);
            fixed.push("state_dir");
        }
        if config.daemon.listen != old.listen {
            config.daemon.listen = old.listen;
            fixed.push("listen");
        }
        if config.daemon.nice != old.nice {
            config.daemon.nice = old.nice;
            fixed.push("nice");
        }
        self.config = Arc::new(config);
        // What was begun removes nothing more: it would go by the policy of before.
        self.gate.retire();
        self.gate = Gate::default();
        self.gate.doubt_clock(self.clock.holds());
        self.agenda.configure(
            scheduled(&self.config),
            self.config.daemon.timezone.clone(),
            &BTreeMap::new(),
            now,
        );
        self.places.resize(self.config.daemon.concurrency.get());
        COMPRESSION.at_most(self.config.daemon.compression_threads());
        let config = Arc::clone(&self.config);
        self.board.change(|seen| {
            seen.config = config;
            seen.configured_at = now;
        });
        self.board.right(Trouble::Reload);
        if fixed.is_empty() {
            self.board.right(Trouble::Restart);
        } else {
            let text = format!("a new {} is taken at the next restart", fixed.join(" and "));
            tracing::warn!("{text}");
            self.board.trouble(Trouble::Restart, now, text);
        }
        tracing::info!("the configuration was read anew");
        self.ask_stores(now);
        self.remember(now);
        self.board.look_again();
    }

    /// The scheduler is silent: the clock was set back, or it died.
    ///
    /// # Errors
    /// When that has been tried in vain too often.
    async fn start_scheduler_anew(&mut self) -> Result<(), Failure> {
        self.last_tick = Instant::now();
        self.starts = self.starts.saturating_add(1);
        tracing::debug!("the scheduler is silent: it is started anew");
        let again = self.heartbeat.again().await;
        if self.starts >= STARTS || again.is_err() {
            let now = Timestamp::now();
            let text = "the scheduler does not tick: nothing is begun".to_owned();
            if self.board.trouble(Trouble::Scheduler, now, text.clone()) {
                tracing::error!("{text}");
            }
            // The watchdog is not fed here.
            self.systemd
                .status(systemd::status(&self.board.read(), now));
        }
        if self.starts < HOPELESS {
            return Ok(());
        }
        let mut failure = Failure::new(
            Kind::Failed,
            format!("the scheduler does not tick, and was started anew {HOPELESS} times in vain"),
        );
        if let Err(error) = again {
            failure = failure.cause(error.message);
            failure.causes.extend(error.causes);
        }
        Err(failure.hint("systemd starts the daemon again; in a container let the runtime do so"))
    }

    /// Nothing new begins; what is at work may end by itself for a while, and is stopped then.
    async fn drain(mut self) {
        let count = self.at_work.len();
        let text = match count {
            0 => "stopping".to_owned(),
            _ => format!("stopping; {count} still at work"),
        };
        tracing::info!("{text}");
        self.systemd.stopping(&text);
        self.waiting.clear();
        let by_itself = Instant::now() + DRAIN;
        self.finish_until(by_itself).await;
        if !self.tasks.is_empty() {
            self.cancel.cancel();
            self.finish_until(Instant::now() + STOP).await;
        }
        for at_work in self.at_work.values() {
            for id in &at_work.ids {
                tracing::warn!(
                    database = id.database.as_str(),
                    task = id.task.as_str(),
                    "it does not end, and is left behind"
                );
            }
        }
        let hooks = self.left_behind();
        self.tasks.detach_all();
        let hooks = tokio::time::timeout(LAST_NOTICES, hooks);
        let _ = tokio::join!(self.teller.drain(LAST_NOTICES), hooks);
        tracing::info!("stopped");
    }

    async fn finish_until(&mut self, deadline: Instant) {
        while !self.tasks.is_empty() {
            match tokio::time::timeout_at(deadline, self.tasks.join_next_with_id()).await {
                Ok(Some(done)) => self.done(done),
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn log_start(&self) {
        let config = match &self.config.origin {
            Some(path) => path.display().to_string(),
            None => "none: the defaults".to_owned(),
        };
        let now = Timestamp::now();
        let zone = &self.config.daemon.timezone;
        let next = self.agenda.next(now);
        let jobs: Vec<String> = next
            .iter()
            .map(|(id, (next, _))| match next {
                Some(next) => format!("{id} at {}", systemd::moment(*next, now, zone)),
                None => format!("{id} when the stores have answered"),
            })
            .collect();
        let jobs = jobs.join(", ");
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(version, config, jobs, "rdbkeeper runs");
    }
}

/// The schedules of a configuration.
fn scheduled(config: &Config) -> Vec<Scheduled> {
    let mut all = Vec::new();
    for database in &config.databases {
        for task in Task::ALL {
            let id = JobId {
                database: database.name.to_string(),
                task,
            };
            if let Some(cron) = cron_of(config, &id) {
                all.push(Scheduled {
                    cron: cron.clone(),
                    jitter: database.jitter,
                    catch_up: database.catch_up,
                    id,
                });
            }
        }
    }
    all
}

fn cron_of<'a>(config: &'a Config, id: &JobId) -> Option<&'a crate::cron::Cron> {
    let database = config.database(&id.database).ok()?;
    match id.task {
        Task::Backup => database.schedule.as_ref(),
        Task::Verify => database.verify_schedule.as_ref(),
        Task::Sessions => database.sessions_schedule.as_ref(),
    }
}

#[cfg(test)]
mod tests;
