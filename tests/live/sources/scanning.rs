//! What is particular to a scan: duplicates, vanished keys, sizes, rates, the disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdbkeeper::source::{Error, Method, open};

use super::dumping::{block_on, by, collect, fail, loaded, take, verified};
use crate::cmd;
use crate::support::compare::{assert_same, keys};
use crate::support::data::{self, Random};
use crate::support::servers::{self, Server};

#[test]
fn a_table_that_grows_and_shrinks_under_a_scan_gives_every_old_key_once() {
    servers::each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        let stable: Vec<_> = (0..3000)
            .map(|n| cmd!["SET", format!("stable:{n}"), n])
            .collect();
        client.run_all(stable);
        // Room for ten times as many, which the server gives back bit by bit while we scan.
        client.run_all(
            (0..30_000)
                .map(|n| cmd!["SET", format!("gone:{n}"), n])
                .collect(),
        );
        let stop = AtomicBool::new(false);
        let taken = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = server.client();
                let mut random = Random::new(3);
                while !stop.load(Ordering::Relaxed) {
                    let up = random.next().is_multiple_of(2);
                    let batch = (0..2000).map(|n| match up {
                        true => cmd!["SET", format!("churn:{n}"), n],
                        false => cmd![
                            "DEL",
                            format!("churn:{n}"),
                            format!("gone:{}", random.below(30_000))
                        ],
                    });
                    let batch: Vec<_> = batch.collect();
                    client.run_all(batch);
                }
            });
            let mut request = by(Method::Scan, &server);
            request.scan.batch = 10;
            let taken = take(request);
            stop.store(true, Ordering::Relaxed);
            taken
        });
        verified(&taken.bytes);
        // A server ends itself over a key that stands twice.
        let copy = loaded(kind, &taken.bytes);
        let found = keys(&mut copy.client());
        let stable = found
            .iter()
            .filter(|key| key.starts_with(b"stable:"))
            .count();
        assert_eq!(stable, 3000, "{kind}");
    });
}

#[test]
fn keys_that_vanish_are_counted() {
    servers::each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        client.run_all(
            (0..20_000)
                .map(|n| cmd!["SET", format!("k{n}"), n])
                .collect(),
        );
        let mut request = by(Method::Scan, &server);
        request.scan.max_keys_per_second = 20_000;
        let (bytes, pumped) = block_on(async {
            let dump = open(request).await.unwrap();
            let (sender, mut receiver) = tokio::sync::mpsc::channel::<bytes::Bytes>(64);
            let pump = tokio::spawn(dump.pump(sender));
            // One of the batches in flight has been named and not yet asked for.
            let mut client = server.client();
            while !pump.is_finished() {
                client.run_all((0..200).map(|_| cmd!["EVAL", "local k = redis.call('RANDOMKEY') if k then redis.call('DEL', k) end", 0]).collect());
                tokio::task::yield_now().await;
            }
            let mut bytes = Vec::new();
            while let Some(piece) = receiver.recv().await {
                bytes.extend_from_slice(&piece);
            }
            (bytes, pump.await.unwrap().unwrap())
        });
        let summary = verified(&bytes);
        assert!(summary.keys() + pumped.vanished_keys <= 20_000);
    });
}

#[test]
fn keys_beyond_the_bound_in_memory_go_through_the_disk_and_leave_nothing_there() {
    servers::each(|kind| {
        let server = Server::start(kind);
        data::fill(&mut server.client(), kind);
        server.client().run_all(data::sessions(3000));
        let folder = tempfile::tempdir().unwrap();
        let mut request = by(Method::Scan, &server);
        request.scan.seen_in_memory = 10;
        request.scan.spill_dir = folder.path().join("spool");
        let taken = take(request);
        verified(&taken.bytes);
        assert_eq!(
            std::fs::read_dir(folder.path().join("spool"))
                .unwrap()
                .count(),
            0
        );
        let copy = loaded(kind, &taken.bytes);
        assert_same(&mut server.client(), &mut copy.client(), "through the disk");
    });
}

