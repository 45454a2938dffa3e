//! Restores into a file: what comes out is a file that a server loads.

use std::sync::atomic::Ordering;

use rdbkeeper::failure::{Failure, Kind};
use rdbkeeper::rdb::{DbIndex, Event, Handler, Report};
use rdbkeeper::restore::{self, Backup, Request, Ttl};
use rdbkeeper::selection::{Filters, KeyPattern};
use rdbkeeper::target::Rename;
use rdbkeeper::target::file::Existing;

use super::{Dumped, good, run_to_file};
use crate::support::compare::Contents;
use crate::support::servers::{self, Server};

/// What a server of this kind makes of a file.
fn loaded(kind: &servers::Kind, file: &std::path::Path) -> Contents {
    let mut server = Server::start(kind);
    server.kill();
    std::fs::copy(file, server.dump_file()).unwrap();
    server.restart();
    Contents::of(&mut server.client())
}

#[test]
fn without_filters_the_file_is_the_one_that_was_dumped_byte_for_byte() {
    servers::each(|kind| {
        let dumped = Dumped::full(kind);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.rdb");
        let outcome = good(run_to_file(&dumped, &path, Request::default()));
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes, std::fs::read(&dumped.file).unwrap());
        assert_eq!(outcome.bytes, Some(bytes.len() as u64));
        assert_eq!(outcome.keys as usize, dumped.contents.keys());
        // And a second time it is in the way.
        let failure = run_to_file(&dumped, &path, Request::default()).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused);
        assert!(failure.hint.unwrap().contains("--yes"));
    });
}

#[test]
fn a_selection_becomes_a_file_that_a_server_loads() {
    servers::each(|kind| {
        let dumped = Dumped::full(kind);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.rdb");
        let request = Request {
            filters: Filters {
                exclude: vec![KeyPattern::new(*b"list:*"), KeyPattern::new(*b"expiring:*")],
                ..Filters::default()
            },
            map: [(DbIndex(15), DbIndex(0)), (DbIndex(3), DbIndex(1))].into(),
            rename: vec![Rename {
                from: b"hash:".to_vec(),
                to: b"h/".to_vec(),
            }],
            ..Request::default()
        };
        let outcome = good(run_to_file(&dumped, &path, request));
        let mut expected = Contents::default();
        for (db, items) in &dumped.contents.databases {
            let to = match db {
                15 => 0,
                3 => 1,
                db => *db,
            };
            for (key, item) in items {
                if key.starts_with(b"list:") || key.starts_with(b"expiring:") {
                    continue;
                }
                let key = match key.strip_prefix(b"hash:") {
                    Some(rest) => [b"h/", rest].concat(),
                    None => key.clone(),
                };
                expected
                    .databases
                    .entry(to)
                    .or_default()
                    .insert(key, item.clone());
            }
        }
        assert_eq!(outcome.keys as usize, expected.keys());
        expected.must_equal(&loaded(kind, &path), &kind.to_string());
    });
}

#[test]
fn a_plan_for_a_file_tells_what_it_would_hold_and_writes_nothing() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.rdb");
    let request = Request {
        filters: Filters {
            databases: [DbIndex(1)].into(),
            ..Filters::default()
        },
        ..Request::default()
    };
    let token = tokio_util::sync::CancellationToken::new();
    let plan = good(super::wait(rdbkeeper::restore::plan_file(
        dumped.backup(),
        &path,
        request,
        super::silent(),
        token,
    )));
    assert_eq!((plan.keys, plan.refused), (300, None));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn expiries_in_a_file_are_shifted_and_stripped() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    let folder = tempfile::tempdir().unwrap();
    let stripped = folder.path().join("stripped.rdb");
    let request = |ttl| Request {
        ttl,
        ..Request::default()
    };
    good(run_to_file(&dumped, &stripped, request(Ttl::Strip)));
    let contents = loaded(kind, &stripped);
    assert_eq!(contents.keys(), dumped.contents.keys());
    assert!(
        contents
            .databases
            .values()
            .flatten()
            .all(|(_, item)| item.expiry.at().is_none())
    );
    assert_eq!(contents.functions, dumped.contents.functions);

    let shifted = folder.path().join("shifted.rdb");
    good(run_to_file(&dumped, &shifted, request(Ttl::Shift)));
    let contents = loaded(kind, &shifted);
    for (key, item) in &dumped.contents.databases[&1] {
        let (before, after) = (
            item.expiry.at().unwrap(),
            contents.databases[&1][key].expiry.at().unwrap(),
        );
        // The file says to the second when it was written, and that was just now.
        assert!((before - after).abs() < 60_000);
    }
}

