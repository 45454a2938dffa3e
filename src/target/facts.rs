//! What must be known of a live target before anything is decided. Asking changes nothing there.
//!
//! Managed servers forbid CONFIG and more: what may not be asked gets the value that every server has by default.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Error;
use crate::rdb::{DbIndex, Family, FileVersion};
use crate::server::info::{Product, Version};
use crate::server::{self, Code, Endpoint, Facts, Reply, ServerError, Wire};

/// `proto-max-bulk-len` unless the server says otherwise, in bytes.
const DEFAULT_MAX_BULK: u64 = 512 << 20;

/// The target's clock, read once and carried on by our own.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    read_at: Instant,
    ms: i64,
}

impl Clock {
    /// A clock that says `ms`, Unix time in milliseconds, right now.
    pub fn set_to(ms: i64) -> Clock {
        Clock {
            read_at: Instant::now(),
            ms,
        }
    }

    /// Unix time in milliseconds.
    pub fn now_ms(&self) -> i64 {
        let passed = i64::try_from(self.read_at.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.ms.saturating_add(passed)
    }
}

/// A live target as it was found.
#[derive(Clone, Debug)]
pub struct TargetFacts {
    /// The server as errors name it.
    pub place: String,
    /// INFO.
    pub info: Facts,
    /// The family and the RDB version that it speaks.
    pub rdb: FileVersion,
    /// The longest argument that it takes, in bytes.
    pub max_bulk: u64,
    /// Its clock.
    pub clock: Clock,
    /// Its function libraries.
    pub libraries: TargetLibraries,
    /// The names of its modules, in small letters. `None` when it does not tell.
    pub modules: Option<BTreeSet<String>>,
}

/// The function libraries of a target.
#[derive(Clone, Debug)]
pub enum TargetLibraries {
    /// It knows no functions.
    None,
    /// It does not tell: what it said.
    Refused(ServerError),
    /// Name and code.
    Known(BTreeMap<String, Vec<u8>>),
}

impl TargetFacts {
    /// Asks a server.
    ///
    /// # Errors
    /// It can't be reached, lets nobody in, or does not even answer INFO.
    pub async fn of(endpoint: &Endpoint) -> Result<TargetFacts, Error> {
        let place = endpoint.place();
        ask(endpoint)
            .await
            .map_err(|source| Error::target(&place, source))
    }

    /// Whether it takes ABSTTL, IDLETIME and FREQ: from Redis 5.0 on.
    pub fn has_absolute_ttl(&self) -> bool {
        self.info.is_at_least(Version(5, 0, 0), Version(0, 0, 0))
    }

    /// Those of `databases` that it does not have.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn lacks(
        &self,
        endpoint: &Endpoint,
        databases: &[DbIndex],
    ) -> Result<Vec<DbIndex>, Error> {
        let wrap = |source| Error::target(&self.place, source);
        let mut lacking = Vec::new();
        let mut wire = endpoint.wire().await.map_err(wrap)?;
        for db in databases {
            match wire.call(&[b"SELECT", db.to_string().as_bytes()]).await {
                Ok(_) => {}
                // `ERR DB index is out of range`, `ERR invalid DB index`.
                Err(server::Error::Reply { reply, .. }) if reply.code == Code::Err => {
                    lacking.push(*db)
                }
                Err(error) => return Err(wrap(error)),
            }
        }
        Ok(lacking)
    }
}

