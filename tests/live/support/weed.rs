//! A real S3 server: SeaweedFS, started on free ports from a folder of its own, ended by PID.
//!
//! Starting one takes most of a second and a hundred megabytes, so tests share one ([`shared`]) and take a bucket each;
//! whoever kills the server, stalls it or wants it in another way starts one of its own.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use rustix::process::{Pid, Signal, kill_process};

use super::poll::{Deadline, PATIENCE};
use super::servers::{announce, test_folder};
use super::tls::Certificates;

/// The access key of who may do everything.
pub const ADMIN: &str = "test-admin";

/// The access key of who may only list and read.
pub const READER: &str = "test-reader";

/// The secret of both.
pub const SECRET: &str = "a-secret-for-tests-only";

/// How a server is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    tls: bool,
    open: bool,
    kms: bool,
    shared: bool,
}

impl Options {
    /// Plain HTTP, and the identities [`ADMIN`] and [`READER`].
    pub fn new() -> Options {
        Options::default()
    }

    /// A TLS port beside the plain one.
    #[must_use]
    pub fn tls(mut self) -> Options {
        self.tls = true;
        self
    }

    /// No identities: whoever asks may do everything, and no signature is looked at, so that a proxy may change requests.
    #[must_use]
    pub fn open(mut self) -> Options {
        self.open = true;
        self
    }

    /// A key management of its own: any key ID works.
    #[must_use]
    pub fn kms(mut self) -> Options {
        self.kms = true;
        self
    }

    /// Nobody drops it: the shell that ends it removes its folder.
    fn shared(mut self) -> Options {
        self.shared = true;
        self
    }
}

/// A running server. Dropping it ends it; so does the end of the tests, however they end.
pub struct Weed {
    options: Options,
    ports: [u16; 7],
    /// A bucket that is there from the start: it tells this server from another one at the same port.
    mark: String,
    running: Option<Running>,
    folder: tempfile::TempDir,
    certificates: Option<Certificates>,
}

/// A server and the shell that ends it when nobody holds its input any more.
struct Running {
    shell: Child,
    pid: Pid,
}

/// The program, or `None` after a visible line that says what is skipped.
pub fn program() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let program = test_folder()?.join("seaweedfs/bin/weed");
        program.exists().then_some(program)
    });
    if found.is_none() {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        announce(&format!(
            "{test}: skipped, SeaweedFS was not found (tests/servers/fetch.sh brings it)"
        ));
    }
    found.as_deref()
}

/// The server that tests share, each with a [`Weed::bucket`] of its own.
pub fn shared() -> Option<&'static Weed> {
    static SHARED: OnceLock<Weed> = OnceLock::new();
    program()?;
    Some(SHARED.get_or_init(|| Weed::with(Options::new().shared()).unwrap()))
}

/// As [`shared`], one that lets everybody in: what stands between the program and it may change requests.
pub fn shared_open() -> Option<&'static Weed> {
    static SHARED: OnceLock<Weed> = OnceLock::new();
    program()?;
    Some(SHARED.get_or_init(|| Weed::with(Options::new().open().shared()).unwrap()))
}

/// The runtime that all tests share.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    })
}

/// Waits for a future, on that runtime.
pub fn wait<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(work)
}

impl Weed {
    /// Starts a server with the plain options, or skips.
    pub fn start() -> Option<Weed> {
        Weed::with(Options::new())
    }

    /// Starts a server, or skips.
    pub fn with(options: Options) -> Option<Weed> {
        program()?;
        let folder = tempfile::Builder::new()
            .prefix("rdbkeeper-weed-")
            .tempdir()
            .unwrap();
        let certificates = options.tls.then(|| Certificates::make(folder.path()));
        let mut weed = Weed {
            options,
            ports: [0; 7],
            mark: format!("mark-{:x}", random()),
            running: None,
            folder,
            certificates,
        };
        for _ in 0..10 {
            weed.ports = std::array::from_fn(|_| free_port());
            if weed.launch(Duration::from_secs(20)) {
                return Some(weed);
            }
        }
        panic!("SeaweedFS does not start:\n{}", weed.log());
    }

