//! A stale or foreign file is never taken for a fresh one.

use std::time::Duration;

use rdbkeeper::source::{Choice, Error, Method, Request, open};

use super::dumping::{block_on, by, collect, endpoint, fail, take, try_take, verified};
use crate::cmd;
use crate::support::data;
use crate::support::poll::until;
use crate::support::servers::{self, Options, Server};

/// Makes each save take about this long.
fn slow_saves(server: &Server, keys: usize) {
    let mut client = server.client();
    client.run_all(data::sessions(keys));
    // Microseconds for each key; 20 ms a thousand keys.
    client.run(cmd!["CONFIG", "SET", "rdb-key-save-delay", 1000]);
}

#[test]
fn a_save_that_fails_is_an_error_and_the_old_file_is_not_taken() {
    servers::each(|kind| {
        let server = Server::with(kind, Options::new().config("save 3600 1"));
        let mut client = server.client();
        client.run(cmd!["SET", "k", "v"]);
        server.save();
        client.run(cmd!["SET", "k2", "v"]);
        // Its file can't be replaced by a rename over a folder that is not empty.
        let name = server.dump_file();
        let kept = server.folder().join("kept.rdb");
        std::fs::rename(&name, &kept).unwrap();
        std::fs::create_dir_all(name.join("full")).unwrap();
        let mut request = by(Method::Bgsave, &server);
        request.rdb_path = Some(kept);
        let error = fail(request.clone());
        assert!(matches!(error, Error::SaveFailed { .. }), "{kind}");
        // Now the server is in MISCONF, and knows it.
        let reply = client.attempt(cmd!["SET", "x", "y"]).unwrap();
        assert!(
            reply
                .error()
                .is_some_and(|text| text.starts_with("MISCONF"))
        );
        let plan = block_on(rdbkeeper::source::plan(&request)).unwrap();
        assert!(!plan.methods[0].works());
        // Once the cause is gone the next save is good.
        std::fs::remove_dir_all(&name).unwrap();
        assert_eq!(verified(&take(by(Method::Bgsave, &server)).bytes).keys(), 2);
    });
}

#[test]
fn auto_goes_on_without_a_server_that_cannot_save_and_says_so() {
    servers::each(|kind| {
        for diskless in ["yes", "no"] {
            let server = Server::with(
                kind,
                Options::new()
                    .config("save 3600 1000000")
                    .config(format!("repl-diskless-sync {diskless}"))
                    .config("repl-diskless-sync-delay 0"),
            );
            let mut client = server.client();
            client.run(cmd!["SET", "k", "v"]);
            // Its file can't be renamed over a folder that is not empty.
            std::fs::create_dir_all(server.dump_file().join("full")).unwrap();
            let request = Request::new(endpoint(&server.url()));
            // The first finds out by trying, the second knows.
            for why in ["failed to save its data set", "could not save"] {
                let begun = saves_begun(&server);
                let taken = take(request.clone());
                let what = format!("{kind} diskless {diskless}: {:?}", taken.reasons);
                // From disk means another save, which fails too.
                let expected = match diskless {
                    "yes" => Method::Replication,
                    _ => Method::Scan,
                };
                assert_eq!(taken.method, expected, "{what}");
                assert_eq!(verified(&taken.bytes).keys(), 1);
                assert!(taken.reasons[0].starts_with("not bgsave: "), "{what}");
                assert!(taken.reasons[0].contains(why), "{what}");
                assert_eq!(taken.warnings.len(), 1, "{:?}", taken.warnings);
                assert!(
                    taken.warnings[0].contains("cannot save"),
                    "{:?}",
                    taken.warnings
                );
                if why == "could not save" && diskless == "yes" {
                    assert_eq!(saves_begun(&server), begun, "{what}");
                }
            }
            let error = fail(by(Method::Bgsave, &server));
            assert!(matches!(error, Error::SaveFailed { .. }), "{error:?}");
            // Once a save succeeds, it is bgsave again.
            std::fs::remove_dir_all(server.dump_file()).unwrap();
            server.save();
            let taken = take(request);
            assert_eq!(taken.method, Method::Bgsave, "{kind} {:?}", taken.reasons);
            assert!(taken.warnings.is_empty(), "{:?}", taken.warnings);
        }
    });
}

/// How many saves to its own file a server has begun.
fn saves_begun(server: &Server) -> usize {
    server.log().matches("Background saving started").count()
}

