//! A server becomes RDB bytes: by BGSAVE, by replication, or key by key.
//!
//! [`open`] goes up to the moment at which bytes can flow, so that everything that can be in the
//! way is told before an archive is begun; [`Dump::pump`] lets them flow. What comes out is an RDB
//! file whatever the method. With [`Choice::Auto`] a method that this server or this user does not
//! allow gives way to the next, and the reasons are kept; any other error is an error.
//!
//! The trap that each method has is told at its own door: a stale file (`bgsave`), a transfer
//! that only looks whole (`replication`), a key that is seen twice (`scan`).

mod acl;
mod bgsave;
mod error;
mod file;
mod guard;
mod head;
mod mark;
mod pick;
mod plan;
mod replication;
mod scan;
mod seen;
mod server_compression;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::ForkGuard;
use crate::server::{Endpoint, Facts};

pub use acl::{FindsFile, Needs, Selects, acl_line};
pub use error::Error;
pub use plan::{MethodPlan, Plan, plan};
pub use server_compression::recover_all as put_compression_back;

/// How RDB bytes are had from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// The server saves; its file is read.
    Bgsave,
    /// The server is asked for a full synchronisation, as a replica would.
    Replication,
    /// Every key is asked for by SCAN and DUMP.
    Scan,
}

impl Method {
    /// All, the best first.
    pub const ALL: [Method; 3] = [Method::Bgsave, Method::Replication, Method::Scan];

    /// The word in configuration, manifest and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Bgsave => "bgsave",
            Method::Replication => "replication",
            Method::Scan => "scan",
        }
    }

    /// Whether the server forks for it.
    pub fn forks(self) -> bool {
        self != Method::Scan
    }

    /// What its result promises.
    pub fn consistency(self) -> Consistency {
        match self {
            Method::Bgsave | Method::Replication => Consistency::PointInTime,
            Method::Scan => Consistency::Fuzzy,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a dump's keys have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// All keys are of one moment.
    PointInTime,
    /// Each key is whole, and of some moment while the dump was taken.
    Fuzzy,
}

impl Consistency {
    /// The word in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Consistency::PointInTime => "point-in-time",
            Consistency::Fuzzy => "fuzzy",
        }
    }
}

/// Which method is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best that works.
    #[default]
    Auto,
    /// This one, or an error.
    Only(Method),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Auto => f.write_str("auto"),
            Choice::Only(method) => method.fmt(f),
        }
    }
}

/// A text that names no method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a method: use auto, bgsave, replication or scan")]
pub struct UnknownMethod(String);

impl FromStr for Choice {
    type Err = UnknownMethod;

    fn from_str(text: &str) -> Result<Choice, UnknownMethod> {
        if text == "auto" {
            return Ok(Choice::Auto);
        }
        Method::ALL
            .into_iter()
            .find(|method| method.as_str() == text)
            .map(Choice::Only)
            .ok_or_else(|| UnknownMethod(text.to_owned()))
    }
}

/// What bounds a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanSettings {
    /// COUNT of SCAN, and keys in flight at a time; at least 1.
    pub batch: usize,
    /// The largest value that DUMP is asked for, in bytes.
    pub max_value: u64,
    /// Keys a second; 0 is without limit.
    pub max_keys_per_second: u64,
    /// Where the hashes of the keys seen go beyond `seen_in_memory`. Made when it is needed.
    pub spill_dir: PathBuf,
    /// Hashes of keys held in memory, 16 bytes each, before they spill.
    pub seen_in_memory: usize,
}

impl Default for ScanSettings {
    /// 100 keys, 512 MiB, no rate limit, 1.8 million hashes in memory (36 MB: one more would
    /// double the table), the system's folder for temporary files.
    fn default() -> ScanSettings {
        ScanSettings {
            batch: 100,
            max_value: 512 << 20,
            max_keys_per_second: 0,
            spill_dir: std::env::temp_dir(),
            seen_in_memory: 1_800_000,
        }
    }
}

/// What is to be dumped, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The server.
    pub endpoint: Endpoint,
    /// A replica of it, preferred when it is healthy.
    pub replica: Option<Endpoint>,
    /// Which method.
    pub choice: Choice,
    /// The databases that are meant; `None` is all. Only a scan leaves the others out; BGSAVE and
    /// replication always bring all of them, and whoever reads the bytes filters.
    pub databases: Option<BTreeSet<u32>>,
    /// Where the file of BGSAVE is seen from here, when CONFIG GET can't tell.
    pub rdb_path: Option<PathBuf>,
    /// For scan.
    pub scan: ScanSettings,
    /// What is done when a fork of the server looks dangerous.
    pub fork_guard: ForkGuard,
    /// Whether the server's own compression is off while it makes a dump.
    pub disable_server_compression: bool,
    /// Where it is kept what has to be put back on a server. `None`: nothing is changed on one.
    pub state_dir: Option<PathBuf>,
    /// Ends [`open`] and [`Dump::pump`] with [`Error::Cancelled`].
    pub cancel: CancellationToken,
}