    /// Starts it anew on its old ports and folder.
    pub fn restart(&mut self) {
        self.kill();
        let started = self.launch(PATIENCE);
        assert!(started, "SeaweedFS does not start again:\n{}", self.log());
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.shell.stdin.take());
            let _ = running.shell.wait();
        }
    }

    /// Sends a signal to the process (`Signal::STOP` makes it stall, `Signal::CONT` go on).
    pub fn signal(&self, signal: Signal) {
        kill_process(self.running.as_ref().expect("running").pid, signal).unwrap();
    }

    /// The port of the plain protocol.
    pub fn port(&self) -> u16 {
        self.ports[0]
    }

    /// The TLS port.
    pub fn tls_port(&self) -> u16 {
        assert!(self.options.tls, "started with TLS");
        self.ports[1]
    }

    /// The files of the authority behind the TLS port.
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("started with TLS")
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// `https://localhost:PORT`
    pub fn tls_endpoint(&self) -> String {
        format!("https://localhost:{}", self.tls_port())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("weed.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A new bucket.
    pub fn bucket(&self) -> Bucket {
        self.make_bucket(false)
    }

    /// A new bucket with object lock, and so with versions.
    pub fn locking_bucket(&self) -> Bucket {
        self.make_bucket(true)
    }

    fn make_bucket(&self, lock: bool) -> Bucket {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("bucket-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let client = self.client();
        wait(
            client
                .create_bucket()
                .bucket(&name)
                .object_lock_enabled_for_bucket(lock)
                .send(),
        )
        .unwrap();
        Bucket {
            endpoint: self.endpoint(),
            client,
            name,
        }
    }

    fn client(&self) -> Client {
        client(&self.endpoint())
    }

    fn launch(&mut self, patience: Duration) -> bool {
        let data = self.folder.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        if !self.options.open {
            std::fs::write(self.folder.path().join("s3.json"), self.identities()).unwrap();
        }
        let log = std::fs::File::create(self.folder.path().join("weed.log")).unwrap();
        // The shell waits for the end of its input, which comes with the end of this process, however it ends.
        let mut shell = Process::new("sh")
            .args([
                "-c",
                "\"$@\" </dev/null >&2 & echo $!; read -r _; kill -9 $!; wait $!; [ -z \"$GONE\" ] || rm -rf \"$GONE\"",
                "weed",
            ])
            .arg(program().unwrap())
            .args(self.arguments())
            .current_dir(self.folder.path())
            .env("GONE", if self.options.shared { self.folder.path().as_os_str() } else { "".as_ref() })
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let pid = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        self.running = Some(Running { shell, pid });
        let client = self.client();
        let deadline = Deadline::after(patience);
        while !deadline.is_over() {
            if std::net::TcpStream::connect(("127.0.0.1", self.port())).is_ok()
                && wait(client.head_bucket().bucket(&self.mark).send()).is_ok()
                // Large enough for a volume: those may come later than the bucket.
                && wait(
                    client
                        .put_object()
                        .bucket(&self.mark)
                        .key("ready")
                        .body(vec![0; 64 << 10].into())
                        .send(),
                )
                .is_ok()
            {
                return true;
            }
            deadline.pause();
        }
        self.kill();
        false
    }

    fn arguments(&self) -> Vec<String> {
        let [s3, https, grpc, master, volume, filer, admin] = self.ports;
        let mut arguments: Vec<String> = [
            "mini",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-dir=data",
            "-master.telemetry=false",
            // Each bucket takes a few volumes.
            "-volume.max=5000",
            "-master.volumeSizeLimitMB=1024",
            "-s3.autoCreateBucket=false",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]
        .map(str::to_owned)
        .into();
        arguments.extend([
            format!("-bucket={}", self.mark),
            format!("-s3.port={s3}"),
            format!("-s3.port.grpc={grpc}"),
            format!("-master.port={master}"),
            format!("-volume.port={volume}"),
            format!("-filer.port={filer}"),
            format!("-admin.port={admin}"),
        ]);
        if !self.options.open {
            arguments.push("-s3.config=s3.json".to_owned());
        }
        if let Some(certificates) = &self.certificates {
            arguments.extend([
                format!("-s3.port.https={https}"),
                format!("-s3.cert.file={}", certificates.server.0.display()),
                format!("-s3.key.file={}", certificates.server.1.display()),
            ]);
        }
        arguments
    }

    fn identities(&self) -> String {
        let identity = |name: &str, key: &str, actions: &[&str]| {
            serde_json::json!({
                "name": name,
                "credentials": [{ "accessKey": key, "secretKey": SECRET }],
                "actions": actions,
            })
        };
        let mut all = serde_json::json!({ "identities": [
            identity("admin", ADMIN, &["Admin"]),
            identity("reader", READER, &["Read", "List"]),
        ]});
        if self.options.kms {
            all["kms"] = serde_json::json!({
                "default_provider": "local",
                "providers": { "local": { "type": "local", "enableOnDemandCreate": true } },
            });
        }
        all.to_string()
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the last that SeaweedFS on port {} logged:", self.port());
            for line in &lines[lines.len().saturating_sub(25)..] {
                eprintln!("    {line}");
            }
        }
    }
}

/// A bucket, as the tests look at it: past the program, and past any proxy.
#[derive(Clone, Debug)]
pub struct Bucket {
    endpoint: String,
    client: Client,
    name: String,
}

impl Bucket {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tests' own client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The table `[storage.NAME]` of this bucket, for [`ADMIN`].
    pub fn table(&self, name: &str) -> String {
        self.table_at(name, &self.endpoint)
    }

    /// The same by way of another endpoint. Lines that are added to it belong to the table.
    pub fn table_at(&self, name: &str, endpoint: &str) -> String {
        self.table_as(name, endpoint, ADMIN)
    }

    /// The same for another access key.
    pub fn table_as(&self, name: &str, endpoint: &str, access_key: &str) -> String {
        format!(
            "[storage.{name}]\nkind = \"s3\"\nbucket = \"{}\"\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\npath_style = true\n\
             access_key_id = \"{access_key}\"\nsecret_access_key = \"{SECRET}\"\n",
            self.name
        )
    }

    /// Every object, with its size, sorted by key.
    pub fn objects(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        let mut pages = self
            .client
            .list_objects_v2()
            .bucket(&self.name)
            .into_paginator()
            .send();
        wait(async {
            while let Some(page) = pages.next().await {
                found.extend(page.unwrap().contents().iter().map(|object| {
                    (
                        object.key().unwrap().to_owned(),
                        u64::try_from(object.size().unwrap()).unwrap(),
                    )
                }));
            }
        });
        found.sort();
        found
    }

    /// The keys of [`Bucket::objects`].
    pub fn keys(&self) -> Vec<String> {
        self.objects().into_iter().map(|(key, _)| key).collect()
    }

    /// The keys of the uploads that were begun and neither finished nor aborted.
    pub fn unfinished(&self) -> Vec<String> {
        let uploads = wait(
            self.client
                .list_multipart_uploads()
                .bucket(&self.name)
                .send(),
        )
        .unwrap();
        uploads
            .uploads()
            .iter()
            .map(|upload| upload.key().unwrap().to_owned())
            .collect()
    }

    /// An object's bytes.
    pub fn get(&self, key: &str) -> Vec<u8> {
        wait(async {
            let object = self
                .client
                .get_object()
                .bucket(&self.name)
                .key(key)
                .send()
                .await
                .unwrap();
            object.body.collect().await.unwrap().to_vec()
        })
    }

    /// Puts an object there, over what was there.
    pub fn put(&self, key: &str, data: impl Into<Vec<u8>>) {
        wait(
            self.client
                .put_object()
                .bucket(&self.name)
                .key(key)
                .body(data.into().into())
                .send(),
        )
        .unwrap();
    }

    /// Removes an object.
    pub fn delete(&self, key: &str) {
        wait(
            self.client
                .delete_object()
                .bucket(&self.name)
                .key(key)
                .send(),
        )
        .unwrap();
    }

    /// Removes the bucket, with all that is in it.
    pub fn vanish(&self) {
        for key in self.keys() {
            self.delete(&key);
        }
        wait(self.client.delete_bucket().bucket(&self.name).send()).unwrap();
    }
}

/// A client of the tests' own, as [`ADMIN`].
pub fn client(endpoint: &str) -> Client {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .credentials_provider(Credentials::new(ADMIN, SECRET, None, None, "tests"))
        .build();
    Client::from_conf(config)
}

fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

/// A port that is free, with the one ten thousand above it: SeaweedFS takes that for gRPC by itself. Both lie below those
/// that systems hand out, so that no other server of the tests gets them.
fn free_port() -> u16 {
    loop {
        let port = u16::try_from(12_000 + random() % 10_000).unwrap();
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}
