//! The first look at a batch of keys: when they expire and how long they were idle, in one pipeline.

use bytes::Bytes;

use super::guard::{Server, own_clock};
use super::values::Evidence;
use super::{Job, Mode};
use crate::config::SessionRule;
use crate::server::{self, Reply, ServerError};
use crate::sessions::stores::spring::Companions;
use crate::sessions::{
    Action, Decision, Expiry, Found, KeyFacts, Outcome, Seen, Value, Wish, stores,
};

/// Keys of one answer to SCAN.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) keys: Vec<Key>,
    /// Whether the look is on its way.
    pub(super) asked: bool,
    /// Keys that left it because this user may not look at them.
    pub(super) forbidden: u64,
}

/// A key, and what is known of it by now.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: Bytes,
    pub(super) rule: Option<usize>,
    pub(super) expiry: Option<Expiry>,
    /// OBJECT IDLETIME, in seconds.
    pub(super) idle_s: Option<u64>,
    pub(super) wish: Wish,
    pub(super) facts: Option<KeyFacts>,
    pub(super) decision: Option<Decision>,
    /// What the decision rests on.
    pub(super) evidence: Evidence,
    pub(super) companions: Option<Companions>,
    pub(super) outcome: Outcome,
    pub(super) bytes: Option<u64>,
    pub(super) raw: Option<Bytes>,
    pub(super) gone: bool,
    /// This user may not look at it.
    pub(super) forbidden: bool,
    /// An act that was sent and not answered.
    pub(super) attempt: Option<Attempt>,
    /// That act was done.
    pub(super) settled: bool,
}

/// What was known of a key when an act was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    expiry: Option<Expiry>,
    facts: Option<KeyFacts>,
    decision: Decision,
    bytes: Option<u64>,
}

/// By so much the TTL that a key has got may differ from what it was to get, where that can be said and read only
/// as a length of time.
const INEXACT_MS: u64 = 5000;

impl Key {
    pub(super) fn new(name: Bytes, rules: &[SessionRule]) -> Key {
        Key {
            rule: rules.iter().position(|rule| rule.pattern.matches(&name)),
            name,
            expiry: None,
            idle_s: None,
            wish: Wish::default(),
            facts: None,
            decision: None,
            evidence: Evidence::Name,
            companions: None,
            outcome: Outcome::Nothing,
            bytes: None,
            raw: None,
            gone: false,
            forbidden: false,
            attempt: None,
            settled: false,
        }
    }

    /// As it was before it was looked at; but an act that was not answered is remembered.
    pub(super) fn forget(&mut self) {
        let (name, rule) = (std::mem::take(&mut self.name), self.rule);
        *self = Key {
            rule,
            attempt: self.attempt,
            ..Key::new(name, &[])
        };
    }

    /// What was decided is about to be sent.
    pub(super) fn attempted(&mut self) {
        self.attempt = self.decision.map(|decision| Attempt {
            expiry: self.expiry,
            facts: self.facts,
            decision,
            bytes: self.bytes,
        });
    }

    /// An act whose answer was lost counts as done when the key is now as that would have left it.
    fn settle(&mut self, inexact_ms: u64) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        let done = match (attempt.decision.action, self.expiry) {
            (Action::Delete, _) => self.gone,
            (
                Action::SetTtl { at_ms } | Action::ShortenTtl { at_ms },
                Some(Expiry::At(ends_ms)),
            ) => !self.gone && ends_ms.abs_diff(at_ms) <= inexact_ms,
            _ => false,
        };
        if done {
            self.settled = true;
            self.gone = false;
            self.expiry = attempt.expiry;
            self.facts = attempt.facts;
            self.decision = Some(attempt.decision);
            self.bytes = attempt.bytes;
        }
    }

    pub(super) fn found(&self, db: u32) -> Found<'_> {
        Found {
            db,
            key: &self.name,
            rule: self.rule,
            expiry: self.expiry,
        }
    }

    pub(super) fn seen(&self, db: u32, now_ms: i64) -> Seen<'_> {
        Seen {
            found: self.found(db),
            now_ms,
            facts: self.facts,
            decision: self.decision,
            outcome: self.outcome,
            bytes: self.bytes,
            raw: self.raw.as_deref(),
        }
    }

    /// In a report a key that this user may not look at is passed over.
    fn pass_over(&mut self, job: &Job, error: server::Error) -> Result<(), server::Error> {
        let forbids = error.server_error().is_some_and(ServerError::forbids_keys);
        if !forbids || job.mode != Mode::Report {
            return Err(error);
        }
        self.forbidden = true;
        Ok(())
    }

    fn asks_expiry(&self, job: &Job) -> bool {
        self.rule.is_some() || job.mode == Mode::Report
    }

    fn asks_idle(&self, job: &Job, server: &Server) -> bool {
        server.idle.is_some() && self.rule.is_some_and(|rule| job.rules[rule].idle)
    }
}