impl Request {
    /// Everything of a server, by the best method that works.
    pub fn new(endpoint: Endpoint) -> Request {
        Request {
            endpoint,
            replica: None,
            choice: Choice::Auto,
            databases: None,
            rdb_path: None,
            scan: ScanSettings::default(),
            fork_guard: ForkGuard::default(),
            disable_server_compression: false,
            state_dir: None,
            cancel: CancellationToken::new(),
        }
    }
}

/// Where a dump came from, as its manifest tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFacts {
    /// The server, without user and password: `localhost:6379`.
    pub address: String,
    /// `redis 7.0.15`.
    pub server: String,
    /// The server's run ID.
    pub run_id: String,
    /// `master` or `slave`.
    pub role: &'static str,
    /// The replication ID.
    pub replid: Option<String>,
    /// The replication offset: exact for replication, else that of a moment before.
    pub offset: Option<i64>,
    /// The moment of the snapshot by the server's clock, Unix time in ms, where it is known before
    /// the bytes are read (the file's own `ctime` says it in any case, to the second).
    pub snapshot_ms: Option<i64>,
}

impl SourceFacts {
    fn new(endpoint: &Endpoint, facts: &Facts) -> SourceFacts {
        SourceFacts {
            address: endpoint.place(),
            server: facts.server(),
            run_id: facts.run_id.clone(),
            role: facts.role.as_str(),
            replid: facts.replid.clone(),
            offset: facts.offset,
            snapshot_ms: None,
        }
    }
}

/// A dump whose bytes can flow.
#[derive(Debug)]
pub struct Dump {
    /// How it is taken.
    pub method: Method,
    /// What it promises.
    pub consistency: Consistency,
    /// Why this method and this server, in order, for people.
    pub reasons: Vec<String>,
    /// What a person should know although it works.
    pub warnings: Vec<String>,
    /// Where it comes from.
    pub facts: SourceFacts,
    /// How many bytes will come, where that is known.
    pub expected_bytes: Option<u64>,
    body: Body,
    cancel: CancellationToken,
}

#[derive(Debug)]
enum Body {
    Bgsave(bgsave::Opened),
    Replication(Box<replication::Opened>),
    Scan(Box<scan::Opened>),
}

/// What came of a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// Bytes sent.
    pub bytes: u64,
    /// Keys that SCAN named and that were gone when they were asked for.
    pub vanished_keys: u64,
    /// What a person should know although it worked.
    pub warnings: Vec<String>,
}

