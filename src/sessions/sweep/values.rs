//! The second look, at the values of those keys whose decision rests on them: read one at a time, and dropped.
//!
//! What is kept of a value is its SHA-1, which a script on the server can compare with what is there when the
//! key is acted upon. The trap: a pipeline of long values would fill the server's memory. So of every string only
//! the beginning is asked for in the pipeline; the few that are longer are asked for whole, one after the other.
//! Fields of hashes have no beginning that could be asked for: their lengths are asked first.

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::guard::{Server, is_refused, warn};
use super::look::Key;
use super::marker;
use super::{Job, Mode};
use crate::config::{SessionRule, SessionStore};
use crate::server::{self, Code, Reply, Wire};
use crate::sessions::stores::{self, Shape};
use crate::sessions::{Times, Unreadable, Value, Verdict, decide};

/// The longest value that is read, in bytes.
const LONGEST: usize = stores::LONGEST;
/// What is read of every string at first, and of a key that no rule takes: 64 KiB.
const BEGINNING: usize = 64 << 10;
/// The longest field of a hash that is read, in bytes.
const LONGEST_FIELD: usize = 64 << 10;
/// Keys whose values are on their way at a time.
const AT_ONCE: usize = 100;
/// The bytes of hashes that are on their way at a time.
const BYTES_AT_ONCE: usize = 4 << 20;

/// What a decision rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The key's name and its TTL.
    Name,
    /// A string with this SHA-1 and this length.
    Text(String, usize),
    /// A hash some of whose fields have this SHA-1 together (see [`fields_sha1`]).
    Hash {
        fields: &'static [&'static [u8]],
        sha1: String,
        /// The bytes of these fields.
        length: usize,
    },
}

/// What is asked of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Nothing,
    /// The beginning of a string, for whoever wished for it.
    Raw,
    /// A string, of a rule's store.
    Text(SessionStore),
    /// Fields of a hash.
    Hash(SessionStore),
}

/// What this user may not ask for, though it was wished for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refused {
    bytes: bool,
    raw: bool,
}

