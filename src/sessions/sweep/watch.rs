//! Acts where scripts are forbidden: WATCH, a second reading, and MULTI.

use super::guard::Server;
use super::look::Key;
use super::values::{self, Evidence, hmget};
use crate::server::{self, Code, Reply, Wire};
use crate::sessions::stores::spring::Collection;
use crate::sessions::{Expiry, Outcome};
use crate::stage;

/// PTTL and TIME are not asked at quite the same moment, in milliseconds.
const APART_MS: i64 = 1000;

/// Acts on the keys at these places.
pub(super) async fn without_scripts(
    server: &mut Server,
    place: &str,
    keys: &mut [Key],
    places: &[usize],
    now_ms: i64,
) -> Result<(), server::Error> {
    let seven = server.pexpiretime;
    let wire = server.pipe.now().await?;
    let (plain, rest): (Vec<usize>, Vec<usize>) = places.iter().partition(|at| {
        let key = &keys[**at];
        seven
            && key.evidence == Evidence::Name
            && key.expiry == Some(Expiry::Never)
            && key.ends_at().is_some()
    });
    for at in &plain {
        keys[*at].attempted();
        let left = keys[*at].left(now_ms);
        wire.queue(&[b"PEXPIRE", &keys[*at].name, left.as_bytes(), b"NX"]);
    }
    wire.flush().await?;
    for at in plain {
        keys[at].outcome = match wire.reply().await?.ok("PEXPIRE")?.as_int() {
            Some(1) => Outcome::Done,
            _ => Outcome::Changed,
        };
    }
    if rest.is_empty() || watched(wire, place, seven, keys, &rest, now_ms).await? {
        return Ok(());
    }
    for at in rest {
        watched(wire, place, seven, keys, &[at], now_ms).await?;
    }
    Ok(())
}

