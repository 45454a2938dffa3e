//! Targets that are not to be written to, that have no room, that die; rates, and stopping in the middle.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdbkeeper::failure::Kind;
use rdbkeeper::rdb::{DbIndex, Family, FileVersion, NewKey, Writer};
use rdbkeeper::restore::{Request, Stage};
use rdbkeeper::server::Endpoint;
use rdbkeeper::target::live::OnConflict;
use rdbkeeper::target::way::Mode;
use rdbkeeper::units::HumanCount;
use tokio_util::sync::CancellationToken;

use super::{
    Dumped, both, endpoint, endpoint_of, finish, good, plan, prepare, run, run_after, run_as,
    run_watched, sessions, wait,
};
use crate::cmd;
use crate::support::backup::PlainFile;
use crate::support::compare::Contents;
use crate::support::data;
use crate::support::servers::{self, Options, Server};

#[test]
fn replicas_and_cluster_nodes_are_refused() {
    let kind = servers::usual();
    let dumped = sessions(10);
    let master = Server::start(kind);
    let replica = Server::start(kind);
    replica.follow(&master);
    let failure = run(&dumped, &replica, Request::default()).unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    assert_eq!(failure.causes, ["nothing was written"]);
    assert!(failure.hint.unwrap().contains(&master.port().to_string()));

    let node = Server::with(kind, Options::new().config("cluster-enabled yes"));
    let failure = run(&dumped, &node, Request::default()).unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    assert!(failure.message.contains("cluster"), "{failure:?}");
    assert_eq!(failure.causes, ["nothing was written"]);
}

#[test]
fn a_target_without_room_says_so_and_how_far_it_came() {
    let kind = servers::usual();
    let dumped = sessions(20_000);
    let server = Server::start(kind);
    // The limit comes when the plan is made; before, it would refuse what can't fit.
    let (to, limit) = (endpoint(&server), cmd!["CONFIG", "SET", "maxmemory", "6mb"]);
    let failure = run_after(&dumped, to, Request::default(), || {
        server.client().run(limit);
    })
    .unwrap_err();
    assert_eq!(failure.kind, Kind::Unavailable, "{failure:?}");
    assert!(failure.hint.as_ref().unwrap().contains("maxmemory"));
    assert!(failure.causes[0].starts_with("OOM"), "{failure:?}");
    let keys = server.client().keyspace()[0].1;
    assert!(keys > 100 && keys < 20_000);
    assert!(
        failure.message.contains(&format!(
            "{} were written, {} were not",
            HumanCount(keys),
            HumanCount(20_000 - keys)
        )),
        "{failure:?}"
    );

    // With room, skip writes what is missing.
    server.client().run(cmd!["CONFIG", "SET", "maxmemory", 0]);
    let request = Request {
        on_conflict: OnConflict::Skip,
        ..Request::default()
    };
    let outcome = good(run(&dumped, &server, request));
    assert_eq!((outcome.keys, outcome.skipped), (20_000 - keys, keys));
    dumped
        .contents
        .must_equal(&Contents::of(&mut server.client()), "after the second run");
}

#[test]
fn a_value_longer_than_the_target_takes_at_once_is_named_before_anything_is_written() {
    let kind = servers::usual();
    let source = Server::start(kind);
    let noise = data::Random::new(3).bytes(2 << 20);
    source.client().run(cmd!["SET", "a large value", noise]);
    source.client().run(cmd!["SET", "small", "x"]);
    let dumped = Dumped::of(&source);
    let server = Server::with(kind, Options::new().config("proto-max-bulk-len 1mb"));
    let strict = Request {
        mode: Mode::Restore,
        ..Request::default()
    };
    let planned = good(plan(&dumped, &server, strict.clone()));
    assert_eq!(
        (planned.unheld.len(), planned.unheld[0].what),
        (1, "too-large")
    );
    assert_eq!(
        run(&dumped, &server, strict).unwrap_err().kind,
        Kind::Refused
    );
    assert!(server.client().keyspace().is_empty());
    // And where it fits it arrives, though it is larger than any batch.
    let server = Server::start(kind);
    good(run(&dumped, &server, Request::default()));
    dumped
        .contents
        .must_equal(&Contents::of(&mut server.client()), "large");
}

