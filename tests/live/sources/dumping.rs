//! What the tests of sources share: take a dump, look at it, load it into a server.

use std::time::Duration;

use bytes::Bytes;
use rdbkeeper::rdb::{Checksum, Scanner, Summary};
use rdbkeeper::server::Endpoint;
use rdbkeeper::source::{Choice, Dump, Error, Method, Pumped, Request, open};

use crate::support::servers::{Kind, Server};

/// An endpoint that gives up soon.
pub fn endpoint(url: &str) -> Endpoint {
    let mut endpoint = Endpoint::new(url.parse().unwrap());
    endpoint.connect_timeout = Duration::from_secs(5);
    endpoint.idle_timeout = Duration::from_secs(20);
    endpoint
}

/// Everything of a server, by one method.
pub fn by(method: Method, server: &Server) -> Request {
    let mut request = Request::new(endpoint(&server.url()));
    request.choice = Choice::Only(method);
    request
}

/// A dump that was taken to its end.
pub struct Taken {
    pub reasons: Vec<String>,
    pub warnings: Vec<String>,
    pub method: Method,
    pub facts: rdbkeeper::source::SourceFacts,
    pub bytes: Vec<u8>,
    pub pumped: Pumped,
}

/// Collects what an open dump sends.
pub async fn collect(dump: Dump) -> Result<(Vec<u8>, Pumped), Error> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(4);
    let gather = async {
        let mut bytes = Vec::new();
        while let Some(piece) = receiver.recv().await {
            assert!(!piece.is_empty());
            bytes.extend_from_slice(&piece);
        }
        bytes
    };
    let (pumped, bytes) = tokio::join!(dump.pump(sender), gather);
    Ok((bytes, pumped?))
}

/// Opens and collects.
pub async fn try_take(request: Request) -> Result<Taken, Error> {
    let dump = open(request).await?;
    let (reasons, warnings, method, facts) = (
        dump.reasons.clone(),
        dump.warnings.clone(),
        dump.method,
        dump.facts.clone(),
    );
    let expected = dump.expected_bytes;
    let (bytes, pumped) = collect(dump).await?;
    assert_eq!(bytes.len() as u64, pumped.bytes);
    assert!(expected.is_none_or(|expected| expected == pumped.bytes));
    Ok(Taken {
        reasons,
        warnings,
        method,
        facts,
        bytes,
        pumped,
    })
}

/// Takes a dump on a runtime of its own.
pub fn take(request: Request) -> Taken {
    block_on(try_take(request)).unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

/// Takes a dump that must fail.
pub fn fail(request: Request) -> Error {
    match block_on(try_take(request)) {
        Ok(_) => panic!("the dump should have failed"),
        Err(error) => error,
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Scans a whole file: its checksum must fit, and nothing in it may be unknown.
#[track_caller]
pub fn verified(bytes: &[u8]) -> Summary {
    let (mut scanner, mut summary) = (Scanner::new(), Summary::new());
    scanner.feed(bytes, &mut summary).unwrap();
    let report = scanner.finish(&mut summary).unwrap();
    assert_eq!(report.checksum, Checksum::Verified);
    assert!(report.opaque.is_none(), "{:?}", report.opaque);
    summary
}

/// A server of this kind that has loaded the file: it refuses one in which a key stands twice.
pub fn loaded(kind: &Kind, bytes: &[u8]) -> Server {
    let mut server = Server::start(kind);
    server.kill();
    std::fs::write(server.dump_file(), bytes).unwrap();
    server.restart();
    server
}