#[test]
fn a_spill_folder_that_cannot_be_made_is_an_error() {
    let server = Server::start(servers::usual());
    server.client().run_all(data::sessions(100));
    let mut request = by(Method::Scan, &server);
    request.scan.seen_in_memory = 10;
    request.scan.spill_dir = server.dump_file().join("no/folder");
    std::fs::write(server.dump_file(), b"").unwrap();
    assert!(matches!(fail(request), Error::Spill { .. }));
}

#[test]
fn a_value_beyond_the_bound_fails_the_scan_and_its_key_is_masked() {
    servers::each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        client.run_all(data::sessions(500));
        let key = "session:0123456789abcdef0123456789abcdef";
        client.run(cmd!["SET", key, Random::new(5).bytes(300_000)]);
        let mut request = by(Method::Scan, &server);
        request.scan.max_value = 200_000;
        let error = fail(request.clone());
        match &error {
            Error::TooLarge {
                db: 0,
                bytes: Some(bytes),
                limit: 200_000,
                ..
            } => {
                assert!(*bytes > 300_000, "{kind}");
            }
            other => panic!("{kind}: {other:?}"),
        }
        assert!(!format!("{error} {error:?}").contains("0123456789"));
        request.scan.max_value = 400_000;
        assert_eq!(verified(&take(request).bytes).keys(), 501);
    });
}

#[test]
fn large_values_come_whole_and_a_few_at_a_time() {
    servers::each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        let mut random = Random::new(9);
        for number in 0..6 {
            client.run(cmd![
                "SET",
                format!("large{number}"),
                random.bytes(12 << 20)
            ]);
        }
        client.run_all(data::sessions(300));
        for max_value in [512 << 20, 16 << 20] {
            let mut request = by(Method::Scan, &server);
            request.scan.max_value = max_value;
            let taken = take(request);
            verified(&taken.bytes);
            let copy = loaded(kind, &taken.bytes);
            assert_same(&mut server.client(), &mut copy.client(), "large values");
        }
    });
}

#[test]
fn a_rate_is_kept() {
    let server = Server::start(servers::usual());
    server.client().run_all(data::sessions(1000));
    let mut request = by(Method::Scan, &server);
    request.scan.max_keys_per_second = 1000;
    let began = Instant::now();
    assert_eq!(verified(&take(request).bytes).keys(), 1000);
    // The first batch of 50 is not waited for, nor is the time after the last.
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_scan_does_not_make_keys_look_used() {
    servers::each(|kind| {
        // CLIENT NO-TOUCH is of 7.2.
        if !kind.speaks_redis(7, 2) {
            return;
        }
        let server = Server::start(kind);
        let mut client = server.client();
        client.run(cmd!["SET", "k", "v"]);
        crate::support::poll::until("the key has been idle for a while", || {
            (client.run(cmd!["OBJECT", "IDLETIME", "k"]).int() >= 2).then_some(())
        });
        take(by(Method::Scan, &server));
        assert!(
            client.run(cmd!["OBJECT", "IDLETIME", "k"]).int() >= 2,
            "{kind}"
        );
    });
}

#[test]
fn expiries_are_absolute_on_every_server() {
    servers::each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        let at = 4_000_000_000_123i64;
        client.run(cmd!["SET", "expires", "v"]);
        client.run(cmd!["PEXPIREAT", "expires", at]);
        client.run(cmd!["SET", "stays", "v"]);
        let summary = verified(&take(by(Method::Scan, &server)).bytes);
        let db = &summary.databases()[&rdbkeeper::rdb::DbIndex(0)];
        assert_eq!((db.keys, db.expires), (2, 1));
        let found = db.min_expire_at_ms.unwrap();
        // Before 7.0 it is computed from TIME and PTTL.
        let off = if kind.speaks_redis(7, 0) { 0 } else { 1000 };
        assert!((found - at).abs() <= off, "{kind}: {found}");
    });
}

#[test]
fn an_empty_batch_setting_is_one_key_at_a_time() {
    let server = Server::start(servers::usual());
    server.client().run_all(data::sessions(50));
    let mut request = by(Method::Scan, &server);
    request.scan.batch = 0;
    let (bytes, _) = block_on(async { collect(open(request).await.unwrap()).await.unwrap() });
    assert_eq!(verified(&bytes).keys(), 50);
}