/// Asks for the look at a batch, ahead.
pub(super) fn ask(server: &mut Server, job: &Job, batch: &mut Batch) {
    if server.clock {
        server.pipe.ask(&[b"TIME"]);
    }
    let expiry: &[u8] = match server.pexpiretime {
        true => b"PEXPIRETIME",
        false => b"PTTL",
    };
    for key in &batch.keys {
        if key.asks_expiry(job) {
            server.pipe.ask(&[expiry, &key.name]);
        }
        if key.asks_idle(job, server) {
            server.pipe.ask(&[b"OBJECT", b"IDLETIME", &key.name]);
        }
    }
    batch.asked = true;
}

/// Reads the look that was asked for; keys that are gone leave the batch. Returns the server's time.
pub(super) async fn read(
    server: &mut Server,
    job: &Job,
    batch: &mut Batch,
) -> Result<i64, server::Error> {
    let unexpected = |command: &str| server::Error::Unexpected {
        command: command.to_owned(),
    };
    let now_ms = match server.clock {
        true => {
            let reply = server.pipe.next().await?.ok("TIME")?;
            reply.as_time_ms().ok_or_else(|| unexpected("TIME"))?
        }
        false => own_clock(),
    };
    if let Some(trusted) = &mut server.idle {
        trusted.at(now_ms);
    }
    for key in &mut batch.keys {
        if key.asks_expiry(job) {
            let command = match server.pexpiretime {
                true => "PEXPIRETIME",
                false => "PTTL",
            };
            match server.pipe.next().await?.ok(command) {
                Ok(told) => match told.as_int().ok_or_else(|| unexpected(command))? {
                    -2 => key.gone = true,
                    -1 => key.expiry = Some(Expiry::Never),
                    at if server.pexpiretime => key.expiry = Some(Expiry::At(at)),
                    left => key.expiry = Some(Expiry::At(now_ms.saturating_add(left))),
                },
                Err(error) => key.pass_over(job, error)?,
            }
        }
        if key.asks_idle(job, server) {
            match server.pipe.next().await?.ok("OBJECT IDLETIME") {
                Ok(Reply::Bulk(None)) => key.gone = true,
                Ok(told) => key.idle_s = told.as_int().and_then(|idle| u64::try_from(idle).ok()),
                Err(error) => key.pass_over(job, error)?,
            }
        }
    }
    let before = batch.keys.len();
    batch.keys.retain(|key| !key.forbidden);
    batch.forbidden += (before - batch.keys.len()) as u64;
    let inexact_ms = match server.pexpiretime && server.scripts {
        true => 0,
        false => INEXACT_MS,
    };
    for key in &mut batch.keys {
        key.settle(inexact_ms);
    }
    batch.keys.retain(|key| !key.gone);
    for key in batch.keys.iter_mut().filter(|key| !key.settled) {
        let (Some(rule), Some(expiry)) = (key.rule, key.expiry) else {
            continue;
        };
        let unused = key
            .idle_s
            .zip(server.idle.as_ref())
            .and_then(|(idle_s, trusted)| trusted.unused(idle_s, now_ms));
        key.facts = Some(KeyFacts {
            role: stores::role(job.rules[rule].store, &key.name),
            expiry,
            value: Value::NotRead,
            unused,
        });
    }
    Ok(now_ms)
}