async fn ask(endpoint: &Endpoint) -> Result<TargetFacts, server::Error> {
    let mut wire = endpoint.wire().await?;
    let text = wire
        .call(&[b"INFO"])
        .await?
        .into_bytes()
        .unwrap_or_default();
    let info = Facts::parse(&String::from_utf8_lossy(&text));
    let family = match info.product {
        Product::Redis => Family::Redis,
        Product::Valkey => Family::Valkey,
    };
    let mut number = info.rdb_version();
    let mut facts = TargetFacts {
        place: endpoint.place(),
        rdb: FileVersion { family, number },
        max_bulk: DEFAULT_MAX_BULK,
        clock: Clock::set_to(jiff::Timestamp::now().as_millisecond()),
        libraries: TargetLibraries::None,
        modules: None,
        info,
    };
    // What is refused is refused by what INFO says alone; a server that loads answers little else.
    if facts.info.loading {
        return Ok(facts);
    }
    if let Some(Reply::Array(Some(parts))) = optional(&mut wire, &[b"TIME"]).await? {
        let part = |at: usize| parts.get(at).and_then(Reply::as_int);
        if let (Some(seconds), Some(micros)) = (part(0), part(1)) {
            facts.clock = Clock::set_to(seconds.saturating_mul(1000).saturating_add(micros / 1000));
        }
    }
    let question: [&[u8]; 3] = [b"CONFIG", b"GET", b"proto-max-bulk-len"];
    if let Some(Reply::Array(Some(parts))) = optional(&mut wire, &question).await?
        && let Some(limit) = parts.get(1).and_then(Reply::as_int)
        && let Ok(limit) = u64::try_from(limit)
    {
        facts.max_bulk = limit;
    }
    if let Some(Reply::Array(Some(modules))) = optional(&mut wire, &[b"MODULE", b"LIST"]).await? {
        facts.modules = Some(modules.into_iter().filter_map(module_name).collect());
    }
    if facts.info.is_at_least(Version(7, 0, 0), Version(0, 0, 0)) {
        facts.libraries = libraries(&mut wire).await?;
        // A dump ends in the server's own RDB version, which is better than a table for servers newer than it.
        if let Some(Reply::Bulk(Some(dump))) = optional(&mut wire, &[b"FUNCTION", b"DUMP"]).await?
            && let Some(footer) = dump
                .len()
                .checked_sub(10)
                .and_then(|at| dump.get(at..at + 2))
        {
            number = u16::from_le_bytes([footer[0], footer[1]]);
        }
        facts.rdb.number = number;
    }
    Ok(facts)
}

async fn libraries(wire: &mut Wire) -> Result<TargetLibraries, server::Error> {
    let mut found = BTreeMap::new();
    // Refused is not the same as none: a library that is there would be met only when ours is loaded.
    let reply = match wire.call(&[b"FUNCTION", b"LIST", b"WITHCODE"]).await {
        Ok(reply) => reply,
        Err(server::Error::Reply { reply, .. }) => return Ok(TargetLibraries::Refused(reply)),
        Err(error) => return Err(error),
    };
    for library in reply.into_array().unwrap_or_default() {
        let fields = library.into_array().unwrap_or_default();
        let mut name = None;
        let mut code = None;
        let mut fields = fields.into_iter();
        while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
            match field.into_bytes().as_deref() {
                Some(b"library_name") => name = value.into_bytes(),
                Some(b"library_code") => code = value.into_bytes(),
                _ => {}
            }
        }
        if let (Some(name), Some(code)) = (name, code) {
            found.insert(String::from_utf8_lossy(&name).into_owned(), code.to_vec());
        }
    }
    Ok(TargetLibraries::Known(found))
}

/// The name in an entry of MODULE LIST: names and values in turn.
fn module_name(entry: Reply) -> Option<String> {
    let mut fields = entry.into_array()?.into_iter();
    while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
        if field.into_bytes().as_deref() == Some(b"name") {
            let name = value.into_bytes()?;
            return Some(String::from_utf8_lossy(&name).to_lowercase());
        }
    }
    None
}

/// The answer, or `None` when the server refuses the question.
async fn optional(wire: &mut Wire, question: &[&[u8]]) -> Result<Option<Reply>, server::Error> {
    match wire.call(question).await {
        Ok(reply) => Ok(Some(reply)),
        Err(server::Error::Reply { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
