//! Metrics, health and status over HTTP: `GET` alone, nothing that writes, no secret.
//!
//! Every answer is made of what stands on the [`Board`] and of the last [picture](super::picture): none waits for a
//! storage or a server. The trap is a client that connects and says nothing: connections are few, live ten seconds at
//! most, and each serves one request.

mod answers;
mod connections;
mod metrics;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::answers::{Health, Status};
use self::connections::Connections;
use super::board::Board;
use super::picture::Gallery;
use crate::failure::{Failure, Kind};

/// How long open requests may take when the daemon ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Why there is no place to serve at.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics and health at {address}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Failure {
        let failure = Failure::new(Kind::Failed, error.to_string()).caused_by(&error.source);
        failure.hint(match error.source.kind() {
            io::ErrorKind::AddrInUse => {
                "another process listens there; choose another port in `listen` of [daemon], or end that process"
            }
            _ => "`listen` of [daemon] is an address of this host; without it nothing is served",
        })
    }
}

/// A place that is taken, where nothing is served yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Takes the place, so that a mistake shows before the daemon is ready.
///
/// # Errors
/// When the address is in use or is none of this host.
pub async fn bind(address: SocketAddr) -> Result<Bound, BindError> {
    let cannot = |source| BindError { address, source };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    Ok(Bound { listener, address })
}

impl Bound {
    /// Where it is; the port that was chosen where the configuration says 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `cancel` is cancelled.
    pub async fn serve(self, board: Board, gallery: Gallery, cancel: CancellationToken) {
        let served = Served { board, gallery };
        let connections = Connections::new(self.listener);
        let serving = axum::serve(connections, routes(served))
            .with_graceful_shutdown(cancel.clone().cancelled_owned());
        tokio::select! {
            served = async { serving.await } => {
                if let Err(error) = served {
                    tracing::error!("metrics and health are served no more: {error}");
                }
            }
            () = async {
                cancel.cancelled().await;
                tokio::time::sleep(LAST_ANSWERS).await;
            } => {}
        }
    }
}

/// What answers are made of.
#[derive(Clone, Debug)]
struct Served {
    board: Board,
    gallery: Gallery,
}

fn routes(served: Served) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/livez", get(livez))
        .route("/healthz", get(healthz))
        .route("/metrics", get(serve_metrics))
        .route("/api/status", get(status))
        .fallback(missing)
        .with_state(served)
        .layer(map_response(last_on_its_connection))
}

/// A connection ends with its first answer, whatever that is: nobody holds one of the few.
async fn last_on_its_connection(mut response: Response) -> Response {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

/// An answer that nobody keeps.
fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body).into_response()
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

fn json<T: serde::Serialize>(status: StatusCode, document: &T) -> Response {
    match serde_json::to_string_pretty(document) {
        Ok(text) => answer(status, JSON, text + "\n"),
        Err(error) => answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            TEXT,
            format!("{error}\n"),
        ),
    }
}

async fn index() -> Response {
    let text = concat!(
        "rdbkeeper ",
        env!("CARGO_PKG_VERSION"),
        "\n/metrics\n/livez\n/healthz\n/api/status\n"
    );
    answer(StatusCode::OK, TEXT, text.to_owned())
}

async fn missing() -> Response {
    answer(StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned())
}

/// The process runs and answers. Whether the backups are as they should be is another question.
async fn livez() -> Response {
    answer(StatusCode::OK, TEXT, "ok\n".to_owned())
}

async fn healthz(State(served): State<Served>) -> Response {
    let health = Health::of(
        &served.board.read(),
        served.gallery.last().as_deref(),
        Timestamp::now(),
    );
    let status = match health.healthy {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(status, &health)
}

async fn status(State(served): State<Served>) -> Response {
    let status = Status::of(
        &served.board.read(),
        served.gallery.last().as_deref(),
        Timestamp::now(),
    );
    json(StatusCode::OK, &status)
}

async fn serve_metrics(State(served): State<Served>) -> Response {
    let seen = served.board.read();
    match metrics::text(&seen, served.gallery.last().as_deref(), Timestamp::now()) {
        Ok(text) => answer(StatusCode::OK, metrics::CONTENT_TYPE, text),
        Err(error) => answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            TEXT,
            format!("{error}\n"),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::config::{Config, Environment};
    use crate::server::configured::judge_url;

    #[tokio::test]
    async fn every_answer_says_that_it_is_the_last_and_ends_its_connection() {
        let text = "[daemon]\nstate_dir = \"/s\"\nspool_dir = \"/s\"\n[storage.disk]\nkind = \"local\"\npath = \"/a\"\n\
            [[database]]\nname = \"web\"\nurl = \"redis://h\"\n";
        let environment = Environment::of_process();
        let config = Config::parse("/c.toml".as_ref(), text, &environment, &judge_url).unwrap();
        let board = Board::new(Arc::new(config), Timestamp::now());
        let bound = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = bound.address();
        let cancel = CancellationToken::new();
        let serving = tokio::spawn(bound.serve(board, Gallery::default(), cancel.clone()));
        for (method, path, status) in [
            ("GET", "/", 200),
            ("GET", "/livez", 200),
            ("HEAD", "/livez", 200),
            ("GET", "/healthz", 503),
            ("GET", "/metrics", 200),
            ("GET", "/api/status", 200),
            ("POST", "/metrics", 405),
            ("DELETE", "/livez", 405),
            ("OPTIONS", "/", 405),
            ("GET", "/nowhere", 404),
            ("PUT", "/nowhere", 404),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let head = answer.split("\r\n\r\n").next().unwrap().to_lowercase();
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
            assert!(
                head.contains("\r\nconnection: close"),
                "{method} {path}: {head}"
            );
        }
        cancel.cancel();
        serving.await.unwrap();
    }
}
