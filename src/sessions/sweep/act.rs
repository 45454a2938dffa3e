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
//!
//! Where the connection breaks before the answer, it is not known whether an act was done. So what is sent is
//! remembered, and the next look tells (see [`Key::attempted`]).

use crate::server::{self, Code, Reply, ServerError};
use crate::sessions::stores::spring::Collection;
use crate::sessions::{Action, Expiry, Outcome, Reason};

use super::error::Error;
use super::guard::{Server, is_refused};
use super::look::Key;
use super::values::{self, Evidence};
use super::watch::without_scripts;

/// Checks and acts; what it takes and answers stands at its beginning.
const SCRIPT: &str = include_str!("act.lua");
/// Keys in one step.
const KEYS: usize = 50;
/// The bytes of values that one step reads again: a script stops the server as long as it runs.
const BYTES: usize = 4 << 20;

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
            let mut failed = keys[done..].iter().filter(|key| key.writes());
            let key = failed.next().map(|key| key.name.clone());
            let error = explain(server, place, source, &key.unwrap_or_default()).await;
            return (done, Err(error));
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
                Evidence::Text(_, length) | Evidence::Hash { length, .. } => length,
                Evidence::Name => 0,
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
    let (lines, (longest_s, since_s)) = match &server.idle {
        Some(trusted) if places.iter().any(|at| keys[*at].by_idle()) => {
            (trusted.lines.as_slice(), trusted.bounds())
        }
        _ => (empty, (0, 0)),
    };
    let mut call = Call::default();
    call.text(if server.pexpiretime { "1" } else { "0" });
    call.many(lines.iter().map(String::as_bytes));
    call.text(longest_s.to_string());
    call.text(since_s.to_string());
    for at in places {
        call.key(&keys[*at], now_ms);
    }
    let number = call.keys.len().to_string();
    let mut args: Vec<&[u8]> = vec![b"EVAL", SCRIPT.as_bytes(), number.as_bytes()];
    args.extend(call.keys.iter().map(Vec::as_slice));
    args.extend(call.args.iter().map(Vec::as_slice));
    let wire = match server.pipe.now().await {
        Ok(wire) => wire,
        Err(error) => return (0, Err(error)),
    };
    for at in places {
        keys[*at].attempted();
    }
    let answers = match wire.call(&args).await {
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

/// What a command said within a script. Before 7.0 servers put the script's line in front of what they say
/// themselves (`@user_script: 12: -READONLY …`), and leave the dash of the protocol there.
fn in_script(text: &[u8]) -> server::Error {
    let said = match text.strip_prefix(b"@user_script: ") {
        Some(rest) => {
            let line = rest.windows(2).position(|pair| pair == b": ");
            line.map_or(rest, |at| &rest[at + 2..])
        }
        None => text,
    };
    server::Error::Reply {
        command: "a command in a script".to_owned(),
        reply: ServerError::parse(said.strip_prefix(b"-").unwrap_or(said)),
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
            Evidence::Hash {
                fields,
                sha1,
                length,
            } => {
                self.text("hash");
                self.text(sha1);
                self.text(length.to_string());
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
    /// Whether something is to be done to it.
    pub(super) fn writes(&self) -> bool {
        let writes = |decision: crate::sessions::Decision| decision.action.writes();
        !self.settled && self.decision.is_some_and(writes)
    }

    pub(super) fn deletes(&self) -> bool {
        self.decision
            .is_some_and(|decision| decision.action == Action::Delete)
    }

    pub(super) fn by_idle(&self) -> bool {
        self.decision
            .is_some_and(|decision| decision.reason == Reason::Idle)
    }

    /// When it will end by the decision; `None` when it goes now.
    pub(super) fn ends_at(&self) -> Option<i64> {
        match self.decision?.action {
            Action::SetTtl { at_ms } | Action::ShortenTtl { at_ms } => Some(at_ms),
            _ => None,
        }
    }
}

/// What a failed act on a key means. Within a script or a transaction it is not told which command is forbidden, so
/// each is asked for a key that does not exist: one whose name begins as this one's, which this user may use.
async fn explain(server: &mut Server, place: &str, source: server::Error, key: &[u8]) -> Error {
    let own = matches!(
        &source,
        server::Error::Reply { command, reply }
            if command.starts_with("a command ") && !reply.forbids_keys()
    );
    if own
        && matches!(
            source.code(),
            Some(Code::Err | Code::NoPerm | Code::Other(_))
        )
    {
        let mut random = [0u8; 16];
        let _ = getrandom::fill(&mut random);
        let ending = format!(":rdbkeeper:probe:{}", values::sha1_hex(&random));
        let nobody = [key, ending.as_bytes()].concat();
        let asked: [&[&[u8]]; 7] = [
            &[b"PEXPIRE", &nobody, b"9999999999"],
            &[b"TYPE", &nobody],
            &[b"PEXPIREAT", &nobody, b"9999999999999"],
            &[b"UNLINK", &nobody],
            &[b"EXISTS", &nobody],
            &[b"SREM", &nobody, b"x"],
            &[b"ZREM", &nobody, b"x"],
        ];
        let other_way: &[&[u8]] = match server.scripts {
            true => &[b"PEXPIRE"],
            false => &[b"TYPE", b"PEXPIREAT"],
        };
        for args in asked {
            if other_way.contains(&args[0]) {
                continue;
            }
            let answered = match server.pipe.now().await {
                Ok(wire) => wire.call(args).await,
                Err(error) => Err(error),
            };
            match answered {
                // The pattern may take no name that is longer: then nothing is known of the command.
                Err(error) if error.server_error().is_some_and(ServerError::forbids_keys) => {}
                Err(error) if error.code() == Some(&Code::NoPerm) => {
                    return Error::server(place, "act on its keys", error);
                }
                Err(error) if !is_refused(&error) => break,
                _ => {}
            }
        }
    }
    if source.code() == Some(&Code::Oom) && !server.scripts {
        return Error::Full {
            place: place.to_owned(),
            source: Box::new(source),
        };
    }
    Error::server(place, "act on its keys", source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_a_script_is_known_whatever_the_server_puts_in_front() {
        for text in [
            "READONLY You can't write",
            "-READONLY You can't write",
            "@user_script: 98: -READONLY You can't write",
        ] {
            assert_eq!(in_script(text.as_bytes()).code(), Some(&Code::ReadOnly));
        }
    }
}