#[test]
fn auto_leaves_a_file_that_is_not_to_be_seen_from_here() {
    servers::each(|kind| {
        let server = Server::start(kind);
        server.client().run(cmd!["SET", "k", "v"]);
        // As a container's `/data` is for its host: no such folder, or no folder, or worse.
        let missing = server.folder().join("missing");
        let file = server.folder().join("file");
        std::fs::write(&file, "not a folder").unwrap();
        let circle = server.folder().join("circle");
        std::os::unix::fs::symlink(&circle, &circle).unwrap();
        for folder in [missing, file, circle] {
            let mut request = Request::new(endpoint(&server.url()));
            request.rdb_path = Some(folder.join("dump.rdb"));
            let taken = take(request.clone());
            assert_eq!(taken.method, Method::Replication, "{kind}");
            assert_eq!(verified(&taken.bytes).keys(), 1);
            let reason = &taken.reasons[0];
            assert!(
                reason.starts_with("not bgsave: ")
                    && reason.contains("/dump.rdb cannot be seen from here"),
                "{reason}"
            );
            let plan = block_on(rdbkeeper::source::plan(&request)).unwrap();
            assert_eq!(plan.chosen, Some(Method::Replication));
            // By itself it is an error that says what to do.
            request.choice = Choice::Only(Method::Bgsave);
            let error = fail(request);
            assert!(matches!(error, Error::FileUnseen { .. }), "{error:?}");
            let hint = rdbkeeper::failure::Failure::from(error).hint.unwrap();
            assert!(hint.contains("rdb_path"), "{hint}");
        }
    });
}

#[test]
fn a_running_save_is_waited_for_and_not_taken() {
    servers::each(|kind| {
        let server = Server::start(kind);
        slow_saves(&server, 300);
        let mut client = server.client();
        client.run(cmd!["BGSAVE"]);
        // Not in the save that runs.
        client.run(cmd!["SET", "late", "key"]);
        assert_eq!(client.info("rdb_bgsave_in_progress").unwrap(), "1");
        let taken = take(by(Method::Bgsave, &server));
        assert_eq!(verified(&taken.bytes).keys(), 301, "{kind}");
    });
}

#[test]
fn twice_in_a_second_are_two_saves() {
    servers::each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        for keys in 1..=4 {
            client.run(cmd!["SET", format!("k{keys}"), "v"]);
            let taken = take(by(Method::Bgsave, &server));
            assert_eq!(verified(&taken.bytes).keys(), keys, "{kind}");
        }
    });
}

#[test]
fn several_at_once_are_each_fresh() {
    servers::each(|kind| {
        let server = Server::start(kind);
        slow_saves(&server, 100);
        let all = block_on(async {
            let tasks: Vec<_> = (0..3)
                .map(|_| tokio::spawn(try_take(by(Method::Bgsave, &server))))
                .collect();
            let mut all = Vec::new();
            for task in tasks {
                all.push(task.await.unwrap().unwrap());
            }
            all
        });
        for taken in all {
            assert_eq!(verified(&taken.bytes).keys(), 100, "{kind}");
        }
    });
}

#[test]
fn a_save_is_scheduled_behind_an_aof_rewrite() {
    servers::each(|kind| {
        let server = Server::with(
            kind,
            Options::new()
                .config("appendonly yes")
                .config("aof-use-rdb-preamble yes"),
        );
        slow_saves(&server, 300);
        let mut client = server.client();
        until("no rewrite runs", || {
            (client.info("aof_rewrite_in_progress")? == "0").then_some(())
        });
        client.run(cmd!["BGREWRITEAOF"]);
        until("a rewrite runs", || {
            (client.info("aof_rewrite_in_progress")? == "1").then_some(())
        });
        client.run(cmd!["SET", "late", "key"]);
        let taken = take(by(Method::Bgsave, &server));
        assert_eq!(verified(&taken.bytes).keys(), 301, "{kind}");
    });
}

#[test]
fn a_file_that_is_replaced_while_it_is_read_is_still_the_one_that_was_opened() {
    servers::each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        client.run_all(data::sessions(5000));
        let request = by(Method::Bgsave, &server);
        let (bytes, _) = block_on(async {
            let dump = open(request).await.unwrap();
            client.run(cmd!["FLUSHALL"]);
            server.save();
            std::fs::write(server.dump_file(), b"another file").unwrap();
            collect(dump).await.unwrap()
        });
        assert_eq!(verified(&bytes).keys(), 5000, "{kind}");
    });
}

#[test]
fn a_file_that_is_cut_while_it_is_read_is_an_error() {
    let server = Server::start(servers::usual());
    server.client().run_all(data::sessions(5000));
    let error = block_on(async {
        let dump = open(by(Method::Bgsave, &server)).await.unwrap();
        let file = std::fs::File::options()
            .write(true)
            .open(server.dump_file())
            .unwrap();
        file.set_len(1000).unwrap();
        collect(dump).await.unwrap_err()
    });
    assert!(
        matches!(error, Error::FileCut { got: 1000, .. }),
        "{error:?}"
    );
}

