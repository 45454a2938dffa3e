//! Sending notices: one after the other for each database, with a time limit, again when it did not work.
//!
//! It never fails a run nor makes it wait: notices wait in a queue of their own database, bounded, and one whose
//! receiver does not answer keeps none of another database back. The trap: the URL of a webhook is a secret (its path
//! holds a token), and the errors of HTTP clients love to quote it; all that is shown is scheme and host.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Client, StatusCode, Url};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::notices::Notice;
use crate::config::{SecretError, SecretSource};
use crate::server::tls::TlsFiles;
use crate::units::HumanCount;

/// How long one try may take.
const TRY: Duration = Duration::from_secs(10);

/// How many notices of one database may wait. The oldest give way.
const WAITING: usize = 32;

/// How many redirections are followed.
const REDIRECTIONS: usize = 5;

/// The pause between two tries of a process that is about to end.
const HURRIED: Duration = Duration::from_millis(500);

/// How often and how long it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long one try may take.
    pub per_try: Duration,
    /// The pauses between tries; one try more than there are pauses.
    pub pauses: &'static [Duration],
}

impl Patience {
    /// For a command that ends when its work is done: a few tries within seconds.
    pub const COMMAND: Patience = Patience {
        per_try: TRY,
        pauses: &[Duration::from_secs(1), Duration::from_secs(3)],
    };

    /// For the daemon: several tries within about a quarter of an hour.
    pub const DAEMON: Patience = Patience {
        per_try: TRY,
        pauses: &[
            Duration::from_secs(2),
            Duration::from_secs(10),
            Duration::from_secs(30),
            Duration::from_secs(60),
            Duration::from_secs(180),
            Duration::from_secs(600),
        ],
    };
}

/// Why a notice was not delivered. No text holds more of the URL than scheme and host.
#[derive(Debug, thiserror::Error)]
pub enum TellError {
    /// The file that holds the URL cannot be read.
    #[error("the URL of `notify` cannot be read")]
    Secret(#[from] SecretError),
    /// What the file holds is no URL of a webhook.
    #[error("the URL of `notify` is no http:// or https:// URL")]
    NotAUrl,
    /// TLS cannot be set up here.
    #[error("{0}")]
    Setup(String),
    /// It could not be sent, or there was no answer.
    #[error("{place} cannot be reached")]
    Send {
        /// Scheme and host.
        place: String,
        /// Why, without the URL.
        source: reqwest::Error,
    },
    /// There was no answer in time.
    #[error("{place} has not answered within {} s", limit.as_secs())]
    Silent {
        /// Scheme and host.
        place: String,
        /// How long it might have taken.
        limit: Duration,
    },
    /// The answer says that it was not taken.
    #[error("{place} answered {status}")]
    Status {
        /// Scheme and host.
        place: String,
        /// The answer.
        status: StatusCode,
    },
}

impl TellError {
    /// Whether another try may do better: a receiver that understood and refused will refuse again.
    fn may_pass(&self) -> bool {
        match self {
            TellError::Send { .. } | TellError::Silent { .. } | TellError::Secret(_) => true,
            TellError::NotAUrl | TellError::Setup(_) => false,
            TellError::Status { status, .. } => {
                status.is_server_error()
                    || [
                        StatusCode::REQUEST_TIMEOUT,
                        StatusCode::TOO_EARLY,
                        StatusCode::TOO_MANY_REQUESTS,
                    ]
                    .contains(status)
            }
        }
    }

