//! The walk: SCAN runs ahead of the looks, the looks ahead of the acts, and a lost connection is made again.
//!
//! The server is never left waiting: while a batch is worked upon here, the next SCAN and the look at the batch
//! after it are on their way. What is told of a batch is told when all of it is done, and once.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::act;
use super::guard::{self, Server, own_clock};
use super::idle::Trusted;
use super::look::{self, Batch, Key};
use super::values::{self, Refused};
use super::{Error, Job, Mode, Swept, SweptDatabase};
use crate::server::info::Version;
use crate::server::pace::Pace;
use crate::server::{self, Code, Reply};
use crate::sessions::stores::{self, Shape};
use crate::sessions::{Observer, Outcome};
use crate::stage;

/// Batches in hand at a time.
const AHEAD: usize = 3;
/// How often a lost connection is made again without anything done between.
const TRIES: u32 = 5;
/// The wait before the first try; it doubles.
const BACKOFF: Duration = Duration::from_millis(200);
/// How long an act may still take when the sweep is to stop.
const LAST_ACT: Duration = Duration::from_secs(5);
/// How many databases a server has that does not tell.
const USUAL_DATABASES: u32 = 16;

/// Where the walk through one database is.
#[derive(Debug)]
struct Place {
    db: u32,
    /// Where SCAN goes on; `None` when it is through.
    cursor: Option<Bytes>,
    /// What is on its way, in order.
    stages: VecDeque<Stage>,
    /// Batches whose keys are known and were not told yet, in order.
    batches: VecDeque<Batch>,
    /// Keys that this user may not look at.
    forbidden: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Scan,
    Look,
}

impl Place {
    fn beginning(db: u32) -> Place {
        Place {
            db,
            cursor: Some(Bytes::from_static(b"0")),
            stages: VecDeque::new(),
            batches: VecDeque::new(),
            forbidden: 0,
        }
    }

    /// Nothing is on its way any more.
    fn cut_off(&mut self) {
        self.stages.clear();
        for batch in &mut self.batches {
            batch.asked = false;
            batch.keys.iter_mut().for_each(Key::forget);
        }
    }
}

struct Walk<'a> {
    job: Job,
    observer: &'a mut dyn Observer,
    server: Server,
    address: String,
    run_id: Option<String>,
    pace: Pace,
    count: usize,
    /// What SCAN is asked for by TYPE.
    kind: Option<&'static [u8]>,
    refused: Refused,
    /// Keys that this user may not look at.
    forbidden: u64,
    swept: Swept,
}

pub(super) async fn sweep(job: Job, observer: &mut dyn Observer) -> Result<Swept, Error> {
    let cancel = job.cancel.clone();
    let mut warnings = Vec::new();
    let server = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::Cancelled),
        server = guard::open(&job, &mut warnings) => server?,
    };
    let facts = server.facts.as_ref();
    let mut walk = Walk {
        address: job.endpoint.place(),
        run_id: run_id(&server),
        pace: Pace::new(job.max_keys_per_second),
        count: count(&job),
        kind: kind(&job, &server),
        refused: Refused::default(),
        forbidden: 0,
        swept: Swept {
            address: job.endpoint.place(),
            server: facts.map(|facts| facts.server()),
            role: facts.map(|facts| facts.role.as_str()),
            databases: Vec::new(),
            scanned: 0,
            reconnects: 0,
            restarts: 0,
            idle_waits: None,
            warnings,
            started_ms: server.now_ms,
            finished_ms: server.now_ms,
        },
        server,
        observer,
        job,
    };
    let databases = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::Cancelled),
        databases = walk.databases() => databases?,
    };
    let keys = databases.iter().filter_map(|database| database.keys).sum();
    walk.job.meter.start_keys(keys);
    for database in &databases {
        walk.database(database.db).await?;
    }
    walk.conclude();
    walk.swept.databases = databases;
    walk.swept.finished_ms = walk.clock().await?;
    walk.swept.idle_waits = walk.server.idle.as_ref().and_then(Trusted::waits);
    Ok(walk.swept)
}

