//! A source that dies, stalls or restarts in the middle is an error, never a short dump.

use std::time::Duration;

use bytes::Bytes;
use rdbkeeper::source::{Choice, Error, Method, Request, open};
use rustix::process::Signal;

use super::dumping::{block_on, by, endpoint, fail};
use crate::cmd;
use crate::support::data::{self, Random};
use crate::support::servers::{self, Options, Server};

/// More than socket buffers hold.
fn big(kind: &servers::Kind, options: Options) -> Server {
    let server = Server::with(kind, options);
    let mut client = server.client();
    let mut random = Random::new(7);
    for number in 0..40 {
        client.run(cmd!["SET", format!("big{number}"), random.bytes(1 << 20)]);
    }
    server
}

/// Lets some bytes flow, then does `harm`, and reads on to the end.
async fn interrupted(request: Request, harm: impl FnOnce()) -> (u64, Result<u64, Error>) {
    let dump = open(request).await.unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let pump = tokio::spawn(dump.pump(sender));
    let mut bytes = 0;
    while bytes < 1 << 20 {
        bytes += receiver.recv().await.unwrap().len() as u64;
    }
    harm();
    while let Some(piece) = receiver.recv().await {
        bytes += piece.len() as u64;
    }
    let result = pump.await.unwrap();
    (bytes, result.map(|pumped| pumped.bytes))
}

#[test]
fn a_server_that_is_killed_in_mid_transfer_is_an_error() {
    servers::each(|kind| {
        for (method, diskless) in [
            (Method::Replication, "yes"),
            (Method::Replication, "no"),
            (Method::Scan, "no"),
        ] {
            let mut server = big(
                kind,
                Options::new().config(format!("repl-diskless-sync {diskless}")),
            );
            let request = by(method, &server);
            let (bytes, result) = block_on(interrupted(request, || server.kill()));
            match result {
                Err(Error::Died { received, .. }) => assert!(received <= 42 << 20),
                other => panic!("{kind} {method} diskless {diskless}: {bytes} bytes, {other:?}"),
            }
        }
    });
}

#[test]
fn a_file_that_is_open_outlives_its_server() {
    let mut server = big(servers::usual(), Options::new());
    let request = by(Method::Bgsave, &server);
    let (bytes, result) = block_on(interrupted(request, || server.kill()));
    assert_eq!(result.unwrap(), bytes);
}

#[test]
fn a_server_that_stalls_is_given_up_after_the_idle_time() {
    for method in [Method::Replication, Method::Scan] {
        // From disk: a diskless child would go on without its stopped parent's knowledge.
        let server = big(
            servers::usual(),
            Options::new().config("repl-diskless-sync no"),
        );
        let mut request = by(method, &server);
        request.endpoint.idle_timeout = Duration::from_secs(4);
        let (_, result) = block_on(interrupted(request, || server.signal(Signal::STOP)));
        server.signal(Signal::CONT);
        match result {
            Err(Error::Died { source, .. }) => {
                assert!(
                    matches!(*source, rdbkeeper::server::Error::Idle(_)),
                    "{source:?}"
                );
            }
            other => panic!("{method}: {other:?}"),
        }
    }
}

#[test]
fn a_transfer_that_the_master_cuts_off_is_an_error() {
    servers::each(|kind| {
        let server = big(kind, Options::new().config("repl-diskless-sync no"));
        let request = by(Method::Replication, &server);
        let (_, result) = block_on(interrupted(request, || {
            // As an output buffer limit or an administrator would.
            let reply = server.client().run(cmd!["CLIENT", "KILL", "TYPE", "slave"]);
            assert_eq!(reply.int(), 1);
        }));
        assert!(
            matches!(result, Err(Error::Died { .. })),
            "{kind}: {result:?}"
        );
    });
}

#[test]
fn a_fork_that_is_killed_is_an_error_for_whoever_waits_for_it() {
    let server = Server::with(
        servers::usual(),
        Options::new().config("repl-diskless-sync no"),
    );
    let mut client = server.client();
    client.run_all(data::sessions(3000));
    client.run(cmd!["CONFIG", "SET", "rdb-key-save-delay", 1000]);
    for method in [Method::Bgsave, Method::Replication] {
        let mut request = Request::new(endpoint(&server.url()));
        request.choice = Choice::Only(method);
        let error = block_on(async {
            let task = tokio::spawn(open(request));
            crate::support::poll::until("the fork works", || {
                (client.info("rdb_bgsave_in_progress")? == "1").then_some(())
            });
            kill_children(server.pid());
            task.await.unwrap().err()
        });
        match (method, error) {
            (Method::Bgsave, Some(Error::SaveFailed { .. })) => {}
            (_, Some(Error::SaveFailed { .. } | Error::Died { .. })) => {}
            (_, other) => panic!("{method}: {other:?}"),
        }
    }
}

fn kill_children(parent: u32) {
    for entry in std::fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // pid (name) state ppid
        let after = stat.rsplit(')').next().unwrap();
        let ppid: u32 = after.split_whitespace().nth(1).unwrap().parse().unwrap();
        if ppid == parent {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, Signal::KILL).unwrap();
        }
    }
}

#[test]
fn a_dump_that_is_stopped_ends_at_once() {
    for method in Method::ALL {
        let server = big(servers::usual(), Options::new());
        let request = by(method, &server);
        let cancel = request.cancel.clone();
        let (_, result) = block_on(interrupted(request, || cancel.cancel()));
        assert!(
            matches!(result, Err(Error::Cancelled)),
            "{method}: {result:?}"
        );
        let request = by(method, &server);
        request.cancel.cancel();
        assert!(matches!(fail(request), Error::Cancelled));
    }
}

#[test]
fn a_dump_that_nobody_takes_ends() {
    for method in Method::ALL {
        let server = big(servers::usual(), Options::new());
        let result = block_on(async {
            let dump = open(by(method, &server)).await.unwrap();
            let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
            let pump = tokio::spawn(dump.pump(sender));
            drop(receiver);
            pump.await.unwrap()
        });
        assert!(
            matches!(result, Err(Error::ReceiverGone)),
            "{method}: {result:?}"
        );
    }
}

#[test]
fn a_dump_whose_pump_is_dropped_ends_for_whoever_takes_its_bytes() {
    for method in Method::ALL {
        let server = big(servers::usual(), Options::new());
        for taken_on in [true, false] {
            let request = by(method, &server);
            block_on(async {
                let dump = open(request).await.unwrap();
                let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
                let watched = sender.downgrade();
                let pump = tokio::spawn(dump.pump(sender));
                let mut bytes = receiver.recv().await.unwrap().len();
                // As a limit on the time of a backup does.
                pump.abort();
                assert!(pump.await.unwrap_err().is_cancelled());
                if taken_on {
                    while let Some(piece) = receiver.recv().await {
                        bytes += piece.len();
                    }
                    assert!(bytes < 8 << 20, "{method}: {bytes} bytes came");
                }
                // Whoever sends is gone, though nobody may take anything any more.
                crate::support::poll::until("the sender is gone", || {
                    (watched.strong_count() == 0).then_some(())
                });
            });
        }
    }
}
