//! Restores of plain RDB files by the library: what arrives, what is refused, and what a stop leaves behind.

mod across;
mod changed;
mod check;
mod commands;
mod conflicts;
mod emptying;
mod file;
mod limits;
mod memory;
mod rotten;
mod selective;
mod speed;

use std::path::PathBuf;
use std::sync::Arc;

use rdbkeeper::failure::Failure;
use rdbkeeper::restore::{self, OnProgress, Outcome, Plan, Prepared, Progress, Request};
use rdbkeeper::server::{Address, Endpoint};
use rdbkeeper::target::file::Existing;
use tokio_util::sync::CancellationToken;

use crate::support::backup::PlainFile;
use crate::support::compare::Contents;
use crate::support::data;
use crate::support::servers::{self, Kind, Server};

/// A file that a server of this kind wrote, filled with everything, and what it held.
pub struct Dumped {
    pub file: PathBuf,
    pub contents: Contents,
    _folder: tempfile::TempDir,
}

impl Dumped {
    /// Everything that [`data::fill`] makes.
    pub fn full(kind: &Kind) -> Dumped {
        let server = Server::start(kind);
        data::fill(&mut server.client(), kind);
        Dumped::of(&server)
    }

    /// What a server holds.
    pub fn of(server: &Server) -> Dumped {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dump.rdb");
        std::fs::write(&file, server.save()).unwrap();
        Dumped {
            contents: Contents::of(&mut server.client()),
            file,
            _folder: folder,
        }
    }

    pub fn backup(&self) -> Arc<PlainFile> {
        Arc::new(PlainFile(self.file.clone()))
    }
}

/// The way to a server's plain port, as its default user.
pub fn endpoint(server: &Server) -> Endpoint {
    Endpoint::new(server.url().parse::<Address>().unwrap())
}

/// The same as a user that [`Options::user`](crate::support::servers::Options::user) made, with the password `pw`.
pub fn endpoint_of(server: &Server, user: &str) -> Endpoint {
    let mut endpoint = endpoint(server);
    endpoint.username = Some(user.to_owned());
    endpoint.password = Some(rdbkeeper::server::Secret::new("pw"));
    endpoint
}

pub fn silent() -> OnProgress {
    Arc::new(|_| {})
}

pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// What `count` sessions and nothing else are.
pub fn sessions(count: usize) -> Dumped {
    let source = Server::start(servers::usual());
    source.client().run_all(data::sessions(count));
    Dumped::of(&source)
}

/// Looks at the target and decides.
pub async fn prepare(
    backup: Arc<PlainFile>,
    to: Endpoint,
    request: Request,
) -> Result<Prepared<PlainFile>, Failure> {
    restore::prepare(backup, to, request, silent(), CancellationToken::new()).await
}

/// Does what was decided; of what went wrong the failure alone.
pub async fn finish(prepared: Prepared<PlainFile>) -> Result<Outcome, Failure> {
    prepared.run().await.map_err(|ended| ended.failure)
}

pub fn plan(dumped: &Dumped, server: &Server, request: Request) -> Result<Plan, Failure> {
    let prepared = wait(prepare(dumped.backup(), endpoint(server), request))?;
    Ok(prepared.plan().clone())
}

pub fn run(dumped: &Dumped, server: &Server, request: Request) -> Result<Outcome, Failure> {
    run_as(dumped, endpoint(server), request)
}

/// Restores as somebody.
pub fn run_as(dumped: &Dumped, to: Endpoint, request: Request) -> Result<Outcome, Failure> {
    run_after(dumped, to, request, || {})
}

/// Restores, and does something when all is decided and nothing written.
pub fn run_after(
    dumped: &Dumped,
    to: Endpoint,
    request: Request,
    between: impl FnOnce(),
) -> Result<Outcome, Failure> {
    wait(async {
        let prepared = prepare(dumped.backup(), to, request).await?;
        between();
        finish(prepared).await
    })
}

/// Restores, is told how far it is, and may be stopped.
pub fn run_watched(
    dumped: &Dumped,
    to: Endpoint,
    request: Request,
    token: CancellationToken,
    watch: impl Fn(Progress) + Send + Sync + 'static,
) -> Result<Outcome, Failure> {
    wait(async {
        let prepared = restore::prepare(dumped.backup(), to, request, Arc::new(watch), token);
        finish(prepared.await?).await
    })
}

/// The plan, and what came of it.
pub fn both(
    backup: Arc<PlainFile>,
    to: Endpoint,
    request: Request,
) -> (Plan, Result<Outcome, Failure>) {
    wait(async {
        let prepared = good(prepare(backup, to, request).await);
        (prepared.plan().clone(), finish(prepared).await)
    })
}

pub fn run_to_file(
    dumped: &Dumped,
    path: &std::path::Path,
    request: Request,
) -> Result<Outcome, Failure> {
    let token = CancellationToken::new();
    wait(restore::to_file(
        dumped.backup(),
        path,
        Existing::Refuse,
        request,
        silent(),
        token,
    ))
}

/// Panics with all that a failure says.
#[track_caller]
pub fn good<T>(result: Result<T, Failure>) -> T {
    result.unwrap_or_else(|failure| panic!("{failure:#?}"))
}
