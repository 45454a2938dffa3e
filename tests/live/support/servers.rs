//! Real servers: found once, started on a free port of 127.0.0.1 in a folder of their own, ended by PID.
//!
//! The trap: between finding a free port and binding it another server may take it, and then answer our first PING.
//! So readiness means that the process which answers is the one that was started.

use std::fmt;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::OnceLock;

use super::client::Client;
use super::poll::{Deadline, PATIENCE, until};
use super::tls::Certificates;
use crate::cmd;

/// A server program that was found on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `redis` or `valkey`.
    pub family: String,
    /// Major, minor, patch.
    pub version: (u32, u32, u32),
    /// Whether it was built with TLS.
    pub tls: bool,
    program: PathBuf,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.{}", self.family, self.version.0, self.version.1)
    }
}

impl Kind {
    /// The program's path.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Whether it is a Valkey.
    pub fn is_valkey(&self) -> bool {
        self.family == "valkey"
    }

    /// Whether it is at least this version of Redis, or a Valkey (which all descend from Redis 7.2).
    pub fn speaks_redis(&self, major: u32, minor: u32) -> bool {
        if self.is_valkey() {
            (major, minor) <= (7, 2)
        } else {
            (self.version.0, self.version.1) >= (major, minor)
        }
    }

    /// Whether fields of a hash can have an expiry.
    pub fn has_hash_field_expiry(&self) -> bool {
        self.speaks_redis(7, 4) || (self.is_valkey() && self.version.0 >= 9)
    }

    /// The version of the RDB files that it writes.
    pub fn rdb_version(&self) -> u16 {
        match (self.is_valkey(), self.version.0, self.version.1) {
            (true, 9.., 2..) | (true, 10.., _) => 81,
            (true, 9, _) => 80,
            (true, ..) | (false, 7, 2..=3) => 11,
            (false, ..=6, _) => 9,
            (false, 7, ..=1) => 10,
            (false, 8, 6..=7) => 13,
            (false, 8, 8..=9) => 14,
            (false, 8, 10..) | (false, 9.., _) => 15,
            (false, ..) => 12,
        }
    }

    /// Whether whatever this one wrote can be held by `other`, by its family and version alone.
    pub fn fits_into(&self, other: &Kind) -> bool {
        if self.family == other.family {
            self.version <= other.version
        } else {
            // Up to RDB version 11 both families speak the same.
            self.rdb_version() <= 11 && other.rdb_version() >= self.rdb_version()
        }
    }
}

/// Where `tests/servers/fetch.sh` puts what it brings.
pub fn test_folder() -> Option<PathBuf> {
    std::env::var_os("RDBKEEPER_TEST_SERVERS").map_or_else(
        || {
            std::env::var_os("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
                .map(|cache| cache.join("rdbkeeper-test-servers"))
        },
        |folder| Some(PathBuf::from(folder)),
    )
}

/// Every server that was found, the oldest Redis first, then Valkey.
pub fn available() -> &'static [Kind] {
    static FOUND: OnceLock<Vec<Kind>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut programs: Vec<(String, PathBuf)> = ["redis", "valkey"]
            .iter()
            .filter_map(|family| {
                Some(((*family).to_owned(), in_path(&format!("{family}-server"))?))
            })
            .collect();
        for entry in test_folder()
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flatten()
        {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let Some((family @ ("redis" | "valkey"), _)) = name.split_once('-') else {
                continue;
            };
            let program = entry.path().join(format!("bin/{family}-server"));
            if program.exists() {
                programs.push((family.to_owned(), program));
            }
        }
        let mut kinds: Vec<Kind> = programs
            .into_iter()
            .filter_map(|(family, program)| look_at(family, program))
            .collect();
        kinds.sort_by_key(|kind| (kind.is_valkey(), kind.version));
        kinds.dedup_by_key(|kind| (kind.is_valkey(), kind.version));
        assert!(
            !kinds.is_empty(),
            "no redis-server was found: install one, or run tests/servers/fetch.sh"
        );
        let names: Vec<String> = kinds.iter().map(Kind::to_string).collect();
        announce(&format!("servers under test: {}", names.join(", ")));
        for name in [
            "redis-6.0",
            "redis-6.2",
            "redis-7.0",
            "redis-8.0",
            "valkey-8.1",
            "valkey-9.1",
        ] {
            if !names.iter().any(|found| found == name) {
                announce(&format!(
                    "{name} was not found: its tests are skipped (tests/servers/fetch.sh brings it)"
                ));
            }
        }
        kinds
    })
}