#[test]
fn a_damaged_backup_makes_no_file() {
    let kind = servers::usual();
    let mut dumped = Dumped::full(kind);
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(&dumped.file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    dumped.file = folder.path().join("damaged.rdb");
    std::fs::write(&dumped.file, &bytes).unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let failure = run_to_file(&dumped, &out.join("out.rdb"), Request::default()).unwrap_err();
    assert_eq!(failure.kind, Kind::Damaged, "{failure:?}");
    let server = Server::start(kind);
    let failure = super::run(&dumped, &server, Request::default()).unwrap_err();
    assert_eq!(failure.kind, Kind::Damaged, "{failure:?}");
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
    assert!(server.client().keyspace().is_empty());
}

/// A backup whose reading is watched: how many bytes of its file were asked for, and who stops it then.
struct Stopping {
    inner: crate::support::backup::PlainFile,
    token: tokio_util::sync::CancellationToken,
    /// Stop with the so-many-th byte of the file.
    at: usize,
    passed: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

/// Counts what passes.
struct Counting<H> {
    inner: H,
    token: tokio_util::sync::CancellationToken,
    at: usize,
    passed: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl<H: Handler> Handler for Counting<H> {
    type Error = H::Error;

    fn event(&mut self, event: Event<'_>) -> Result<(), H::Error> {
        let bytes = event.raw().len();
        if self.passed.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.at {
            self.token.cancel();
        }
        self.inner.event(event)
    }
}

impl Backup for Stopping {
    fn read<H>(&self, handler: H) -> Result<(H, Report), Failure>
    where
        H: Handler<Error = Failure> + Send + 'static,
    {
        let counting = Counting {
            inner: handler,
            token: self.token.clone(),
            at: self.at,
            passed: std::sync::Arc::clone(&self.passed),
        };
        let (counting, report) = self.inner.read(counting)?;
        Ok((counting.inner, report))
    }
}

#[test]
fn a_stop_is_heeded_where_keys_are_few_and_values_huge_and_before_the_file_gets_its_name() {
    let source = Server::start(servers::usual());
    let mut client = source.client();
    let noise = crate::support::data::Random::new(7).bytes(8 << 20);
    for number in 0..3 {
        client.run(crate::cmd!["SET", format!("huge:{number}"), &noise]);
    }
    let dumped = Dumped::of(&source);
    let all = std::fs::metadata(&dumped.file).unwrap().len() as usize;
    let strip = Request {
        ttl: Ttl::Strip,
        ..Request::default()
    };
    // Early in a value; and with the very last byte, when all has been read and nothing has its name.
    for (at, most) in [(9 << 20, 12 << 20), (all, all)] {
        // Copied; surveyed, as it is rewritten; and planned.
        for (request, planned) in [
            (Request::default(), false),
            (strip.clone(), false),
            (strip.clone(), true),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("out.rdb");
            let token = tokio_util::sync::CancellationToken::new();
            let passed = std::sync::Arc::default();
            let backup = std::sync::Arc::new(Stopping {
                inner: crate::support::backup::PlainFile(dumped.file.clone()),
                token: token.clone(),
                at,
                passed: std::sync::Arc::clone(&passed),
            });
            let failure = super::wait(async {
                match planned {
                    true => restore::plan_file(backup, &path, request, super::silent(), token)
                        .await
                        .map(drop),
                    false => {
                        let quiet = super::silent();
                        restore::to_file(backup, &path, Existing::Refuse, request, quiet, token)
                            .await
                            .map(drop)
                    }
                }
            })
            .unwrap_err();
            assert_eq!(failure.kind, Kind::Interrupted, "{failure:?}");
            assert!(passed.load(Ordering::Relaxed) <= most, "{passed:?}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}

#[test]
fn of_an_opaque_file_that_is_copied_it_is_said_that_its_keys_are_not_known() {
    let opaque = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus/rdb/librdb/redis_ent_opcode_ram_lru.rdb");
    let program = crate::support::program::Program::new(
        "[[database]]\nname = \"it\"\nurl = \"redis://127.0.0.1:1\"\n",
    );
    let copy = program.folder().join("copy.rdb");
    let [from, to] = [&opaque, &copy].map(|path| path.to_str().unwrap());
    let words = ["restore", from, "--to-file", to];
    let planned = program.run([&words[..], &["--dry-run"]].concat()).expect(0);
    assert!(
        planned.stdout.contains("is not known"),
        "{}",
        planned.stdout
    );
    let text = program.run(words).expect(0).stdout;
    assert!(
        text.contains("a file whose keys are not known to "),
        "{text}"
    );
    assert!(text.ends_with("; read back whole\n"), "{text}");
    assert_eq!(
        std::fs::read(&copy).unwrap(),
        std::fs::read(&opaque).unwrap()
    );
}