#[test]
fn another_servers_file_at_the_path_is_not_taken() {
    servers::each(|kind| {
        let (ours, other) = (Server::start(kind), Server::start(kind));
        ours.client().run(cmd!["SET", "ours", "1"]);
        other.client().run(cmd!["SET", "theirs", "1"]);
        let mut request = by(Method::Bgsave, &ours);
        request.rdb_path = Some(other.dump_file());
        // There is none yet.
        assert!(
            matches!(fail(request.clone()), Error::NotOurs { .. }),
            "{kind}"
        );
        // An old one, which stays the same.
        other.save();
        assert!(
            matches!(fail(request.clone()), Error::NotOurs { .. }),
            "{kind}"
        );
        // One that was made a while ago, and is moved there while we wait: another inode, a right mtime.
        slow_saves(&ours, 200);
        let old = other.folder().join("old.rdb");
        std::fs::copy(other.dump_file(), &old).unwrap();
        let saved = other.client().run(cmd!["LASTSAVE"]).int();
        until("a file's time, in seconds, has passed", || {
            // And a tenth more: clocks that count in seconds lag behind.
            let now = ours.client().run(cmd!["TIME"]);
            let part = |at: usize| now.array()[at].text().parse::<i64>().unwrap();
            (part(0) * 10 + part(1) / 100_000 > saved * 10 + 10).then_some(())
        });
        let error = block_on(async {
            let task = tokio::spawn(try_take(request.clone()));
            let mut client = ours.client();
            until("our save runs", || {
                (client.info("rdb_bgsave_in_progress")? == "1").then_some(())
            });
            std::fs::rename(&old, other.dump_file()).unwrap();
            task.await.unwrap()
        });
        match error {
            Err(Error::NotOurs { .. }) => {}
            Ok(taken) => panic!("{kind}: {} bytes of another server", taken.bytes.len()),
            Err(error) => panic!("{error:?}"),
        }
        // Auto leaves the file alone and goes on.
        request.choice = Choice::Auto;
        ours.client()
            .run(cmd!["CONFIG", "SET", "rdb-key-save-delay", 0]);
        let taken = take(request);
        assert_eq!(taken.method, Method::Replication);
        assert_eq!(verified(&taken.bytes).keys(), 201);
    });
}

#[test]
fn another_server_that_saves_to_the_path_while_ours_saves_is_found_out() {
    let (ours, other) = (
        Server::start(servers::usual()),
        Server::start(servers::usual()),
    );
    slow_saves(&ours, 6000);
    let mut request = by(Method::Bgsave, &ours);
    request.rdb_path = Some(other.dump_file());
    let result = block_on(async {
        let task = tokio::spawn(try_take(request));
        let mut client = ours.client();
        until("our save has run for a while", || {
            let seconds = client.info("rdb_current_bgsave_time_sec")?;
            (seconds.parse::<i64>().unwrap() >= 5).then_some(())
        });
        other.save();
        task.await.unwrap()
    });
    assert!(
        matches!(result, Err(Error::NotOurs { .. })),
        "{:?}",
        result.err()
    );
}

#[test]
fn a_file_that_is_no_rdb_file_is_not_taken() {
    let server = Server::start(servers::usual());
    let mut client = server.client();
    slow_saves(&server, 300);
    let elsewhere = server.folder().join("elsewhere.rdb");
    for content in [
        &b""[..],
        b"no RDB file at all, but long enough",
        b"REDIS0010",
    ] {
        let mut request = by(Method::Bgsave, &server);
        request.rdb_path = Some(elsewhere.clone());
        let _ = std::fs::remove_file(&elsewhere);
        let error = block_on(async {
            let task = tokio::spawn(try_take(request));
            until("a save runs", || {
                (client.info("rdb_bgsave_in_progress")? == "1").then_some(())
            });
            std::fs::write(&elsewhere, content).unwrap();
            task.await.unwrap()
        });
        assert!(
            matches!(error, Err(Error::NotOurs { .. })),
            "{:?}",
            error.err()
        );
    }
}

#[test]
fn rdb_path_says_where_the_file_is_seen() {
    let server = Server::start(servers::usual());
    server.client().run(cmd!["SET", "k", "v"]);
    let link = server.folder().join("mounted");
    std::os::unix::fs::symlink(server.folder(), &link).unwrap();
    let mut request = Request::new(endpoint(&server.url()));
    request.rdb_path = Some(link.join("dump.rdb"));
    let taken = take(request);
    assert_eq!(taken.method, Method::Bgsave);
    assert_eq!(verified(&taken.bytes).keys(), 1);
}

#[test]
fn a_server_that_is_restarted_while_it_saves_is_an_error() {
    let mut server = Server::start(servers::usual());
    server.client().run(cmd!["SET", "k", "v"]);
    server.save();
    slow_saves(&server, 2000);
    let request = by(Method::Bgsave, &server);
    let result = block_on(async {
        let task = tokio::spawn(try_take(request));
        let mut client = server.client();
        until("our save runs", || {
            (client.info("rdb_bgsave_in_progress")? == "1").then_some(())
        });
        server.restart();
        tokio::time::timeout(Duration::from_secs(30), task)
            .await
            .unwrap()
            .unwrap()
    });
    assert!(
        matches!(result, Err(Error::Restarted { .. } | Error::Server { .. })),
        "{:?}",
        result.err()
    );
}
