//! The act: what was decided is done in one step with a check that the key is still what was decided upon.
//!
//! Three ways, the best that this user may go:
//! 1. a script ([`SCRIPT`]), for many keys at a time. It sees the server's clock too, so that a server that stood
//!    still does not take a time that is past by then for an order to delete;
//! 2. without scripts and where nothing but the missing TTL matters, `PEXPIRE … NX`, from Redis 7.0 on;
//! 3. else WATCH, a second reading, and MULTI; all of it again key by key when one of many has changed.
//!
//! The last two say for how long and not until when, for the same reason. Deletions by idle time go the first way
//! alone: the guards see to it.

use crate::server::{self, Code, Reply, ServerError, Wire};
use crate::sessions::stores::spring::Collection;
use crate::sessions::{Action, Expiry, Outcome, Reason};
use crate::stage;

use super::error::Error;
use super::guard::{Server, is_refused, time_ms};
use super::look::Key;
use super::values::{self, Evidence, hmget};

/// Checks and acts; what it takes and answers stands at its beginning.
const SCRIPT: &str = include_str!("act.lua");
/// Keys in one step.
const KEYS: usize = 50;
/// The bytes of values that one step reads again: a script stops the server as long as it runs.
const BYTES: usize = 4 << 20;
/// PTTL and TIME are not asked at quite the same moment, in milliseconds.
const APART_MS: i64 = 1000;

/// Acts on keys that were decided upon, sets their outcomes, and says how many, from the first on, are done with.
pub(super) async fn act(
    server: &mut Server,
    place: &str,
    keys: &mut [Key],
    now_ms: i64,
) -> (usize, Result<(), Error>) {
    let mut done = 0;
    while done < keys.len() {
        let end = done + step(&keys[done..]);
        let (acted, ended) = act_step(server, place, &mut keys[done..end], now_ms).await;
        done += acted;
        if let Err(source) = ended {
            return (done, Err(explain(server, place, source).await));
        }
    }
    (done, Ok(()))
}

/// How many keys, from the first on, one step takes.
fn step(keys: &[Key]) -> usize {
    let (mut acts, mut bytes) = (0, 0);
    for (at, key) in keys.iter().enumerate() {
        if key.writes() {
            acts += 1;
            bytes += match key.evidence {
                Evidence::Text(_, len) => len,
                _ => 0,
            };
            if acts > 1 && (acts > KEYS || bytes > BYTES) {
                return at;
            }
        }
    }
    keys.len()
}

/// Acts on some keys; how many are done with counts all that were given.
async fn act_step(
    server: &mut Server,
    place: &str,
    keys: &mut [Key],
    now_ms: i64,
) -> (usize, Result<(), server::Error>) {
    let places: Vec<usize> = (0..keys.len()).filter(|at| keys[*at].writes()).collect();
    if places.is_empty() {
        return (keys.len(), Ok(()));
    }
    if server.scripts {
        return by_script(server, keys, &places, now_ms).await;
    }
    match without_scripts(server, place, keys, &places, now_ms).await {
        Ok(()) => (keys.len(), Ok(())),
        Err(error) => (0, Err(error)),
    }
}

async fn by_script(
    server: &mut Server,
    keys: &mut [Key],
    places: &[usize],
    now_ms: i64,
) -> (usize, Result<(), server::Error>) {
    let empty: &[String] = &[];
    let lines = match &server.idle {
        Some(trusted) if places.iter().any(|at| keys[*at].by_idle()) => trusted.lines.as_slice(),
        _ => empty,
    };
    let mut call = Call::default();
    call.text(if server.pexpiretime { "1" } else { "0" });
    call.many(lines.iter().map(String::as_bytes));
    for at in places {
        call.key(&keys[*at], now_ms);
    }
    let number = call.keys.len().to_string();
    let mut args: Vec<&[u8]> = vec![b"EVAL", SCRIPT.as_bytes(), number.as_bytes()];
    args.extend(call.keys.iter().map(Vec::as_slice));
    args.extend(call.args.iter().map(Vec::as_slice));
    let answered = match server.pipe.now().await {
        Ok(wire) => wire.call(&args).await,
        Err(error) => Err(error),
    };
    let answers = match answered {
        Ok(reply) => reply.into_array().unwrap_or_default(),
        Err(error) => return (0, Err(error)),
    };
    let mut answers = answers.into_iter();
    for at in places {
        keys[*at].outcome = match answers.next() {
            Some(Reply::Int(2)) => Outcome::Done,
            Some(Reply::Int(1)) => Outcome::Changed,
            Some(Reply::Int(0)) => Outcome::Gone,
            Some(Reply::Bulk(Some(text))) => return (*at, Err(in_script(&text))),
            _ => {
                let command = "EVAL".to_owned();
                return (*at, Err(server::Error::Unexpected { command }));
            }
        };
    }
    (keys.len(), Ok(()))
}

/// What a command said within a script. Older servers leave the dash of the protocol in front.
fn in_script(text: &[u8]) -> server::Error {
    server::Error::Reply {
        command: "a command in a script".to_owned(),
        reply: ServerError::parse(text.strip_prefix(b"-").unwrap_or(text)),
    }
}

