//! What is asked and done on a live target before the first key is written.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::check::Check;
use super::library::Library;
use super::plan::{LibraryFate, LibraryPlan};
use crate::failure::{Failure, Kind};
use crate::rdb::{DbIndex, LogicalType};
use crate::server::info::Version;
use crate::server::{self, Code, Endpoint, Reply, Wire};
use crate::target::commands::Dialect;
use crate::target::{Error, TargetFacts};
use crate::units::{HumanCount, listed};

/// What a plan needs the user's rights for.
pub(super) struct Wants<'a> {
    /// The first key that is written by RESTORE: where to, and its name there.
    pub(super) restore: Option<(DbIndex, Vec<u8>)>,
    /// The first key, where some are written by plain commands.
    pub(super) commands: Option<(DbIndex, Vec<u8>)>,
    /// The types that are.
    pub(super) types: &'a BTreeSet<LogicalType>,
    /// Whether there are strings among them that are put together by a script.
    pub(super) in_pieces: bool,
    pub(super) dialect: Dialect,
    /// Databases that are emptied.
    pub(super) flush: Vec<u32>,
    /// Whether function libraries are loaded.
    pub(super) functions: bool,
    /// Whether it is looked before which keys are there.
    pub(super) looks: bool,
    /// What is compared afterwards.
    pub(super) check: Check,
}

impl Wants<'_> {
    /// What is told of a right that is missing, with all the rights that are needed. `restore`: why RESTORE may not be used,
    /// where plain commands were to do without it.
    pub(super) fn forbidden(
        &self,
        error: Error,
        restore: Option<&Failure>,
        facts: &TargetFacts,
    ) -> Failure {
        let command = error.plain_command().map(str::to_owned);
        let mut failure = Failure::from(error);
        if let (Some(restore), Some(command)) = (restore, command) {
            let restoring = &restore.message;
            failure.message = format!("{restoring}, and {command}, which plain commands need");
            failure.causes.splice(0..0, restore.causes.iter().cloned());
        }
        let rights = self.rights(restore.is_some(), facts);
        failure.hint(rights)
    }

    /// The rights that are needed, as an ACL names them. `either`: by RESTORE or by plain commands, as may be.
    fn rights(&self, either: bool, facts: &TargetFacts) -> String {
        let mut rights = vec!["+info", "+select"];
        let mut add = |wanted: bool, right: &'static str| rights.extend(wanted.then_some(right));
        add(self.looks, "+exists");
        add(self.functions, "+function");
        add(!self.flush.is_empty(), "+flushdb");
        add(self.restore.is_some(), "+restore");
        let mut text = format!("this restore needs {}", rights.join(" "));
        if self.commands.is_some() {
            text += if either { ", +restore or else " } else { " " };
            text += &self.rights_of_commands().join(" ");
            text += ", and the keys ~rdbkeeper:restoring:* besides those of the backup";
        } else {
            text += ", and the keys of the backup (~*)";
        }
        let absolute = facts.info.is_at_least(Version(7, 0, 0), Version(0, 0, 0));
        match (self.check, absolute) {
            (Check::None, _) => {}
            (_, true) => text += "; the check afterwards +dump +pexpiretime",
            (_, false) => text += "; the check afterwards +dump +pttl +time",
        }
        text
    }

    fn rights_of_commands(&self) -> Vec<String> {
        let probes = self.probes(b"").into_iter();
        let asked: BTreeSet<String> = probes
            .map(|words| words[0].escape_ascii().to_string().to_lowercase())
            .collect();
        let mut rights = vec!["multi", "exec", "discard", "del"];
        rights.extend(asked.iter().map(String::as_str));
        // What only some values need is not asked for.
        let (types, dialect) = (self.types, self.dialect);
        let streams = types.contains(&LogicalType::Stream);
        let hashes = types.contains(&LogicalType::Hash);
        for (wanted, more) in [
            (streams, &["xtrim", "xdel"][..]),
            (streams && !dialect.create_consumer, &["xreadgroup"]),
            (hashes && dialect.field_expiry, &["hpexpireat"]),
            (self.in_pieces, &["lrange", "pttl"]),
        ] {
            rights.extend(more.iter().filter(|_| wanted));
        }
        rights.iter().map(|right| format!("+{right}")).collect()
    }

    /// Commands that make keys of these types under a temporary name.
    fn probes<'a>(&self, key: &'a [u8]) -> Vec<Vec<&'a [u8]>> {
        let temporary: &[u8] = b"rdbkeeper:restoring:0:0";
        let mut words: Vec<Vec<&[u8]>> = vec![
            vec![b"PEXPIRE", temporary, b"1"],
            vec![b"PEXPIREAT", temporary, b"1"],
            vec![b"PERSIST", temporary],
            vec![b"RENAME", temporary, key],
            vec![b"RENAMENX", temporary, key],
        ];
        words.push(match self.dialect.unlink {
            true => vec![b"UNLINK", temporary],
            false => vec![b"DEL", temporary],
        });
        if self.in_pieces {
            words.push(vec![b"RPUSH", temporary, b""]);
            words.push(vec![b"EVAL", b"return 1", b"1", temporary]);
        }
        for logical in self.types {
            match logical {
                LogicalType::String => words.push(vec![b"SET", key, b""]),
                LogicalType::List => words.push(vec![b"RPUSH", temporary, b""]),
                LogicalType::Set => words.push(vec![b"SADD", temporary, b""]),
                LogicalType::Zset => words.push(vec![b"ZADD", temporary, b"0", b""]),
                LogicalType::Hash if self.dialect.hset_many => {
                    words.push(vec![b"HSET", temporary, b"", b""]);
                }
                LogicalType::Hash => words.push(vec![b"HMSET", temporary, b"", b""]),
                LogicalType::Stream => {
                    words.push(vec![b"XADD", temporary, b"1-1", b"", b""]);
                    words.push(vec![b"XGROUP", b"DESTROY", temporary, b""]);
                    words.push(vec![b"XSETID", temporary, b"1-1"]);
                    words.push(vec![b"XCLAIM", temporary, b"", b"", b"0", b"1-1"]);
                }
                LogicalType::Module => {}
            }
        }
        words
    }
}

