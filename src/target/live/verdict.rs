//! The answers of a comparison: what the target has, against what it should have.

use std::ops::ControlFlow;
use std::sync::mpsc;

use super::super::Clock;
use super::super::batch::Asked;
use super::super::pump::Judge;
use super::Settings;
use super::compare::{Expectation, ExpiryQuestion, Fields, SLACK_MS, Wanted, comparable};
use super::comparing::Times;
use super::skipped::Skipped;
use crate::rdb::LogicalType;
use crate::rdb::payload::Payload;
use crate::rdb::value::{ContentDigest, Decoder, Element};
use crate::selection::shown;
use crate::server::{Code, Facts, Reply, ServerError};

/// So many differences are told one by one.
const TOLD: usize = 3;

/// By so much an expiry may be off where it had to be written as a time from then, in milliseconds: its command waited in a
/// queue.
const RELATIVE_SLACK_MS: i64 = 60_000;

/// What is wrong with a key on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlike {
    /// It is not there.
    Missing,
    /// It is of another type.
    Type,
    /// It holds something else.
    Content,
    /// It has another number of elements.
    Length,
    /// It expires at another time, or not at all.
    Expiry,
}

impl Unlike {
    /// `is missing`, `has another expiry`.
    pub fn words(self) -> &'static str {
        match self {
            Unlike::Missing => "is missing",
            Unlike::Type => "is of another type",
            Unlike::Content => "holds something else",
            Unlike::Length => "has another length",
            Unlike::Expiry => "has another expiry",
        }
    }
}

/// A key that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its database on the target.
    pub db: u32,
    /// Its name, masked unless it may be shown.
    pub key: String,
    /// What is wrong.
    pub unlike: Unlike,
}

/// The keys of one database of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The database.
    pub db: u32,
    /// How many of the backup's keys must be there, as far as that is certain.
    pub expected: u64,
    /// How many keys it has, whosoever they are.
    pub has: u64,
}

impl Counted {
    /// So many of the backup's keys are missing, at least.
    pub fn missing(&self) -> u64 {
        self.expected.saturating_sub(self.has)
    }
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Keys that were looked at.
    pub keys: u64,
    /// Those of them that were looked at by their length alone: too large.
    pub by_length: u64,
    /// Those of them that were looked at for being there alone: a module's, or of a kind that can't be decoded.
    pub by_presence: u64,
    /// Keys that are not there.
    pub missing: u64,
    /// Keys that are there and not as they should be.
    pub differing: u64,
    /// Keys that are not as in the backup, and may have been there before.
    pub perhaps_skipped: u64,
    /// The first few that are missing or differ.
    pub differences: Vec<Difference>,
    /// The databases' keys; empty when the server does not tell.
    pub counted: Vec<Counted>,
    /// What the server told of itself at the end.
    pub after: Option<Facts>,
    /// What the server forbids to this user, so that not all could be compared: the command, and what it said.
    pub forbidden: Option<(String, ServerError)>,
}

/// Compares the answers with what is expected.
pub(super) struct Verdict<'a> {
    settings: &'a Settings,
    clock: Clock,
    question: ExpiryQuestion,
    slack_ms: i64,
    expectations: mpsc::Receiver<Expectation>,
    decoder: Decoder,
    before_ms: Option<i64>,
    expiry: Option<i64>,
    after_ms: Option<i64>,
    pub(super) found: Comparison,
    /// The command that was refused, and why.
    pub(super) refused: Option<(String, ServerError)>,
}

