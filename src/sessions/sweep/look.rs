//! The first look at a batch of keys: when they expire and how long they were idle, in one pipeline.

use bytes::Bytes;

use super::guard::{Server, own_clock, time_ms};
use super::values::Evidence;
use super::{Job, Mode};
use crate::config::SessionRule;
use crate::server::{self, Reply};
use crate::sessions::stores::spring::Companions;
use crate::sessions::{Decision, Expiry, Found, KeyFacts, Outcome, Seen, Value, Wish, stores};

/// Keys of one answer to SCAN.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) keys: Vec<Key>,
    /// Whether the look is on its way.
    pub(super) asked: bool,
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
}

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
        }
    }

    /// As it was before it was looked at.
    pub(super) fn forget(&mut self) {
        let (name, rule) = (std::mem::take(&mut self.name), self.rule);
        *self = Key {
            rule,
            ..Key::new(name, &[])
        };
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
            time_ms(reply).ok_or_else(|| unexpected("TIME"))?
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
            let told = server.pipe.next().await?.ok(command)?.as_int();
            match told.ok_or_else(|| unexpected(command))? {
                -2 => key.gone = true,
                -1 => key.expiry = Some(Expiry::Never),
                at if server.pexpiretime => key.expiry = Some(Expiry::At(at)),
                left => key.expiry = Some(Expiry::At(now_ms.saturating_add(left))),
            }
        }
        if key.asks_idle(job, server) {
            match server.pipe.next().await?.ok("OBJECT IDLETIME")? {
                Reply::Bulk(None) => key.gone = true,
                told => key.idle_s = told.as_int().and_then(|idle| u64::try_from(idle).ok()),
            }
        }
    }
    batch.keys.retain(|key| !key.gone);
    for key in &mut batch.keys {
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