#[test]
fn a_value_that_the_target_refuses_is_counted_and_the_others_arrive() {
    let kind = servers::usual();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("odd.rdb");
    let version = FileVersion {
        family: Family::Redis,
        number: 10,
    };
    // All of it can be decoded; but no server takes a hash without fields.
    let mut writer = Writer::new(std::fs::File::create(&file).unwrap(), version).unwrap();
    writer.select_db(DbIndex(0)).unwrap();
    for key in ["before", "after"] {
        writer
            .key(&NewKey::new(key.as_bytes(), 0), b"\x05value")
            .unwrap();
        writer
            .key(&NewKey::new(format!("odd {key}").as_bytes(), 4), b"\x00")
            .unwrap();
    }
    writer.finish().unwrap();
    let server = Server::start(kind);
    let backup = Arc::new(PlainFile(file));
    let (_, result) = both(backup, endpoint(&server), Request::default());
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, Kind::Failed, "{failure:?}");
    assert!(
        failure
            .message
            .contains("refused 2 of the keys, 2 were written"),
        "{failure:?}"
    );
    assert!(failure.causes[0].contains("Bad data format"), "{failure:?}");
    assert!(
        !failure.message.contains("odd before"),
        "masked: {failure:?}"
    );
    assert_eq!(server.client().keyspace(), [(0, 2)]);
}

#[test]
fn a_value_of_a_module_that_the_target_lacks_is_named_before_anything_is_written() {
    let kind = servers::usual();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("module.rdb");
    let version = FileVersion {
        family: Family::Redis,
        number: 10,
    };
    let id: u64 = 0xb5eb_2dff_fadd_6c01;
    let name = rdbkeeper::rdb::ModuleId(id).name();
    let value = [&[0x81][..], &id.to_be_bytes(), &[0]].concat();
    let mut writer = Writer::new(std::fs::File::create(&file).unwrap(), version).unwrap();
    writer.select_db(DbIndex(0)).unwrap();
    writer.key(&NewKey::new(b"plain", 0), b"\x05value").unwrap();
    for key in [b"first ", b"second"] {
        writer.key(&NewKey::new(key, 7), &value).unwrap();
    }
    writer.finish().unwrap();
    // Who may not ask for modules is told by the server, as before.
    for (rights, asked) in [("+@all", true), ("+@all -module", false)] {
        let rule = format!("keeper on >pw ~* {rights}");
        let server = Server::with(kind, Options::new().user(&rule));
        let backup = Arc::new(PlainFile(file.clone()));
        let (plan, result) = both(backup, endpoint_of(&server, "keeper"), Request::default());
        let failure = result.unwrap_err();
        if !asked {
            assert_eq!((plan.unheld.len(), failure.kind), (0, Kind::Failed));
            continue;
        }
        assert_eq!((plan.unheld.len(), plan.unheld[0].what), (1, "module"));
        assert_eq!(plan.unheld[0].module.as_deref(), Some(name.as_str()));
        assert_eq!(plan.unheld[0].keys, 2);
        assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
        assert!(failure.causes[0].contains(&name), "{failure:?}");
        assert!(server.client().keyspace().is_empty());
    }
}

#[test]
fn a_user_without_the_right_is_told_so() {
    let kind = servers::usual();
    let dumped = sessions(100);
    let server = Server::with(kind, Options::new().user("keeper on >pw +@all ~none:*"));
    let to = endpoint_of(&server, "keeper");
    let failure = run_as(&dumped, to, Request::default()).unwrap_err();
    assert_eq!(failure.kind, Kind::Forbidden, "{failure:?}");
    assert!(failure.message.contains("forbids RESTORE"), "{failure:?}");
    assert!(failure.hint.unwrap().contains("+restore"));
}

#[test]
fn a_user_with_the_smallest_rights_can_restore() {
    let kind = servers::usual();
    let dumped = sessions(100);
    let rights = "keeper on >pw ~* +info +select +restore +exists +ping";
    let server = Server::with(kind, Options::new().user(rights));
    server.client().run(cmd!["SET", "mine", "v"]);
    let to = endpoint_of(&server, "keeper");
    let outcome = good(run_as(&dumped, to, Request::default()));
    assert_eq!(outcome.keys, 100);
}