/// SHA-1 in hexadecimal, as `redis.sha1hex` writes it.
pub(super) fn sha1_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(40);
    for byte in Sha1::digest(bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The SHA-1 of the fields of a hash: each with its length in front; `-` where there is none.
pub(super) fn fields_sha1(values: &[Option<&[u8]>]) -> String {
    let mut joined = Vec::new();
    for value in values {
        match value {
            None => joined.extend_from_slice(b"-;"),
            Some(value) => {
                joined.extend_from_slice(format!("{}:", value.len()).as_bytes());
                joined.extend_from_slice(value);
                joined.push(b';');
            }
        }
    }
    sha1_hex(&joined)
}

/// The values of an answer to HMGET.
pub(super) fn fields(reply: &Reply) -> Option<Vec<Option<&[u8]>>> {
    let Reply::Array(Some(items)) = reply else {
        return None;
    };
    items
        .iter()
        .map(|item| match item {
            Reply::Bulk(value) => Some(value.as_deref()),
            _ => None,
        })
        .collect()
}

/// Reads what the decisions need and what was wished for, and decides.
pub(super) async fn read(
    server: &mut Server,
    job: &Job,
    keys: &mut [Key],
    now_ms: i64,
    refused: &mut Refused,
    warnings: &mut Vec<String>,
) -> Result<(), server::Error> {
    for keys in keys.chunks_mut(AT_ONCE) {
        read_some(server, job, keys, now_ms, refused, warnings).await?;
    }
    for key in keys.iter_mut() {
        key.decide(&job.rules, now_ms);
    }
    marker::spare(server, job.mode, keys).await
}

async fn read_some(
    server: &mut Server,
    job: &Job,
    keys: &mut [Key],
    now_ms: i64,
    refused: &mut Refused,
    warnings: &mut Vec<String>,
) -> Result<(), server::Error> {
    let questions: Vec<Question> = keys
        .iter()
        .map(|key| key.question(&job.rules, now_ms, *refused))
        .collect();
    let sizes = |key: &Key| key.wish.bytes && !refused.bytes && !key.settled;
    if questions
        .iter()
        .all(|question| *question == Question::Nothing)
        && !keys.iter().any(sizes)
    {
        return Ok(());
    }
    let beginning = (BEGINNING - 1).to_string();
    let wire = server.pipe.now().await?;
    let sized: Vec<bool> = keys.iter().map(sizes).collect();
    for ((key, question), sized) in keys.iter().zip(&questions).zip(&sized) {
        match question {
            Question::Nothing => {}
            Question::Raw | Question::Text(_) => {
                wire.queue(&[b"GETRANGE", &key.name, b"0", beginning.as_bytes()]);
            }
            Question::Hash(store) => {
                for field in stores::hash_fields(*store) {
                    wire.queue(&[b"HSTRLEN", &key.name, field]);
                }
            }
        }
        if *sized {
            wire.queue(&[b"MEMORY", b"USAGE", &key.name]);
        }
    }
    wire.flush().await?;
    let (mut long, mut hashes) = (Vec::new(), Vec::new());
    for (at, key) in keys.iter_mut().enumerate() {
        match questions[at] {
            Question::Nothing => {}
            Question::Raw => match wire.reply().await?.ok("GETRANGE") {
                // A piece of the connection's buffer would keep all of it.
                Ok(reply) => key.raw = reply.into_bytes().map(|raw| Bytes::copy_from_slice(&raw)),
                Err(error) if error.code() == Some(&Code::WrongType) => {}
                Err(error) if is_refused(&error) && job.mode == Mode::Report => {
                    refused.raw = true;
                    warn(
                        warnings,
                        "GETRANGE is refused to this user: values of keys that no rule takes are not read",
                    );
                }
                Err(error) => return Err(error),
            },
            Question::Text(store) => match wire.reply().await?.ok("GETRANGE") {
                Ok(Reply::Bulk(Some(value))) if value.len() >= BEGINNING => long.push((at, store)),
                answer => key.take_text(store, answer)?,
            },
            Question::Hash(store) => {
                if let Some(length) = key.take_lengths(store, wire).await? {
                    hashes.push((at, store, length));
                }
            }
        }
        if sized[at] {
            match wire.reply().await?.ok("MEMORY USAGE") {
                Ok(reply) => key.bytes = reply.as_int().and_then(|size| u64::try_from(size).ok()),
                Err(error) if is_refused(&error) => {
                    refused.bytes = true;
                    warn(
                        warnings,
                        "MEMORY USAGE is refused to this user: what keys hold is not known",
                    );
                }
                Err(error) => return Err(error),
            }
        }
    }
    let whole = LONGEST.to_string();
    for (at, store) in long {
        let key = &mut keys[at];
        let answer = wire
            .call(&[b"GETRANGE", &key.name, b"0", whole.as_bytes()])
            .await;
        key.take_text(store, answer)?;
    }
    let mut hashes = hashes.as_slice();
    while !hashes.is_empty() {
        let mut bytes = 0;
        let fit = hashes.iter().take_while(|(.., length)| {
            bytes += length;
            bytes <= BYTES_AT_ONCE
        });
        let (now, later) = hashes.split_at(fit.count().max(1));
        for (at, store, _) in now {
            wire.queue(&hmget(&keys[*at].name, stores::hash_fields(*store)));
        }
        wire.flush().await?;
        for (at, store, _) in now {
            let answer = wire.reply().await?.ok("HMGET");
            keys[*at].take_hash(*store, answer)?;
        }
        hashes = later;
    }
    Ok(())
}

/// HMGET of some fields.
pub(super) fn hmget<'a>(key: &'a [u8], fields: &'a [&'static [u8]]) -> Vec<&'a [u8]> {
    let mut args: Vec<&[u8]> = vec![b"HMGET", key];
    args.extend(fields);
    args
}

/// What is known of a value that is not read, where the name alone says what the key is: the store keeps its own
/// in any type.
fn by_name(store: SessionStore) -> Option<Times> {
    (stores::shape(store) == Shape::Any).then(Times::default)
}