    /// The error and what is below it, in one line.
    fn whole(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

/// Sends notices. Cloning it gives another handle to the same queues.
#[derive(Clone)]
pub struct Teller(Arc<Inner>);

struct Inner {
    patience: Patience,
    client: OnceCell<Client>,
    queues: Mutex<BTreeMap<String, Queue>>,
    moved: tokio::sync::Notify,
    hurry: CancellationToken,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Letter>,
    /// Somebody sends what waits.
    served: bool,
}

struct Letter {
    url: SecretSource,
    notice: Notice,
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller")
            .field("patience", &self.0.patience)
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}

impl Teller {
    /// One that has nothing to send yet.
    pub fn new(patience: Patience) -> Teller {
        Teller(Arc::new(Inner {
            patience,
            client: OnceCell::new(),
            queues: Mutex::default(),
            moved: tokio::sync::Notify::new(),
            hurry: CancellationToken::new(),
        }))
    }

    /// Sends a notice of this database, in the background, after those that wait already. To be called within a runtime.
    pub fn tell(&self, database: &str, url: &SecretSource, notice: Notice) {
        let mut queues = self.queues();
        let queue = queues.entry(database.to_owned()).or_default();
        // What only says that something begins is worth nothing any more.
        queue.waiting.retain(|letter| !letter.notice.passing);
        if queue.waiting.len() == WAITING
            && let Some(letter) = queue.waiting.pop_front()
        {
            let event = letter.notice.event;
            tracing::warn!(
                database,
                event,
                "too many notices wait; the oldest is dropped"
            );
        }
        let url = url.clone();
        queue.waiting.push_back(Letter { url, notice });
        if !queue.served {
            queue.served = true;
            tokio::spawn(Arc::clone(&self.0).serve(database.to_owned()));
        }
    }

    /// How many notices are not delivered yet.
    pub fn open(&self) -> usize {
        let queues = self.queues();
        let open = |queue: &Queue| queue.waiting.len() + usize::from(queue.served);
        queues.values().map(open).sum()
    }

    /// Waits until all is delivered or given up, at most so long. What is open then stays undelivered, which is told.
    pub async fn drain(&self, longest: Duration) {
        let deadline = Instant::now() + longest;
        self.0.hurry.cancel();
        loop {
            let moved = self.0.moved.notified();
            let open = self.open();
            if open == 0 {
                return;
            }
            if timeout_at(deadline, moved).await.is_err() {
                let notices = HumanCount(open as u64).of("notice", "notices");
                tracing::warn!("{notices} could not be delivered in time");
                return;
            }
        }
    }

    fn queues(&self) -> MutexGuard<'_, BTreeMap<String, Queue>> {
        self.0.queues()
    }
}

impl Inner {
    fn queues(&self) -> MutexGuard<'_, BTreeMap<String, Queue>> {
        // What a panic left behind is a queue all the same.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what waits for a database, until nothing does.
    async fn serve(self: Arc<Self>, database: String) {
        loop {
            let next = {
                let mut queues = self.queues();
                let Some(queue) = queues.get_mut(&database) else {
                    return;
                };
                let next = queue.waiting.pop_front();
                queue.served = next.is_some();
                next
            };
            let Some(letter) = next else {
                self.moved.notify_waiters();
                return;
            };
            self.deliver(&database, &letter).await;
            self.moved.notify_waiters();
        }
    }

    async fn deliver(&self, database: &str, letter: &Letter) {
        let event = letter.notice.event;
        let mut pauses = self.patience.pauses.iter();
        loop {
            let error = match self.send(letter).await {
                Ok(place) => {
                    tracing::debug!(database, event, "told {place}");
                    return;
                }
                Err(error) => error,
            };
            let next = pauses.next().filter(|_| error.may_pass());
            let why = error.whole();
            let Some(pause) = next.filter(|_| !self.is_past(database, letter)) else {
                tracing::warn!(database, event, "this notice is not delivered: {why}");
                return;
            };
            tracing::info!(database, event, "this notice is tried again soon: {why}");
            let hurried = async {
                self.hurry.cancelled().await;
                sleep(HURRIED).await;
            };
            tokio::select! {
                () = sleep(*pause) => {}
                () = hurried => {}
            }
        }
    }