/// COUNT: the batch, but at most a twentieth of a second's keys where a rate is set.
fn count(job: &Job) -> usize {
    let batch = job.batch.max(1);
    match job.max_keys_per_second {
        0 => batch,
        rate => batch.min(usize::try_from(rate / 20).unwrap_or(usize::MAX).max(1)),
    }
}

/// The one type that every rule's sessions have, for SCAN to leave the others out.
fn kind(job: &Job, server: &Server) -> Option<&'static [u8]> {
    let old = Version(6, 0, 0);
    let facts = server.facts.as_ref()?;
    if job.mode == Mode::Report || !facts.is_at_least(old, old) {
        return None;
    }
    let mut shapes = job.rules.iter().map(|rule| stores::shape(rule.store));
    let first = shapes.next()?;
    if !shapes.all(|shape| shape == first) {
        return None;
    }
    match first {
        Shape::Text => Some(b"string"),
        Shape::Hash => Some(b"hash"),
        Shape::Any => None,
    }
}

fn run_id(server: &Server) -> Option<String> {
    Some(server.facts.as_ref()?.run_id.clone())
}

impl Walk<'_> {
    fn failed(&self, doing: &'static str, source: server::Error) -> Error {
        Error::server(&self.address, doing, source)
    }

    fn unexpected(&self, command: &str) -> Error {
        let command = command.to_owned();
        self.failed("sweep", server::Error::Unexpected { command })
    }

    /// Warns of what was counted on the way.
    fn conclude(&mut self) {
        if self.swept.reconnects > 0 {
            let text = match self.swept.reconnects {
                1 => "the connection was lost, and made again".to_owned(),
                times => format!("the connection was lost {times} times, and made again"),
            };
            guard::warn(&mut self.swept.warnings, &text);
        }
        if self.forbidden > 0 {
            let text = format!(
                "this user may not use all keys: {} passed over; grant ~* to see them",
                self.forbidden
            );
            guard::warn(&mut self.swept.warnings, &text);
        }
    }

    /// The databases that are meant, and how many keys they have.
    async fn databases(&mut self) -> Result<Vec<SweptDatabase>, Error> {
        let told: Option<Vec<u32>> = self
            .server
            .facts
            .as_ref()
            .map(|facts| facts.keyspace.keys().copied().collect());
        let meant: Vec<u32> = match (&self.job.databases, told) {
            (Some(wanted), _) => wanted.iter().copied().collect(),
            (None, Some(told)) => told,
            (None, None) => (0..USUAL_DATABASES).collect(),
        };
        let chosen = self.job.databases.is_some();
        let mut databases = Vec::new();
        for db in meant {
            match self.select(db).await {
                Ok(()) => {}
                // Of those that were only guessed.
                Err(Error::NoDatabase { .. }) if !chosen => break,
                Err(Error::Forbidden { .. }) if !chosen && self.server.facts.is_none() => {
                    guard::warn(
                        &mut self.swept.warnings,
                        "SELECT is refused to this user: only database 0 is seen",
                    );
                    break;
                }
                Err(error) => return Err(error),
            }
            let keys = match self.call(&[b"DBSIZE"]).await {
                Ok(reply) => reply.as_int().and_then(|keys| u64::try_from(keys).ok()),
                Err(error) if guard::is_refused(&error) => None,
                Err(error) => return Err(self.failed("count its keys", error)),
            };
            if chosen || self.server.facts.is_some() || keys != Some(0) {
                databases.push(SweptDatabase { db, keys });
            }
        }
        Ok(databases)
    }

    async fn call(&mut self, args: &[&[u8]]) -> Result<Reply, server::Error> {
        self.server.pipe.now().await?.call(args).await
    }

    async fn select(&mut self, db: u32) -> Result<(), Error> {
        if self.server.db == db {
            return Ok(());
        }
        match self.call(&[b"SELECT", db.to_string().as_bytes()]).await {
            Ok(_) => {
                self.server.db = db;
                Ok(())
            }
            Err(error) if error.code() == Some(&Code::Err) => Err(Error::NoDatabase {
                place: self.address.clone(),
                db,
                source: Box::new(error),
            }),
            Err(error) => Err(self.failed("select a database", error)),
        }
    }

    async fn clock(&mut self) -> Result<i64, Error> {
        if !self.server.clock {
            return Ok(own_clock());
        }
        match self.call(&[b"TIME"]).await {
            Ok(reply) => reply.as_time_ms().ok_or_else(|| self.unexpected("TIME")),
            // Everything is done: a server that is gone now changes nothing about it.
            Err(error) if error.is_disconnect() => Ok(self.swept.finished_ms),
            Err(error) => Err(self.failed("ask the time", error)),
        }
    }

    /// Sweeps one database, over as many connections as it takes.
    async fn database(&mut self, db: u32) -> Result<(), Error> {
        let cancel = self.job.cancel.clone();
        let mut place = Place::beginning(db);
        let mut lost = 0;
        loop {
            let stepped = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Error::Cancelled),
                stepped = self.step(&mut place) => stepped,
            };
            let done = match stepped {
                Ok(Step::Over) => {
                    self.forbidden += place.forbidden;
                    return Ok(());
                }
                Ok(Step::More) => Ok(()),
                Ok(Step::Decided { now_ms }) => {
                    let finishing = self.finish(&mut place, now_ms);
                    let stopped = async {
                        cancel.cancelled().await;
                        sleep(LAST_ACT).await;
                    };
                    tokio::select! {
                        biased;
                        done = finishing => done,
                        () = stopped => return Err(Error::Cancelled),
                    }
                }
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => lost = 0,
                Err(error) if error.is_disconnect() => {
                    tracing::debug!(%error, "the connection was lost");
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return Err(Error::Cancelled),
                        again = self.again(&mut place, &mut lost, error) => again?,
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Connects again, looks at the server again, and goes on where it was, if it is the same server.
    async fn again(
        &mut self,
        place: &mut Place,
        lost: &mut u32,
        mut error: Error,
    ) -> Result<(), Error> {
        loop {
            *lost += 1;
            if *lost > TRIES {
                return Err(match error {
                    Error::Server { source, .. } | Error::Connect(source) => Error::Lost {
                        place: self.address.clone(),
                        times: *lost,
                        source,
                    },
                    other => other,
                });
            }
            sleep(BACKOFF * 2u32.saturating_pow(*lost - 1)).await;
            match guard::open(&self.job, &mut self.swept.warnings).await {
                Ok(server) => {
                    self.server = server;
                    break;
                }
                // It may be starting again.
                Err(again @ (Error::Connect(_) | Error::Loading { .. })) => error = again,
                Err(again) if again.is_disconnect() => error = again,
                Err(again) => return Err(again),
            }
        }
        self.swept.reconnects += 1;
        let run_id = run_id(&self.server);
        if run_id.is_some() && run_id == self.run_id {
            place.cut_off();
        } else {
            // A cursor means nothing to another run of the server.
            *place = Place::beginning(place.db);
            self.swept.restarts += 1;
            self.run_id = run_id;
            self.observer.begun_again(place.db);
            let text = format!(
                "the server was restarted, or another one answers: database {} was begun again",
                place.db
            );
            guard::warn(&mut self.swept.warnings, &text);
        }
        Ok(())
    }

    /// Asks for what is to come, and takes in the next answer.
    async fn step(&mut self, place: &mut Place) -> Result<Step, Error> {
        self.select(place.db).await?;
        let scanning = place.stages.contains(&Stage::Scan);
        if let Some(cursor) = &place.cursor
            && !scanning
            && place.batches.len() < AHEAD
        {
            let count = self.count.to_string();
            let mut args: Vec<&[u8]> = vec![b"SCAN", cursor, b"COUNT", count.as_bytes()];
            if let Some(kind) = self.kind {
                args.extend([b"TYPE".as_slice(), kind]);
            }
            self.server.pipe.ask(&args);
            place.stages.push_back(Stage::Scan);
        }
        for batch in place.batches.iter_mut().filter(|batch| !batch.asked) {
            look::ask(&mut self.server, &self.job, batch);
            place.stages.push_back(Stage::Look);
        }
        self.flush().await?;
        match place.stages.pop_front() {
            None => Ok(Step::Over),
            Some(Stage::Scan) => {
                self.take_keys(place).await?;
                Ok(Step::More)
            }
            Some(Stage::Look) => {
                let Some(batch) = place.batches.front_mut() else {
                    return Ok(Step::More);
                };
                let looked = look::read(&mut self.server, &self.job, batch).await;
                let now_ms = looked
                    .map_err(|error| Error::server(&self.address, "look at its keys", error))?;
                place.forbidden += std::mem::take(&mut batch.forbidden);
                for key in &mut batch.keys {
                    key.wish = self.observer.wish(&key.found(place.db));
                }
                let read = values::read(
                    &mut self.server,
                    &self.job,
                    &mut batch.keys,
                    now_ms,
                    &mut self.refused,
                    &mut self.swept.warnings,
                );
                read.await
                    .map_err(|error| Error::server(&self.address, "read its values", error))?;
                Ok(Step::Decided { now_ms })
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let flushed = self.server.pipe.flush().await;
        flushed.map_err(|error| self.failed("ask for its keys", error))
    }

    /// The answer to SCAN.
    async fn take_keys(&mut self, place: &mut Place) -> Result<(), Error> {
        let reply = self.server.pipe.next().await;
        let reply = reply
            .and_then(|reply| reply.ok("SCAN"))
            .map_err(|error| self.failed("walk its keys", error))?;
        let Some(Ok([cursor, keys])) = reply.into_array().map(<[Reply; 2]>::try_from) else {
            return Err(self.unexpected("SCAN"));
        };
        let (Some(cursor), Some(keys)) = (cursor.into_bytes(), keys.into_array()) else {
            return Err(self.unexpected("SCAN"));
        };
        let mut names = Vec::with_capacity(keys.len());
        for key in keys {
            // A piece of the connection's buffer would keep all of it.
            let name = key.into_bytes().ok_or_else(|| self.unexpected("SCAN"))?;
            names.push(Key::new(Bytes::copy_from_slice(&name), &self.job.rules));
        }
        // By TYPE the server passes others over: how many is not told, and about COUNT in all.
        let walked = match self.kind {
            Some(_) => self.count.max(names.len()),
            None => names.len().max(1),
        };
        self.pace.take(walked).await;
        place.cursor = (cursor != "0").then(|| Bytes::copy_from_slice(&cursor));
        self.swept.scanned += names.len() as u64;
        if !names.is_empty() {
            place.batches.push_back(Batch {
                keys: names,
                asked: false,
                forbidden: 0,
            });
        }
        Ok(())
    }

    /// Does what was decided on the first batch, and tells.
    async fn finish(&mut self, place: &mut Place, now_ms: i64) -> Result<(), Error> {
        let Some(batch) = place.batches.front_mut() else {
            return Ok(());
        };
        let expire = self.job.mode == Mode::Expire;
        for key in &mut batch.keys {
            key.outcome = match (key.writes(), expire) {
                _ if key.settled => Outcome::Done,
                (false, _) => Outcome::Nothing,
                (true, false) => Outcome::Would,
                (true, true) => Outcome::Changed,
            };
        }
        stage::reached(&format!("sweep-decided:{}", self.job.name));
        let (done, ended) = match expire {
            true => act::act(&mut self.server, &self.address, &mut batch.keys, now_ms).await,
            false => (batch.keys.len(), Ok(())),
        };
        // What was done is told, whatever comes then; the others are looked at again after a lost connection.
        for key in batch.keys.drain(..done) {
            self.observer.seen(&key.seen(place.db, now_ms));
        }
        self.job.meter.add_keys(done as u64);
        if batch.keys.is_empty() {
            place.batches.pop_front();
        }
        ended
    }
}

enum Step {
    /// There is nothing left.
    Over,
    /// Go on.
    More,
    /// The first batch is decided upon, from what was so at this time of the server.
    Decided { now_ms: i64 },
}