impl<'a> Verdict<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        clock: Clock,
        (question, times): (ExpiryQuestion, Times),
        expectations: mpsc::Receiver<Expectation>,
    ) -> Verdict<'a> {
        Verdict {
            settings,
            clock,
            question,
            slack_ms: match times {
                Times::Absolute => 1,
                Times::FromThen => RELATIVE_SLACK_MS,
            },
            expectations,
            decoder: Decoder::new(),
            before_ms: None,
            expiry: None,
            after_ms: None,
            found: Comparison::default(),
            refused: None,
        }
    }

    fn refuse(&mut self, command: &str, reply: ServerError) -> ControlFlow<()> {
        self.refused
            .get_or_insert_with(|| (command.to_owned(), reply));
        ControlFlow::Break(())
    }

    fn content(&mut self, db: u32, key: &[u8], reply: Reply) -> ControlFlow<()> {
        let Ok(expected) = self.expectations.try_recv() else {
            return ControlFlow::Break(());
        };
        let times = (self.before_ms.take(), self.after_ms.take());
        let expiry = self.expiry.take();
        if self.refused.is_some() {
            return ControlFlow::Break(());
        }
        let seen = match seen(&mut self.decoder, &expected.wanted, reply) {
            Ok(seen) => seen,
            Err(error) => return self.refuse(expected.wanted.command(), error),
        };
        self.found.keys += 1;
        if self.found.keys.is_multiple_of(256) {
            (self.settings.progress)(self.found.keys);
        }
        let unlike = match seen {
            Seen::Gone if self.may_be_gone(&expected) => None,
            Seen::Gone => Some(Unlike::Missing),
            Seen::Unlike(unlike) => Some(unlike),
            Seen::Alike | Seen::Unclear => {
                match (&expected.wanted, seen) {
                    (Wanted::Length { .. }, _) => self.found.by_length += 1,
                    (Wanted::Presence, _) | (_, Seen::Unclear) => self.found.by_presence += 1,
                    (Wanted::Content { .. }, _) => {}
                }
                let at = expected.expire_at_ms;
                (!self.expires_alike(at, expiry, times)).then_some(Unlike::Expiry)
            }
        };
        let Some(unlike) = unlike else {
            return ControlFlow::Continue(());
        };
        if expected.skipped == Skipped::Perhaps {
            self.found.perhaps_skipped += 1;
            return ControlFlow::Continue(());
        }
        match unlike {
            Unlike::Missing => self.found.missing += 1,
            _ => self.found.differing += 1,
        }
        if self.found.differences.len() < TOLD {
            self.found.differences.push(Difference {
                db,
                key: shown(key, self.settings.names),
                unlike,
            });
        }
        ControlFlow::Continue(())
    }

    /// Whether a key that is not there may have gone by itself.
    fn may_be_gone(&self, expected: &Expectation) -> bool {
        let vanishes = matches!(expected.wanted, Wanted::Content { vanishes: true, .. });
        let soon = self.clock.now_ms().saturating_add(SLACK_MS);
        vanishes || expected.expire_at_ms.is_some_and(|at| at <= soon)
    }

    /// Whether the key expires when it should, as far as the answers tell.
    fn expires_alike(
        &self,
        expected: Option<i64>,
        answer: Option<i64>,
        (before, after): (Option<i64>, Option<i64>),
    ) -> bool {
        let Some(answer) = answer else {
            return true;
        };
        let Some(at) = expected else {
            return answer == -1;
        };
        if answer < 0 {
            return false;
        }
        match self.question {
            ExpiryQuestion::Absolute => answer.abs_diff(at) < self.slack_ms.unsigned_abs(),
            ExpiryQuestion::Relative => match (before, after) {
                (Some(before), Some(after)) => {
                    let earliest = before.saturating_add(answer).saturating_sub(self.slack_ms);
                    let latest = after.saturating_add(answer).saturating_add(self.slack_ms);
                    (earliest..=latest).contains(&at)
                }
                _ => true,
            },
        }
    }
}

impl Judge for Verdict<'_> {
    fn judge(&mut self, asked: Asked, db: u32, key: &[u8], reply: Reply) -> ControlFlow<()> {
        match (asked, reply.as_error()) {
            (Asked::Content, _) => self.content(db, key, reply),
            // Without TIME an expiry before Redis 7.0 is compared only for being there.
            (Asked::Time, Some(_)) => ControlFlow::Continue(()),
            (Asked::Expiry, Some(error)) => {
                let command = match self.question {
                    ExpiryQuestion::Absolute => "PEXPIRETIME",
                    ExpiryQuestion::Relative => "PTTL",
                };
                self.refuse(command, error)
            }
            (_, Some(error)) => self.refuse("SELECT", error),
            (Asked::Time, None) => {
                let time = match self.expiry {
                    None => &mut self.before_ms,
                    Some(_) => &mut self.after_ms,
                };
                *time = reply.as_time_ms();
                ControlFlow::Continue(())
            }
            (Asked::Expiry, None) => {
                self.expiry = reply.as_int();
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// What an answer tells of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It is not there.
    Gone,
    /// It is as it should be.
    Alike,
    /// It is there, and more can't be told.
    Unclear,
    /// It is not as it should be.
    Unlike(Unlike),
}

/// # Errors
/// The server refused the question.
fn seen(decoder: &mut Decoder, wanted: &Wanted, reply: Reply) -> Result<Seen, ServerError> {
    if let Some(error) = reply.as_error() {
        return match error.code {
            Code::WrongType => Ok(Seen::Unlike(Unlike::Type)),
            _ => Err(error),
        };
    }
    let length = u64::try_from(reply.as_int().unwrap_or(0)).unwrap_or(0);
    Ok(match wanted {
        Wanted::Content {
            logical,
            digest,
            fields,
            ..
        } => match reply.into_bytes() {
            None => Seen::Gone,
            Some(payload) => alike(decoder, *logical, *digest, *fields, &payload),
        },
        Wanted::Presence | Wanted::Length { .. } if length == 0 => Seen::Gone,
        Wanted::Presence => Seen::Alike,
        Wanted::Length { least, most, .. } => match (*least..=*most).contains(&length) {
            true => Seen::Alike,
            false => Seen::Unlike(Unlike::Length),
        },
    })
}

fn alike(
    decoder: &mut Decoder,
    logical: LogicalType,
    digest: u128,
    fields: Fields,
    payload: &[u8],
) -> Seen {
    let Ok(payload) = Payload::parse(payload) else {
        return Seen::Unlike(Unlike::Content);
    };
    // A type of a server newer than we are.
    let Some(value_type) = payload.value_type else {
        return Seen::Unclear;
    };
    if value_type.logical() != logical {
        return Seen::Unlike(Unlike::Type);
    }
    let mut own = ContentDigest::new(logical, fields.expiries);
    let mut take = |element: Element<'_>| {
        if fields.counts(element) {
            own.element(comparable(element));
        }
        Ok::<(), std::convert::Infallible>(())
    };
    decoder.start(value_type);
    let decoded = decoder.push(payload.value, &mut take).is_ok() && decoder.finish().is_ok();
    match decoded && own.finish() == digest {
        true => Seen::Alike,
        false => Seen::Unlike(Unlike::Content),
    }
}