/// What EVAL is given.
#[derive(Default)]
struct Call {
    keys: Vec<Vec<u8>>,
    args: Vec<Vec<u8>>,
}

impl Call {
    fn text(&mut self, text: impl AsRef<[u8]>) {
        self.args.push(text.as_ref().to_vec());
    }

    fn many<'a>(&mut self, all: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.text(all.len().to_string());
        self.args.extend(all.map(<[u8]>::to_vec));
    }

    fn key(&mut self, key: &Key, now_ms: i64) {
        self.keys.push(key.name.to_vec());
        match key.ends_at() {
            Some(at_ms) => {
                self.text("expire");
                self.text(at_ms.to_string());
            }
            None => self.text("delete"),
        }
        self.text(match key.expiry {
            Some(Expiry::At(at_ms)) => at_ms.to_string(),
            _ => "-1".to_owned(),
        });
        match &key.evidence {
            Evidence::Name => self.text("name"),
            Evidence::Text(sha1, len) => {
                self.text("text");
                self.text(sha1);
                self.text(len.to_string());
            }
            Evidence::Hash(fields, sha1) => {
                self.text("hash");
                self.text(sha1);
                self.many(fields.iter().copied());
            }
        }
        match key.idle_s.filter(|_| key.by_idle()) {
            Some(idle_s) => {
                self.text(idle_s.to_string());
                self.text((now_ms / 1000).to_string());
            }
            None => {
                self.text("");
                self.text("");
            }
        }
        match key.companions.as_ref().filter(|_| key.deletes()) {
            None => self.text("-1"),
            Some(companions) => {
                self.keys.push(companions.marker.clone());
                self.text(companions.removals.len().to_string());
                for removal in &companions.removals {
                    self.keys.push(removal.key.clone());
                    self.text(match removal.from {
                        Collection::Set => "set",
                        Collection::SortedSet => "zset",
                    });
                    self.text(&removal.member);
                }
            }
        }
    }
}

impl Key {
    fn writes(&self) -> bool {
        self.decision
            .is_some_and(|decision| decision.action.writes())
    }

    fn deletes(&self) -> bool {
        self.decision
            .is_some_and(|decision| decision.action == Action::Delete)
    }

    fn by_idle(&self) -> bool {
        self.decision
            .is_some_and(|decision| decision.reason == Reason::Idle)
    }

    /// When it will end by the decision; `None` when it goes now.
    fn ends_at(&self) -> Option<i64> {
        match self.decision?.action {
            Action::SetTtl { at_ms } | Action::ShortenTtl { at_ms } => Some(at_ms),
            _ => None,
        }
    }
}

async fn without_scripts(
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
    let clock_ms = time_ms(clock).ok_or_else(|| server::Error::Unexpected {
        command: "TIME".to_owned(),
    })?;
    let mut same = Vec::new();
    let mut failed = None;
    // Every answer is read, for the next question would get what is left.
    for at in places {
        match keys[*at].compare(wire, seven, clock_ms).await {
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
    wire.queue(&[b"MULTI"]);
    let mut queued = 0;
    for at in &same {
        queued += keys[*at].queue_act(wire, now_ms);
    }
    wire.queue(&[b"EXEC"]);
    wire.flush().await?;
    let mut refused = None;
    for _ in 0..=queued {
        if let Err(error) = wire.reply().await?.ok("MULTI") {
            refused = refused.or(Some(error));
        }
    }
    match wire.reply().await?.ok("EXEC") {
        Err(error) => Err(refused.unwrap_or(error)),
        Ok(Reply::Array(None)) => {
            for at in same {
                keys[at].outcome = Outcome::Changed;
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
            Evidence::Hash(fields, _) => wire.queue(&hmget(&self.name, fields)),
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
        if renewed {
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
            (Evidence::Hash(_, sha1), Some(value)) => match value.ok("HMGET") {
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

/// What a failed act means. Within a script a server does not say which command is forbidden, so each is asked
/// for a key that does not exist.
async fn explain(server: &mut Server, place: &str, source: server::Error) -> Error {
    let own = matches!(&source, server::Error::Reply { command, .. } if command.contains(' '));
    if own
        && matches!(
            source.code(),
            Some(Code::Err | Code::NoPerm | Code::Other(_))
        )
    {
        let mut random = [0u8; 16];
        let _ = getrandom::fill(&mut random);
        let nobody = format!("rdbkeeper:probe:{}", values::sha1_hex(&random)).into_bytes();
        let asked: [&[&[u8]]; 6] = [
            &[b"TYPE", &nobody],
            &[b"PEXPIREAT", &nobody, b"9999999999999"],
            &[b"UNLINK", &nobody],
            &[b"EXISTS", &nobody],
            &[b"SREM", &nobody, b"x"],
            &[b"ZREM", &nobody, b"x"],
        ];
        for args in asked {
            let answered = match server.pipe.now().await {
                Ok(wire) => wire.call(args).await,
                Err(error) => Err(error),
            };
            match answered {
                Err(error) if error.code() == Some(&Code::NoPerm) => {
                    return Error::server(place, "act on its keys", error);
                }
                Err(error) if !is_refused(&error) => break,
                _ => {}
            }
        }
    }
    Error::server(place, "act on its keys", source)
}