/// The server of this name (`redis-7.0`), or `None` after a visible line that says what is skipped.
pub fn named(name: &str) -> Option<&'static Kind> {
    let found = available().iter().find(|kind| kind.to_string() == name);
    if found.is_none() {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        announce(&format!("{test}: skipped, {name} was not found"));
    }
    found
}

/// The server that most tests use: the machine's own, else the first that was found.
pub fn usual() -> &'static Kind {
    let kinds = available();
    kinds
        .iter()
        .find(|kind| kind.to_string() == "redis-7.0")
        .unwrap_or(&kinds[0])
}

/// Runs a test's body for every server that was found; a failure says for which.
pub fn each(mut body: impl FnMut(&'static Kind)) {
    for kind in available() {
        eprintln!("--- {kind}");
        body(kind);
    }
}

/// Says a line past the test harness's capture.
pub fn announce(line: &str) {
    let _ = writeln!(std::io::stderr(), "live tests: {line}");
}

fn in_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

fn look_at(family: String, program: PathBuf) -> Option<Kind> {
    let answer = Process::new(&program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    // A distribution may provide redis-server as a name of Valkey.
    let family = if text.starts_with("Valkey") {
        "valkey".to_owned()
    } else {
        family
    };
    let version = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="))?;
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let version = (next(), next(), next());
    // One with TLS misses its certificate; one without does not know the directive, or has nothing behind it.
    let refusal = Process::new(&program)
        .args(["--port", "0", "--tls-port", "1"])
        .output()
        .ok()?;
    let said = [refusal.stdout, refusal.stderr].concat();
    Some(Kind {
        family,
        version,
        tls: String::from_utf8_lossy(&said).contains("Failed to configure TLS"),
        program,
    })
}

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    lines: Vec<String>,
    password: Option<String>,
    unix: bool,
    tls: Option<&'static str>,
}

impl Options {
    /// The plain options: a TCP port, nothing saved by itself, sixteen databases.
    pub fn new() -> Options {
        Options::default()
    }

    /// Adds a line of configuration; later lines win over the harness's own.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> Options {
        self.lines.push(line.into());
        self
    }

    /// The default user's password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Options {
        self.password = Some(password.to_owned());
        self
    }

    /// An ACL user: `backup on >secret ~* +@read`.
    #[must_use]
    pub fn user(self, rule: &str) -> Options {
        self.config(format!("user {rule}"))
    }

    /// A unix socket beside the port.
    #[must_use]
    pub fn unix_socket(mut self) -> Options {
        self.unix = true;
        self
    }

    /// A TLS port beside the plain one; a client certificate is looked at when one is offered.
    #[must_use]
    pub fn tls(mut self) -> Options {
        self.tls = Some("optional");
        self
    }

    /// A TLS port that asks for a client certificate.
    #[must_use]
    pub fn tls_with_client_certificate(mut self) -> Options {
        self.tls = Some("yes");
        self
    }
}

/// A running server. Dropping it ends it.
pub struct Server {
    kind: Kind,
    options: Options,
    child: Option<Child>,
    folder: tempfile::TempDir,
    port: u16,
    tls_port: Option<u16>,
    certificates: Option<Certificates>,
}

impl Server {
    /// Starts a server with the plain options.
    pub fn start(kind: &Kind) -> Server {
        Server::with(kind, Options::new())
    }

    /// Starts a server.
    pub fn with(kind: &Kind, options: Options) -> Server {
        let folder = tempfile::Builder::new()
            .prefix("rdbkeeper-server-")
            .tempdir()
            .unwrap();
        let certificates = options.tls.map(|_| Certificates::make(folder.path()));
        let mut server = Server {
            kind: kind.clone(),
            options,
            child: None,
            folder,
            port: 0,
            tls_port: None,
            certificates,
        };
        for _ in 0..10 {
            server.port = free_port();
            server.tls_port = server.certificates.as_ref().map(|_| free_port());
            if server.launch() {
                return server;
            }
        }
        panic!("{} does not start:\n{}", server.kind, server.log());
    }

    /// Starts it anew on its old port and folder, after `kill` or `stop`; it loads its dump file again.
    pub fn restart(&mut self) {
        self.kill();
        let started = self.launch();
        assert!(
            started,
            "{} does not start again:\n{}",
            self.kind,
            self.log()
        );
    }

    /// The program.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The plain TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The TLS port.
    pub fn tls_port(&self) -> u16 {
        self.tls_port.expect("started with TLS")
    }