    /// Whether a notice has no worth any more because another one waits.
    fn is_past(&self, database: &str, letter: &Letter) -> bool {
        let waits = |queue: &Queue| !queue.waiting.is_empty();
        letter.notice.passing && self.queues().get(database).is_some_and(waits)
    }

    async fn send(&self, letter: &Letter) -> Result<String, TellError> {
        let secret = letter.url.read()?;
        let url = joined(secret.expose(), letter.notice.path).ok_or(TellError::NotAUrl)?;
        let place = place(&url);
        let client = self.client.get_or_try_init(client).await?;
        let request = client
            .post(url)
            .header(reqwest::header::CONTENT_TYPE, letter.notice.content_type)
            .body(letter.notice.body.clone());
        let limit = self.patience.per_try;
        match timeout(limit, request.send()).await {
            Err(_) => Err(TellError::Silent { place, limit }),
            Ok(Err(error)) => Err(TellError::Send {
                place,
                source: error.without_url(),
            }),
            Ok(Ok(answer)) if answer.status().is_success() => Ok(place),
            Ok(Ok(answer)) => Err(TellError::Status {
                place,
                status: answer.status(),
            }),
        }
    }
}

async fn client() -> Result<Client, TellError> {
    // The system's certificates are many files.
    let tls = tokio::task::spawn_blocking(|| TlsFiles::default().client_config()).await;
    let setup = |error: &dyn fmt::Display| TellError::Setup(format!("TLS cannot be used: {error}"));
    let tls = tls
        .map_err(|error| setup(&error))?
        .map_err(|error| setup(&error))?;
    Client::builder()
        .tls_backend_preconfigured((*tls).clone())
        .user_agent(concat!("rdbkeeper/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::custom(redirected))
        .no_proxy()
        // Notices are rare: no connection waits for the next.
        .pool_max_idle_per_host(0)
        .build()
        .map_err(|error| setup(&error.without_url()))
}

/// Follows where the same is to be posted elsewhere by the same scheme. Anything else would lose the body, or send it
/// in the clear.
fn redirected(attempt: Attempt<'_>) -> Action {
    let keeps_body = [
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ]
    .contains(&attempt.status());
    let last = attempt.previous().last();
    let same_scheme = last.is_some_and(|last| last.scheme() == attempt.url().scheme());
    match keeps_body && same_scheme && attempt.previous().len() <= REDIRECTIONS {
        true => attempt.follow(),
        false => attempt.stop(),
    }
}

/// The URL with a segment added to its path, before its query.
fn joined(url: &str, segment: Option<&str>) -> Option<Url> {
    let mut url = Url::parse(url.trim()).ok()?;
    if !["http", "https"].contains(&url.scheme()) {
        return None;
    }
    url.set_fragment(None);
    if let Some(segment) = segment {
        url.path_segments_mut().ok()?.pop_if_empty().push(segment);
    }
    Some(url)
}

/// Scheme, host and port: what may be shown.
fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_segment_goes_before_the_query_and_after_no_second_slash() {
        for (url, expected) in [
            ("https://hc-ping.com/uuid", "https://hc-ping.com/uuid/fail"),
            ("https://hc-ping.com/uuid/", "https://hc-ping.com/uuid/fail"),
            ("https://h:8/a/b?x=1#y", "https://h:8/a/b/fail?x=1"),
            ("http://h", "http://h/fail"),
            ("http://h/?create=1\n", "http://h/fail?create=1"),
        ] {
            assert_eq!(joined(url, Some("fail")).unwrap().as_str(), expected);
        }
        assert_eq!(joined("http://h/a/", None).unwrap().as_str(), "http://h/a/");
        for url in ["ftp://h/", "mailto:me@h", "", "/etc/passwd"] {
            assert_eq!(joined(url, None), None, "{url}");
        }
    }

    #[test]
    fn only_scheme_and_host_are_shown() {
        let url = joined("https://user:pass@h.example:8443/token?key=token", None).unwrap();
        assert_eq!(place(&url), "https://h.example:8443");
    }
}