#[test]
fn a_target_that_dies_is_an_error_with_what_was_written_for_certain() {
    let dumped = sessions(20_000);
    let server = std::sync::Mutex::new(Server::start(servers::usual()));
    let endpoint = endpoint(&server.lock().unwrap());
    let failure = wait(async {
        let request = Request {
            rate: 4000,
            ..Request::default()
        };
        let running = finish(good(prepare(dumped.backup(), endpoint, request).await));
        let killing = tokio::task::spawn_blocking(move || {
            crate::support::poll::until("some keys are there", || {
                let mut server = server.lock().unwrap();
                let keys = server
                    .client()
                    .keyspace()
                    .first()
                    .map_or(0, |found| found.1);
                (keys > 1000).then(|| server.kill())
            });
        });
        let result = running.await;
        killing.await.unwrap();
        result
    })
    .unwrap_err();
    assert_eq!(failure.kind, Kind::Unreachable, "{failure:?}");
    assert!(
        failure.message.contains("were written for certain"),
        "{failure:?}"
    );
    assert!(failure.hint.unwrap().contains("--on-conflict"));
}

/// A way to a server that breaks at the first RESTORE, once it is armed.
fn breaking(to: u16, armed: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, armed) = (client.unwrap(), Arc::clone(&armed));
            let mut server = TcpStream::connect(("127.0.0.1", to)).unwrap();
            let (mut answers, mut back) =
                (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
            std::thread::spawn(move || {
                let mut block = [0; 4096];
                while let Ok(count @ 1..) = client.read(&mut block) {
                    let breaks = block[..count].windows(7).any(|word| word == b"RESTORE");
                    if breaks && armed.load(Ordering::Relaxed) {
                        break;
                    }
                    server.write_all(&block[..count]).unwrap();
                }
                let _ = server.shutdown(Shutdown::Both);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

#[test]
fn a_connection_that_is_lost_in_the_first_batch_is_told_as_one_that_was_lost_while_writing() {
    let dumped = sessions(10);
    let server = Server::start(servers::usual());
    let armed = Arc::new(AtomicBool::new(false));
    let port = breaking(server.port(), Arc::clone(&armed));
    let to = Endpoint::new(format!("redis://127.0.0.1:{port}").parse().unwrap());
    let failure = run_after(&dumped, to, Request::default(), || {
        armed.store(true, Ordering::Relaxed);
    })
    .unwrap_err();
    assert_eq!(failure.kind, Kind::Unreachable, "{failure:?}");
    let told =
        format!("the connection to 127.0.0.1:{port} was lost; 0 keys were written for certain");
    assert_eq!(failure.message, told);
    assert!(failure.hint.unwrap().contains("--on-conflict replace"));
}

#[test]
fn a_stop_in_the_middle_says_how_far_it_came() {
    let dumped = sessions(20_000);
    let server = Server::start(servers::usual());
    let token = CancellationToken::new();
    let stop = token.clone();
    let request = Request {
        rate: 40_000,
        ..Request::default()
    };
    let begun = Instant::now();
    let failure = run_watched(
        &dumped,
        endpoint(&server),
        request,
        token,
        move |progress| {
            if progress.stage == Stage::Writing && progress.keys >= 2048 {
                stop.cancel();
            }
        },
    )
    .unwrap_err();
    assert_eq!(failure.kind, Kind::Interrupted, "{failure:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    let keys = server.client().keyspace()[0].1;
    assert!((2048..20_000).contains(&keys), "{keys}");
    assert!(
        failure
            .message
            .contains(&format!("{} keys were written", HumanCount(keys))),
        "{keys}: {failure:?}"
    );
}

#[test]
fn a_stop_while_the_target_stalls_ends_all_the_same() {
    use rustix::process::Signal;
    let dumped = sessions(20_000);
    let server = Server::start(servers::usual());
    let token = CancellationToken::new();
    let stop = token.clone();
    let pid = rustix::process::Pid::from_raw(i32::try_from(server.pid()).unwrap()).unwrap();
    let request = Request {
        rate: 40_000,
        ..Request::default()
    };
    let begun = Instant::now();
    let failure = run_watched(
        &dumped,
        endpoint(&server),
        request,
        token,
        move |progress| {
            if progress.stage == Stage::Writing && !stop.is_cancelled() {
                rustix::process::kill_process(pid, Signal::STOP).unwrap();
                stop.cancel();
            }
        },
    )
    .unwrap_err();
    assert_eq!(failure.kind, Kind::Interrupted, "{failure:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    server.signal(Signal::CONT);
}

#[test]
fn huge_values_arrive_one_after_the_other() {
    let kind = servers::usual();
    let source = Server::start(kind);
    let mut client = source.client();
    let noise = data::Random::new(9).bytes(20 << 20);
    for number in 0..3 {
        client.run(cmd!["SET", format!("huge:{number}"), &noise]);
        client.run(cmd!["SET", format!("large:{number}"), &noise[..1 << 20]]);
        client.run(cmd!["SET", format!("small:{number}"), number]);
    }
    let dumped = Dumped::of(&source);
    drop(source);
    let server = Server::start(kind);
    assert_eq!(good(run(&dumped, &server, Request::default())).keys, 9);
    dumped
        .contents
        .must_equal(&Contents::of(&mut server.client()), "huge values");
}

#[test]
fn a_rate_is_kept() {
    let dumped = sessions(3000);
    let server = Server::start(servers::usual());
    let request = Request {
        rate: 2000,
        ..Request::default()
    };
    let begun = Instant::now();
    good(run(&dumped, &server, request));
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1300), "{took:?}");
}

#[test]
fn every_way_to_a_server_works() {
    let kind = servers::usual();
    let dumped = sessions(2000);
    let mut options = Options::new().unix_socket().password("pw");
    if kind.tls {
        options = options.tls();
    }
    let server = Server::with(kind, options);
    let mut urls = vec![server.unix_url(), server.url()];
    if kind.tls {
        urls.push(server.tls_url());
    }
    for url in urls {
        let mut endpoint = rdbkeeper::server::Endpoint::new(url.parse().unwrap());
        endpoint.password = Some(rdbkeeper::server::Secret::new("pw"));
        if url.starts_with("rediss") {
            endpoint.tls.ca_file = Some(server.certificates().ca.clone());
        }
        let request = Request {
            flush: true,
            ..Request::default()
        };
        good(run_as(&dumped, endpoint, request));
        dumped
            .contents
            .must_equal(&Contents::of(&mut server.client()), &url);
    }
}

#[test]
fn function_libraries_that_inflate_to_gigabytes_are_refused_and_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bomb.rdb");
    // 1 MiB of one letter: the letter, then references one byte back of 264 bytes each.
    let repeats = (1 << 20) / 264;
    let mut packed = vec![0, b'x'];
    packed.extend([0xe0, 255, 0].repeat(repeats));
    let plain = u32::try_from(1 + repeats * 264).unwrap();
    let mut code = vec![0xc3, 0x80];
    code.extend(u32::try_from(packed.len()).unwrap().to_be_bytes());
    code.push(0x80);
    code.extend(plain.to_be_bytes());
    code.extend(&packed);
    let write = |count: usize| {
        let mut bytes = b"REDIS0010".to_vec();
        for _ in 0..count {
            bytes.push(245);
            bytes.extend(&code);
        }
        bytes.push(255);
        let sum = rdbkeeper::rdb::crc64::crc64(&bytes);
        bytes.extend(sum.to_le_bytes());
        std::fs::write(&file, bytes).unwrap();
    };
    let server = Server::start(servers::usual());
    for (count, refused) in [(60, false), (1500, true)] {
        write(count);
        let backup = Arc::new(PlainFile(file.clone()));
        let planned = wait(prepare(backup, endpoint(&server), Request::default()));
        match refused {
            false => assert_eq!(good(planned).plan().functions.len(), count),
            true => {
                let failure = planned.unwrap_err();
                assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
                assert!(failure.message.contains("function libraries"));
            }
        }
    }
}