    /// The files of the authority behind the TLS port.
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("started with TLS")
    }

    /// `redis://127.0.0.1:PORT`, without credentials.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `rediss://localhost:PORT`, without credentials.
    pub fn tls_url(&self) -> String {
        format!("rediss://localhost:{}", self.tls_port())
    }

    /// `redis+unix:///…/server.sock`
    pub fn unix_url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// The unix socket's path.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("server.sock")
    }

    /// Its working folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where it saves.
    pub fn dump_file(&self) -> PathBuf {
        self.folder.path().join("dump.rdb")
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A new connection, as the default user.
    pub fn client(&self) -> Client {
        let mut client = Client::tcp(self.port).unwrap();
        if let Some(password) = &self.options.password {
            client.run(cmd!["AUTH", password]);
        }
        client
    }

    /// `SAVE`, and the file's bytes.
    pub fn save(&self) -> Vec<u8> {
        self.client().run(cmd!["SAVE"]);
        std::fs::read(self.dump_file()).unwrap()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal to the process (`Signal::STOP` makes it stall, `Signal::CONT` go on).
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().expect("running"));
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child
            .as_mut()
            .is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Waits until it replicates from `master` and has all its data.
    pub fn follow(&self, master: &Server) {
        if let Some(password) = &master.options.password {
            self.client()
                .run(cmd!["CONFIG", "SET", "masterauth", password]);
        }
        self.client()
            .run(cmd!["REPLICAOF", "127.0.0.1", master.port]);
        until("the replica's link is up", || {
            (self.client().info("master_link_status")? == "up").then_some(())
        });
    }

    fn launch(&mut self) -> bool {
        let folder = self.folder.path();
        let config = folder.join("server.conf");
        std::fs::write(&config, self.configuration()).unwrap();
        let out = std::fs::File::create(folder.join("server.out")).unwrap();
        let child = Process::new(&self.kind.program)
            .arg(&config)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Deadline::after(PATIENCE);
        while !self.has_ended() {
            if self.answers() {
                return true;
            }
            assert!(
                !deadline.is_over(),
                "{} does not get ready:\n{}",
                self.kind,
                self.log()
            );
            deadline.pause();
        }
        self.child = None;
        false
    }

    /// Whether it is this process that answers on the port, and it has loaded its data.
    fn answers(&self) -> bool {
        let Ok(mut client) = Client::tcp(self.port) else {
            return false;
        };
        if let Some(password) = &self.options.password
            && !matches!(client.attempt(cmd!["AUTH", password]), Ok(reply) if reply.error().is_none())
        {
            return false;
        }
        let Ok(reply) = client.attempt(cmd!["INFO", "everything"]) else {
            return false;
        };
        if reply.error().is_some() {
            // A default user without rights: the log has to do.
            return self
                .log()
                .to_lowercase()
                .contains("ready to accept connections");
        }
        let text = reply.text();
        let has = |line: &str| text.lines().any(|found| found.trim_end() == line);
        has(&format!("process_id:{}", self.pid())) && has("loading:0")
    }

    fn configuration(&self) -> String {
        let folder = self.folder.path().display();
        let mut lines = vec![
            format!("port {}", self.port),
            "bind 127.0.0.1".to_owned(),
            "protected-mode no".to_owned(),
            format!("dir {folder}"),
            format!("logfile {folder}/server.log"),
            "save \"\"".to_owned(),
            "appendonly no".to_owned(),
            "daemonize no".to_owned(),
            "databases 16".to_owned(),
            "repl-diskless-sync-delay 0".to_owned(),
        ];
        if self.kind.speaks_redis(7, 0) {
            lines.push("enable-debug-command yes".to_owned());
        }
        if self.options.unix {
            lines.push(format!("unixsocket {}", self.socket().display()));
        }
        if let Some(password) = &self.options.password {
            lines.push(format!("requirepass {password}"));
        }
        if let (Some(certificates), Some(port)) = (&self.certificates, self.tls_port) {
            lines.push(format!("tls-port {port}"));
            lines.push(format!("tls-cert-file {}", certificates.server.0.display()));
            lines.push(format!("tls-key-file {}", certificates.server.1.display()));
            lines.push(format!("tls-ca-cert-file {}", certificates.ca.display()));
            lines.push(format!(
                "tls-auth-clients {}",
                self.options.tls.unwrap_or("optional")
            ));
        }
        lines.extend(self.options.lines.iter().cloned());
        lines.join("\n") + "\n"
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the last that {} on port {} logged:", self.kind, self.port);
            for line in &lines[lines.len().saturating_sub(25)..] {
                eprintln!("    {line}");
            }
        }
    }
}

/// A port of 127.0.0.1 at which nobody listens, and at which nobody will: a free one may be taken by the next server that
/// is started.
pub const NOBODY: u16 = 1;

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
