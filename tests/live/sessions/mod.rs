//! Sessions on real servers: what is decided is done, what changed meanwhile is left, and reports write nothing.

mod guards;
mod idle;
mod lost;
mod rights;
mod sweep;

use std::time::{Duration, SystemTime};

use rdbkeeper::config::{KeyRegex, LongTtl, SessionRule, SessionStore};
use rdbkeeper::failure::Failure;
use rdbkeeper::server::{Endpoint, Secret};
use rdbkeeper::sessions::sweep::{Job, Mode, Swept};
use rdbkeeper::sessions::{Expiry, Found, Observer, Outcome, Seen, Wish};

use crate::support::client::{Argument, Client, Command};
use crate::support::servers::{self, Options, Server};

/// What was told of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub db: u32,
    pub key: Vec<u8>,
    pub rule: Option<usize>,
    pub expiry: Option<Expiry>,
    pub reason: Option<&'static str>,
    pub outcome: Outcome,
    pub bytes: Option<u64>,
    pub raw: Option<Vec<u8>>,
}

/// Keeps what it is told.
#[derive(Default)]
pub struct Listener {
    pub wish: Wish,
    pub told: Vec<Told>,
}

impl Observer for Listener {
    fn wish(&mut self, _: &Found<'_>) -> Wish {
        self.wish
    }

    fn seen(&mut self, seen: &Seen<'_>) {
        self.told.push(Told {
            db: seen.found.db,
            key: seen.found.key.to_vec(),
            rule: seen.found.rule,
            expiry: seen.found.expiry,
            reason: seen.decision.map(|decision| decision.reason.as_str()),
            outcome: seen.outcome,
            bytes: seen.bytes,
            raw: seen.raw.map(<[u8]>::to_vec),
        });
    }

    fn begun_again(&mut self, _: u32) {}
}

impl Listener {
    /// What was told of one key: that it was told once is part of the promise.
    #[track_caller]
    pub fn of(&self, key: impl Argument) -> &Told {
        let key = key.bytes();
        let mut found = self.told.iter().filter(|told| told.key == key);
        let first = found
            .next()
            .unwrap_or_else(|| panic!("{} was not told of", key.escape_ascii()));
        assert_eq!(found.next(), None, "told twice");
        first
    }

    /// Its reason and its outcome.
    #[track_caller]
    pub fn came_of(&self, key: impl Argument) -> (&'static str, Outcome) {
        let told = self.of(key);
        (told.reason.unwrap_or("no rule"), told.outcome)
    }
}

/// Sessions of an hour and thirty days; and keys `o:…` of ten minutes.
pub fn rules() -> Vec<SessionRule> {
    let mut pyramid = default_rule(SessionStore::Pyramid, 3600);
    pyramid.max_age = Some(Duration::from_secs(30 * 86_400));
    vec![pyramid, rule(SessionStore::Opaque, "^o:", 600)]
}

/// A server with a user that may do everything, `scripts`, and one that may run no scripts, `plain`.
pub fn with_users(kind: &servers::Kind) -> Server {
    let options = Options::new()
        .user("scripts on >pw ~* &* +@all")
        .user("plain on >pw ~* &* +@all -@scripting");
    // Channels came with 6.2.
    let options = match kind.speaks_redis(6, 2) {
        true => options,
        false => Options::new()
            .user("scripts on >pw ~* +@all")
            .user("plain on >pw ~* +@all -@scripting"),
    };
    Server::with(kind, options)
}

/// Runs a test's body on every server, as each of these users.
pub fn each_way(mut body: impl FnMut(&Server, &str)) {
    servers::each(|kind| {
        let server = with_users(kind);
        for user in ["scripts", "plain"] {
            eprintln!("    as {user}");
            server.client().run(crate::cmd!["FLUSHALL"]);
            body(&server, user);
        }
    });
}

/// A job on a server, as its default user.
pub fn job(server: &Server, rules: Vec<SessionRule>, mode: Mode) -> Job {
    Job {
        name: format!("server-{}", server.port()),
        ..Job::new(Endpoint::new(server.url().parse().unwrap()), rules, mode)
    }
}

/// The same job as another user, whose password is `pw`.
pub fn as_user(mut job: Job, user: &str) -> Job {
    job.endpoint.username = Some(user.to_owned());
    job.endpoint.password = Some(Secret::new("pw".to_owned()));
    job
}

/// Runs a sweep; the listener has heard what was told until an error, too.
pub fn run(job: Job) -> (Result<Swept, Failure>, Listener) {
    run_wishing(job, Wish::default())
}

/// The same, with a wish for every key.
pub fn run_wishing(job: Job, wish: Wish) -> (Result<Swept, Failure>, Listener) {
    let mut listener = Listener {
        wish,
        ..Listener::default()
    };
    (run_with(job, &mut listener), listener)
}

/// The same, for any observer.
pub fn run_with(job: Job, observer: &mut dyn Observer) -> Result<Swept, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let swept = runtime.block_on(rdbkeeper::sessions::sweep::sweep(job, observer));
    swept.map_err(Failure::from)
}

/// A sweep that comes to its end.
#[track_caller]
pub fn swept(job: Job) -> (Swept, Listener) {
    let (swept, listener) = run(job);
    (
        swept.unwrap_or_else(|failure| panic!("{failure:?}")),
        listener,
    )
}

/// A sweep that fails.
#[track_caller]
pub fn refused(job: Job) -> Failure {
    run(job).0.expect_err("it should have been refused")
}

/// A rule for these keys that shortens TTLs and has no grace.
pub fn rule(store: SessionStore, pattern: &str, timeout_s: u64) -> SessionRule {
    SessionRule {
        long_ttl: LongTtl::Shorten,
        grace: Duration::ZERO,
        ..SessionRule::new(
            store,
            KeyRegex::new(pattern).unwrap(),
            Duration::from_secs(timeout_s),
        )
    }
}

/// Keys of sessions as they are by default.
pub fn default_rule(store: SessionStore, timeout_s: u64) -> SessionRule {
    rule(store, store.default_match().unwrap(), timeout_s)
}

/// Unix time in seconds.
pub fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// The name of a session of pyramid_redis_sessions.
pub fn pyramid_key(number: u32) -> String {
    format!("{number:064x}")
}

/// The value of such a session (pickle protocol 0), with so much in it.
pub fn pyramid_value(created_s: u64, timeout_s: u64, filling: usize) -> Vec<u8> {
    let filling = "x".repeat(filling);
    format!(
        "(dS'managed_dict'\n(dS'a'\nS'{filling}'\nssS'created'\nF{created_s}.5\nsS'timeout'\nI{timeout_s}\ns."
    )
    .into_bytes()
}

/// The fields of a session of Spring as JSON, last used so long ago, with an interval of half an hour.
pub fn spring_session(key: &str, last_used_s: u64, principal: &str) -> Command {
    use crate::cmd;
    cmd![
        "HSET",
        key,
        "creationTime",
        1000 * (last_used_s - 100),
        "lastAccessedTime",
        1000 * last_used_s,
        "maxInactiveInterval",
        1800,
        "sessionAttr:org.springframework.session.FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME",
        format!("\"{principal}\"")
    ]
}

/// The TTL of a key in seconds, -1 for none, -2 for no key.
pub fn ttl(client: &mut Client, key: impl Argument) -> i64 {
    client.run(crate::cmd!["TTL", key.bytes()]).int()
}