impl Key {
    fn question(&self, rules: &[SessionRule], now_ms: i64, refused: Refused) -> Question {
        if self.settled {
            return Question::Nothing;
        }
        let (Some(rule), Some(facts)) = (self.rule, &self.facts) else {
            return match self.wish.value && self.rule.is_none() && !refused.raw {
                true => Question::Raw,
                false => Question::Nothing,
            };
        };
        let rule = &rules[rule];
        let wished = self.wish.value && stores::reads_values(rule.store);
        if !wished && decide(rule, facts, now_ms) != Verdict::ReadValue {
            return Question::Nothing;
        }
        match stores::shape(rule.store) {
            Shape::Hash => Question::Hash(rule.store),
            Shape::Text | Shape::Any => Question::Text(rule.store),
        }
    }

    fn take_text(
        &mut self,
        store: SessionStore,
        answer: Result<Reply, server::Error>,
    ) -> Result<(), server::Error> {
        let value = match answer {
            Ok(reply) => reply
                .into_bytes()
                .ok_or_else(|| server::Error::Unexpected {
                    command: "GETRANGE".to_owned(),
                })?,
            Err(error) if error.code() == Some(&Code::WrongType) => {
                self.judge(by_name(store).ok_or(Unreadable::WrongType));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if value.len() > LONGEST {
            self.judge(by_name(store).ok_or(Unreadable::TooLong));
            return Ok(());
        }
        self.evidence = Evidence::Text(sha1_hex(&value), value.len());
        self.judge(stores::read_text(store, &value));
        Ok(())
    }

    /// Reads how long the fields of a hash are: the bytes of all together, or `None` when they are not to be read.
    async fn take_lengths(
        &mut self,
        store: SessionStore,
        wire: &mut Wire,
    ) -> Result<Option<usize>, server::Error> {
        let mut length = Ok(0);
        for _ in stores::hash_fields(store) {
            let field = match wire.reply().await?.ok("HSTRLEN") {
                Ok(reply) => match reply.as_int().map(usize::try_from) {
                    Some(Ok(field)) if field <= LONGEST_FIELD => Ok(field),
                    _ => Err(Unreadable::TooLong),
                },
                Err(error) if error.code() == Some(&Code::WrongType) => Err(Unreadable::WrongType),
                Err(error) => return Err(error),
            };
            length = length.and_then(|sum: usize| Ok(sum + field?));
        }
        match length {
            Ok(length) => Ok(Some(length)),
            Err(why) => {
                self.judge(Err(why));
                Ok(None)
            }
        }
    }

    fn take_hash(
        &mut self,
        store: SessionStore,
        answer: Result<Reply, server::Error>,
    ) -> Result<(), server::Error> {
        let reply = match answer {
            Ok(reply) => reply,
            Err(error) if error.code() == Some(&Code::WrongType) => {
                self.judge(Err(Unreadable::WrongType));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let values = fields(&reply).ok_or_else(|| server::Error::Unexpected {
            command: "HMGET".to_owned(),
        })?;
        let lengths = values.iter().flatten().map(|value| value.len());
        if lengths.clone().any(|length| length > LONGEST_FIELD) {
            self.judge(Err(Unreadable::TooLong));
            return Ok(());
        }
        self.evidence = Evidence::Hash {
            fields: stores::hash_fields(store),
            sha1: fields_sha1(&values),
            length: lengths.sum(),
        };
        self.companions = stores::companions(store, &self.name, &values);
        self.judge(stores::read_hash(store, &values));
        Ok(())
    }

    fn judge(&mut self, times: Result<Times, Unreadable>) {
        if let Some(facts) = &mut self.facts {
            facts.value = match times {
                Ok(times) => Value::Read(times),
                Err(why) => Value::Unreadable(why),
            };
        }
    }

    fn decide(&mut self, rules: &[SessionRule], now_ms: i64) {
        let (Some(rule), Some(facts), false) = (self.rule, &self.facts, self.settled) else {
            return;
        };
        if let Verdict::Decided(decision) = decide(&rules[rule], facts, now_ms) {
            self.decision = Some(decision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_servers_own_function() {
        assert_eq!(sha1_hex(b""), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(
            fields_sha1(&[Some(b"ab"), None, Some(b"")]),
            sha1_hex(b"2:ab;-;0:;")
        );
    }
}