/// Whether this user may do what the plan says, asked without writing anything: a RESTORE and a FUNCTION LOAD whose
/// payload can't be right are refused for that reason only where they are allowed; a FLUSHDB, and plain commands, are
/// queued in a transaction that is given up (some servers ignore arguments that FLUSHDB does not have, so a wrong one is no
/// question).
pub(super) async fn may(
    endpoint: &Endpoint,
    facts: &TargetFacts,
    wants: &Wants<'_>,
) -> Result<(), Error> {
    let wrap = |source| Error::target(&facts.place, source);
    let mut wire = endpoint.wire().await.map_err(wrap)?;
    if let Some((db, key)) = &wants.restore {
        wire.call(&[b"SELECT", db.to_string().as_bytes()])
            .await
            .map_err(wrap)?;
        let asked = wire.call(&[b"RESTORE", key, b"0", b"x"]).await;
        allowed(asked).map_err(|source| Error::writing(&facts.place, source))?;
    }
    if let Some((db, key)) = &wants.commands {
        wire.call(&[b"SELECT", db.to_string().as_bytes()])
            .await
            .map_err(wrap)?;
        let asked = make(&mut wire, key, wants).await;
        asked.map_err(|source| Error::writing(&facts.place, source))?;
    }
    let writing = |source| Error::writing(&facts.place, source);
    if wants.functions {
        let asked = wire.call(&[b"FUNCTION", b"LOAD", b"x"]).await;
        allowed(asked).map_err(writing)?;
    }
    if wants.flush.is_empty() {
        return Ok(());
    }
    // Who may not begin a transaction can't be asked about: the flush itself will tell, and delete nothing.
    match wire.call(&[b"MULTI"]).await {
        Ok(_) => {}
        Err(server::Error::Reply { .. }) => return Ok(()),
        Err(error) => return Err(wrap(error)),
    }
    let queued = wire.call(&[b"FLUSHDB"]).await;
    match wire.call(&[b"DISCARD"]).await {
        Ok(_) | Err(server::Error::Reply { .. }) => {}
        Err(error) => return Err(wrap(error)),
    }
    queued.map(drop).map_err(writing)
}