impl Dump {
    /// Sends the RDB file, piece by piece. `Ok` means that the whole file was sent.
    ///
    /// # Errors
    /// When the source dies, ends early or idles; [`Error::Cancelled`] by the request's token;
    /// [`Error::ReceiverGone`] when nobody takes the bytes any more.
    pub async fn pump(self, out: mpsc::Sender<Bytes>) -> Result<Pumped, Error> {
        let cancel = self.cancel;
        let flow = async {
            match self.body {
                Body::Bgsave(opened) => opened.pump(out, cancel.clone()).await,
                Body::Replication(opened) => opened.pump(out).await,
                Body::Scan(opened) => opened.pump(out).await,
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            result = flow => result,
        }
    }
}

/// Connects, decides, and brings a dump to the moment at which its bytes can flow.
///
/// # Errors
/// When the server can't be reached, does not let us in, is loading, or is a replica that has lost
/// its master; when a database that is meant does not exist; when the method does not work; with
/// [`Choice::Auto`], [`Error::NoMethod`] when none does.
pub async fn open(request: Request) -> Result<Dump, Error> {
    let mut compression = server_compression::State::default();
    let mut opened = tokio::select! {
        biased;
        () = request.cancel.cancelled() => Err(Error::Cancelled),
        result = open_inner(&request, &mut compression) => result,
    };
    // The fork is over by now, or will never be. This is done also after the stop, and has its own limit.
    if let server_compression::State::Off(off) = compression
        && let Some(warning) = off.put_back(request.cancel.is_cancelled()).await
    {
        match &mut opened {
            Ok(dump) => dump.warnings.push(warning),
            Err(_) => tracing::warn!("{warning}"),
        }
    }
    opened
}

async fn open_inner(
    request: &Request,
    compression: &mut server_compression::State,
) -> Result<Dump, Error> {
    let mut picked = pick::pick(request).await?;
    if let Some(state_dir) = &request.state_dir {
        let place = picked.endpoint.place();
        let (control, facts) = (&mut picked.control, &picked.facts);
        let told = server_compression::recover(state_dir, control, &place, facts).await;
        picked.warnings.extend(told);
    }
    let methods: &[Method] = match &request.choice {
        Choice::Auto => &Method::ALL,
        Choice::Only(method) => std::slice::from_ref(method),
    };
    let mut reasons = std::mem::take(&mut picked.reasons);
    let mut refusals = Vec::new();
    let mut warned = false;
    let mut guarded = false;
    for &method in methods {
        match open_with(method, request, &mut picked, compression).await {
            Ok(ready) => {
                let Ready {
                    body,
                    facts,
                    expected_bytes,
                    because,
                    warnings,
                } = ready;
                picked.warnings.extend(warnings);
                reasons.extend(refusals);
                reasons.push(match request.choice {
                    Choice::Auto => format!("{method}: {because}"),
                    Choice::Only(_) => format!("{method}: as asked for; {because}"),
                });
                return Ok(Dump {
                    method,
                    consistency: method.consistency(),
                    reasons,
                    warnings: picked.warnings,
                    facts,
                    expected_bytes,
                    body,
                    cancel: request.cancel.clone(),
                });
            }
            Err(error) if request.choice == Choice::Auto && gives_way(&error, warned) => {
                let why = error::chain(&error);
                if error.cannot_save() && !warned {
                    warned = true;
                    picked.warnings.push(format!(
                        "{} cannot save its data set: see its log; `auto` uses BGSAVE again once a save succeeds",
                        picked.endpoint.place()
                    ));
                }
                if matches!(error, Error::ForkRefused { .. }) && !guarded {
                    guarded = true;
                    picked
                        .warnings
                        .push(format!("{why}; the next method is taken"));
                }
                tracing::debug!(%method, %why, "method does not work here");
                refusals.push(format!("not {method}: {why}"));
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::NoMethod {
        place: picked.endpoint.place(),
        reasons: refusals,
        guarded,
    })
}

/// Whether another method may do better, given whether the server is known to be unable to save.
fn gives_way(error: &Error, cannot_save: bool) -> bool {
    // A replica that waits for a save that fails is hung up on, without a word.
    error.is_incapacity()
        || matches!(error, Error::ForkRefused { .. })
        || cannot_save && matches!(error, Error::Died { received: 0, .. })
}

/// A dump that can begin.
struct Ready {
    body: Body,
    facts: SourceFacts,
    expected_bytes: Option<u64>,
    because: String,
    warnings: Vec<String>,
}

async fn open_with(
    method: Method,
    request: &Request,
    picked: &mut pick::Picked,
    compression: &mut server_compression::State,
) -> Result<Ready, Error> {
    let warnings = before_a_fork(method, request, picked, compression).await?;
    let mut facts = SourceFacts::new(&picked.endpoint, &picked.facts);
    let (body, expected_bytes, because) = match method {
        Method::Bgsave => {
            let opened = bgsave::open(
                &mut picked.control,
                &picked.endpoint,
                &request.rdb_path,
                request.choice != Choice::Auto,
            )
            .await?;
            facts.snapshot_ms = Some(opened.ctime_s.saturating_mul(1000));
            facts.offset = opened.offset.or(facts.offset);
            let because = format!("its file {} can be read here", opened.path.display());
            let len = opened.len;
            (Body::Bgsave(opened), Some(len), because)
        }
        Method::Replication => {
            let opened = replication::open(&picked.endpoint, &picked.facts).await?;
            facts.replid = Some(opened.replid.clone());
            facts.offset = Some(opened.offset);
            let len = opened.expected();
            let because = "the server sends its data set as to a replica".to_owned();
            (Body::Replication(Box::new(opened)), len, because)
        }
        Method::Scan => {
            let opened = scan::open(
                &picked.endpoint,
                &picked.facts,
                &request.databases,
                &request.scan,
            )
            .await?;
            facts.snapshot_ms = Some(opened.started_ms);
            let because = "key by key, which needs no rights beyond reading".to_owned();
            (Body::Scan(Box::new(opened)), None, because)
        }
    };
    Ok(Ready {
        body,
        facts,
        expected_bytes,
        because,
        warnings,
    })
}

/// What is done before the server is made to fork: a look whether it can bear that, and its compression off. Gives what
/// a person should know of it.
async fn before_a_fork(
    method: Method,
    request: &Request,
    picked: &mut pick::Picked,
    compression: &mut server_compression::State,
) -> Result<Vec<String>, Error> {
    if !method.forks() {
        return Ok(Vec::new());
    }
    let (control, facts) = (&mut picked.control, &picked.facts);
    let place = picked.endpoint.place();
    let mut warnings = guard::before(request.fork_guard, method, control, facts, place).await?;
    if request.disable_server_compression
        && let Some(state_dir) = &request.state_dir
    {
        let endpoint = &picked.endpoint;
        let told =
            server_compression::turn_off(compression, state_dir, control, endpoint, facts).await;
        warnings.extend(told);
    }
    Ok(warnings)
}