/// WATCH, a second reading, and MULTI. False when nothing was done because one of the keys changed meanwhile.
async fn watched(
    wire: &mut Wire,
    place: &str,
    seven: bool,
    keys: &mut [Key],
    places: &[usize],
    now_ms: i64,
) -> Result<bool, server::Error> {
    let mut watch: Vec<&[u8]> = vec![b"WATCH"];
    for at in places {
        watch.push(&keys[*at].name);
        if let (true, Some(companions)) = (keys[*at].deletes(), &keys[*at].companions) {
            watch.push(&companions.marker);
        }
    }
    wire.queue(&watch);
    wire.queue(&[b"TIME"]);
    for at in places {
        keys[*at].ask_again(wire, seven);
    }
    wire.flush().await?;
    wire.reply().await?.ok("WATCH")?;
    let clock = wire.reply().await?.ok("TIME")?;
    let clock_ms = clock
        .as_time_ms()
        .ok_or_else(|| server::Error::Unexpected {
            command: "TIME".to_owned(),
        })?;
    let mut same = Vec::new();
    let mut failed = None;
    // Every answer is read, for the next question would get what is left.
    for at in places {
        match keys[*at].compare(wire, seven, clock_ms, now_ms).await {
            Ok(Outcome::Done) => same.push(*at),
            Ok(other) => keys[*at].outcome = other,
            Err(error) if error.is_disconnect() => return Err(error),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if failed.is_some() || same.is_empty() {
        wire.call(&[b"UNWATCH"]).await?;
        return failed.map_or(Ok(true), Err);
    }
    stage::reached(&format!("sweep-watched:{place}"));
    // Without it what follows would be done at once.
    wire.call(&[b"MULTI"]).await?;
    let mut queued = 0;
    for at in &same {
        keys[*at].attempted();
        queued += keys[*at].queue_act(wire, now_ms);
    }
    wire.queue(&[b"EXEC"]);
    wire.flush().await?;
    let mut refused = None;
    for _ in 0..queued {
        if let Err(error) = wire.reply().await?.ok("a command in a transaction") {
            refused = refused.or(Some(error));
        }
    }
    match wire.reply().await?.ok("EXEC") {
        Err(error) => Err(refused.unwrap_or(error)),
        Ok(Reply::Array(None)) => {
            for at in same {
                keys[at].outcome = Outcome::Changed;
                keys[at].attempt = None;
            }
            Ok(false)
        }
        Ok(reply) => {
            let mut answers = reply.into_array().unwrap_or_default().into_iter();
            for at in same {
                keys[at].take_acts(&mut answers)?;
            }
            Ok(true)
        }
    }
}

impl Key {
    /// For how long it may still live, by the decision, in milliseconds.
    fn left(&self, now_ms: i64) -> String {
        let at_ms = self.ends_at().unwrap_or(i64::MAX);
        at_ms.saturating_sub(now_ms).max(1).to_string()
    }

    fn ask_again(&self, wire: &mut Wire, seven: bool) {
        let expiry: &[u8] = if seven { b"PEXPIRETIME" } else { b"PTTL" };
        wire.queue(&[expiry, &self.name]);
        match &self.evidence {
            Evidence::Name => {}
            Evidence::Text(_, len) => {
                wire.queue(&[b"GETRANGE", &self.name, b"0", len.to_string().as_bytes()]);
            }
            Evidence::Hash { fields, .. } => wire.queue(&hmget(&self.name, fields)),
        }
        if let (true, Some(companions)) = (self.deletes(), &self.companions) {
            wire.queue(&[b"EXISTS", &companions.marker]);
        }
    }

    /// Reads what was asked again. [`Outcome::Done`] when the key is still the same.
    async fn compare(
        &self,
        wire: &mut Wire,
        seven: bool,
        clock_ms: i64,
        now_ms: i64,
    ) -> Result<Outcome, server::Error> {
        let expires = wire.reply().await?;
        let value = match &self.evidence {
            Evidence::Name => None,
            _ => Some(wire.reply().await?),
        };
        let marker = match (self.deletes(), &self.companions) {
            (true, Some(_)) => Some(wire.reply().await?),
            _ => None,
        };
        let expires = expires.ok("PTTL")?.as_int().unwrap_or(-2);
        if expires == -2 {
            return Ok(Outcome::Gone);
        }
        let renewed = match (self.expiry, expires) {
            (Some(Expiry::At(_)), -1) => true,
            (Some(Expiry::At(seen)), at) if seven => at > seen,
            (Some(Expiry::At(seen)), left) => clock_ms.saturating_add(left) > seen + APART_MS,
            (_, left) => left != -1,
        };
        // What was shortened meanwhile to less than this would get longer.
        let shortened = self.ends_at().is_some_and(|ends_at| {
            let left = match seven {
                true => expires.saturating_sub(clock_ms),
                false => expires,
            };
            expires != -1 && left <= ends_at.saturating_sub(now_ms)
        });
        if renewed || shortened {
            return Ok(Outcome::Changed);
        }
        let same = match (&self.evidence, value) {
            (Evidence::Text(sha1, _), Some(value)) => match value.ok("GETRANGE") {
                Ok(value) => value
                    .into_bytes()
                    .is_some_and(|value| values::sha1_hex(&value) == *sha1),
                Err(error) if error.code() == Some(&Code::WrongType) => false,
                Err(error) => return Err(error),
            },
            (Evidence::Hash { sha1, .. }, Some(value)) => match value.ok("HMGET") {
                Ok(value) => values::fields(&value)
                    .is_some_and(|fields| values::fields_sha1(&fields) == *sha1),
                Err(error) if error.code() == Some(&Code::WrongType) => false,
                Err(error) => return Err(error),
            },
            _ => true,
        };
        let live = match marker {
            Some(reply) => reply.ok("EXISTS")?.as_int() != Some(0),
            None => false,
        };
        Ok(match same && !live {
            true => Outcome::Done,
            false => Outcome::Changed,
        })
    }

    /// Queues what is to be done, and says how many commands that is.
    fn queue_act(&self, wire: &mut Wire, now_ms: i64) -> usize {
        if self.ends_at().is_some() {
            wire.queue(&[b"PEXPIRE", &self.name, self.left(now_ms).as_bytes()]);
            return 1;
        }
        let mut queued = 1;
        for removal in self.companions.iter().flat_map(|beside| &beside.removals) {
            let command: &[u8] = match removal.from {
                Collection::Set => b"SREM",
                Collection::SortedSet => b"ZREM",
            };
            wire.queue(&[command, &removal.key, &removal.member]);
            queued += 1;
        }
        wire.queue(&[b"UNLINK", &self.name]);
        queued
    }

    /// Takes the answers to what was queued.
    fn take_acts(
        &mut self,
        answers: &mut impl Iterator<Item = Reply>,
    ) -> Result<(), server::Error> {
        let beside = match self.ends_at() {
            Some(_) => 0,
            None => self.companions.iter().flat_map(|c| &c.removals).count(),
        };
        for reply in answers.by_ref().take(beside) {
            match reply.ok("SREM") {
                // An index of another type is none of ours.
                Err(error) if error.code() != Some(&Code::WrongType) => return Err(error),
                _ => {}
            }
        }
        let done = match answers.next() {
            Some(reply) => reply.ok("EXEC")?.as_int() == Some(1),
            None => false,
        };
        self.outcome = match done {
            true => Outcome::Done,
            false => Outcome::Gone,
        };
        Ok(())
    }
}