/// Whether keys of these types may be made by plain commands. Nothing of what is queued is done.
async fn make(wire: &mut Wire, key: &[u8], wants: &Wants<'_>) -> Result<(), server::Error> {
    wire.call(&[b"MULTI"]).await?;
    let mut refused = Ok(());
    for command in wants.probes(key) {
        match wire.call(&command).await {
            Ok(_) => {}
            Err(error @ server::Error::Reply { .. }) => {
                refused = Err(error);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    match wire.call(&[b"DISCARD"]).await {
        Ok(_) | Err(server::Error::Reply { .. }) => refused,
        Err(error) => Err(error),
    }
}

/// Whether a command that can't succeed was refused for its argument alone.
fn allowed(asked: Result<Reply, server::Error>) -> Result<(), server::Error> {
    match asked {
        Ok(_) => Ok(()),
        Err(server::Error::Reply { command, reply }) => match reply.code {
            // `ERR DUMP payload version or checksum are wrong`, `BUSYKEY`. Room may come by the flush.
            Code::BusyKey | Code::Oom | Code::Other(_) | Code::WrongType => Ok(()),
            Code::Err if !reply.to_string().starts_with("ERR unknown ") => Ok(()),
            _ => Err(server::Error::Reply { command, reply }),
        },
        Err(error) => Err(error),
    }
}

/// The databases that were emptied, for what every later error says.
#[derive(Debug, Default)]
pub(super) struct Emptied {
    certain: Vec<u32>,
    /// The connection broke before the answer.
    perhaps: Option<u32>,
}

impl Emptied {
    /// The failure, with what it leaves behind.
    pub(super) fn told(&self, mut failure: Failure) -> Failure {
        match self.certain.as_slice() {
            [] => {}
            [db] => failure.message += &format!("; the database {db} was emptied before"),
            all => {
                failure.message += &format!("; the databases {} were emptied before", listed(all));
            }
        }
        if let Some(db) = self.perhaps {
            failure.message += &format!("; whether database {db} was emptied is not known");
        }
        failure
    }
}

/// Empties databases. Their memory is given back behind the scenes; where there is a limit to it, that is awaited.
pub(super) async fn flush(
    endpoint: &Endpoint,
    facts: &TargetFacts,
    databases: &[u32],
    cancel: &CancellationToken,
    emptied: &mut Emptied,
) -> Result<(), Failure> {
    if databases.is_empty() {
        return Ok(());
    }
    let wrap = |source| Error::target(&facts.place, source);
    let mut wire = endpoint.wire().await.map_err(wrap)?;
    for db in databases {
        if cancel.is_cancelled() {
            return Err(Failure::new(
                Kind::Interrupted,
                "stopped before any key was written",
            ));
        }
        wire.call(&[b"SELECT", db.to_string().as_bytes()])
            .await
            .map_err(wrap)?;
        // ASYNC is of Redis 4.0.
        let asynchronous: &[&[u8]] = &[b"FLUSHDB", b"ASYNC"];
        let words = if facts.info.version.0 >= 4 {
            asynchronous
        } else {
            &asynchronous[..1]
        };
        match wire.call(words).await {
            Ok(_) => emptied.certain.push(*db),
            Err(error) => {
                if !matches!(error, server::Error::Reply { .. }) {
                    emptied.perhaps = Some(*db);
                }
                return Err(wrap(error).into());
            }
        }
    }
    // Without a limit there is nothing to wait for.
    let mut waiting = facts.info.maxmemory > 0;
    while waiting {
        let text = wire
            .call(&[b"INFO", b"memory"])
            .await
            .map_err(wrap)?
            .into_bytes()
            .unwrap_or_default();
        let info = crate::server::Facts::parse(&String::from_utf8_lossy(&text));
        let pending = info
            .get("lazyfree_pending_objects")
            .is_some_and(|pending| pending != "0");
        waiting = pending && !cancel.is_cancelled();
        if waiting {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Loads the function libraries that the plan says. Returns how many.
pub(super) async fn load(
    endpoint: &Endpoint,
    facts: &TargetFacts,
    libraries: &[Library],
    plans: &[LibraryPlan],
) -> Result<u64, Failure> {
    let wanted: Vec<(&Library, LibraryFate)> = libraries
        .iter()
        .zip(plans)
        .map(|(library, plan)| (library, plan.fate))
        .filter(|(_, fate)| matches!(fate, LibraryFate::Load | LibraryFate::Replace))
        .collect();
    if wanted.is_empty() {
        return Ok(0);
    }
    let mut wire = endpoint
        .wire()
        .await
        .map_err(|source| Error::target(&facts.place, source))?;
    for (at, (library, fate)) in wanted.iter().enumerate() {
        let mut words: Vec<&[u8]> = vec![b"FUNCTION", b"LOAD"];
        if *fate == LibraryFate::Replace {
            words.push(b"REPLACE");
        }
        let code = library.code()?;
        words.push(&code);
        wire.call(&words).await.map_err(|source| Error::Function {
            place: facts.place.clone(),
            name: library.name.clone(),
            loaded: HumanCount(at as u64),
            source: Box::new(source),
        })?;
    }
    Ok(wanted.len() as u64)
}
