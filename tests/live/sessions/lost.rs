//! Connections that are lost in mid-sweep, and servers that are restarted.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rdbkeeper::selection::KeyNames;
use rdbkeeper::server::Endpoint;
use rdbkeeper::sessions::sweep::{Job, Mode, Swept};
use rdbkeeper::sessions::{Observer, Outcome, Report, Tally};
use rdbkeeper::stage;

use super::{
    Listener, as_user, each_way, job, now_s, pyramid_key, pyramid_value, rules, run_with, swept,
    ttl,
};
use crate::cmd;
use crate::support::client::Client;
use crate::support::poll::until;
use crate::support::servers::{self, Options, Server};

#[test]
fn a_connection_that_is_lost_is_made_again_and_no_key_is_left_out_or_told_twice() {
    servers::each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        client.run_all(
            (0..1000)
                .map(|n| cmd!["SET", format!("o:{n}"), "a"])
                .collect(),
        );
        let name = format!("lost-{}", server.port());
        let (port, times) = (server.port(), Arc::new(AtomicUsize::new(0)));
        stage::at(&format!("sweep-decided:{name}"), move || {
            if [2, 5].contains(&times.fetch_add(1, Ordering::SeqCst)) {
                let mut client = Client::tcp(port).unwrap();
                client.run(cmd!["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            }
        });
        let mut job = job(&server, rules(), Mode::Expire);
        job.name = name;
        let (swept, told) = swept(job);
        assert_eq!((swept.reconnects, swept.restarts), (2, 0));
        let [warning] = swept.warnings.as_slice() else {
            panic!("{:?}", swept.warnings);
        };
        assert!(warning.contains("2 times"), "{warning}");
        let mut client = server.client();
        for n in 0..1000 {
            let key = format!("o:{n}");
            assert!(told.came_of(&key).1 == Outcome::Done, "{key}");
            assert!(ttl(&mut client, &key) > 0);
        }
    });
}

/// A way to a server on which one answer is lost: that to the first message that has `word` in it. The connection
/// breaks when `acted` says that the server has done what the message asks for. Returns the port.
fn losing(server: u16, word: &'static str, acted: impl Fn() -> bool + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut acted = Some(acted);
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut server = TcpStream::connect(("127.0.0.1", server)).unwrap();
            let seen = Arc::new(AtomicBool::new(false));
            let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let silent = Arc::clone(&seen);
            let answers = std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(read @ 1..) = from.read(&mut buffer) {
                    if !silent.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
            });
            let mut buffer = vec![0; 1 << 16];
            while let Ok(read @ 1..) = client.read(&mut buffer) {
                let mut bytes = buffer[..read].windows(word.len());
                let found = acted.is_some() && bytes.any(|part| part == word.as_bytes());
                seen.fetch_or(found, Ordering::SeqCst);
                if server.write_all(&buffer[..read]).is_err() {
                    break;
                }
                if let (true, Some(acted)) = (found, acted.take_if(|_| found)) {
                    until("the server has acted", || acted().then_some(()));
                    break;
                }
            }
            let _ = server.shutdown(Shutdown::Both);
            let _ = client.shutdown(Shutdown::Both);
            answers.join().unwrap();
        }
    });
    port
}

#[test]
fn what_was_done_when_its_answer_was_lost_is_told_as_done() {
    each_way(|server, user| {
        let mut client = server.client();
        let (old, now) = (now_s() - 40 * 86_400, now_s());
        client.run(cmd!["SET", pyramid_key(1), pyramid_value(old, 3600, 5)]);
        client.run(cmd!["SET", pyramid_key(2), pyramid_value(now, 3600, 5)]);
        let value = pyramid_value(now, 3600, 5);
        client.run(cmd!["SET", pyramid_key(3), value, "EX", 9000]);
        client.run(cmd!["SET", pyramid_key(4), "no pickle"]);
        // The beginning of the script, and the end of a transaction.
        let word = match user {
            "scripts" => "-- Acts on keys in one step",
            _ => "\r\nEXEC\r\n",
        };
        let at = server.port();
        let port = losing(at, word, move || {
            let mut client = Client::tcp(at).unwrap();
            ttl(&mut client, pyramid_key(1)) == -2
                && ttl(&mut client, pyramid_key(2)) > 0
                && ttl(&mut client, pyramid_key(3)) <= 3600
        });
        let url = format!("redis://127.0.0.1:{port}");
        let lossy = Job {
            endpoint: Endpoint::new(url.parse().unwrap()),
            ..job(server, rules(), Mode::Expire)
        };
        let (swept, told) = swept(as_user(lossy, user));
        assert_eq!((swept.reconnects, swept.restarts), (1, 0));
        let warned = |text: &String| text.contains("the connection was lost");
        assert!(swept.warnings.iter().any(warned), "{:?}", swept.warnings);
        let done = |reason| (reason, Outcome::Done);
        assert_eq!(told.came_of(pyramid_key(1)), done("too-old"));
        assert_eq!(told.came_of(pyramid_key(2)), done("no-ttl"));
        assert_eq!(told.came_of(pyramid_key(3)), done("ttl-too-long"));
        assert_eq!(told.came_of(pyramid_key(4)).1, Outcome::Nothing);
    });
}

/// Sweeps a server of a thousand keys that is restarted when two batches are done.
fn restarted(server: &mut Server, mode: Mode, observer: &mut dyn Observer) -> Swept {
    let mut client = server.client();
    client.run(cmd!["FLUSHALL"]);
    client.run_all(
        (0..1000)
            .map(|n| cmd!["SET", format!("o:{n}"), "a"])
            .collect(),
    );
    drop(client);
    let name = format!("restart-{}-{mode:?}", server.port());
    let (asks, asked) = std::sync::mpsc::sync_channel::<()>(0);
    let (ready, is_ready) = std::sync::mpsc::sync_channel::<()>(0);
    let hooks = std::sync::Mutex::new((asks, is_ready, 0));
    stage::at(&format!("sweep-decided:{name}"), move || {
        let mut hooks = hooks.lock().unwrap();
        hooks.2 += 1;
        if hooks.2 == 3 {
            hooks.0.send(()).unwrap();
            hooks.1.recv().unwrap();
        }
    });
    let mut job = job(server, rules(), mode);
    job.name = name;
    let swept = std::thread::scope(|scope| {
        let sweeping = scope.spawn(|| run_with(job, observer));
        asked.recv().unwrap();
        server.restart();
        ready.send(()).unwrap();
        sweeping.join().unwrap().unwrap()
    });
    assert_eq!((swept.reconnects, swept.restarts), (1, 1));
    assert!(swept.scanned > 1000);
    let told = |text: &String| text.contains("database 0 was begun again");
    assert!(swept.warnings.iter().any(told), "{:?}", swept.warnings);
    swept
}

/// A server that has lost nothing when it was killed and restarted.
fn lasting() -> Server {
    let options = Options::new().config("appendonly yes");
    Server::with(servers::usual(), options.config("appendfsync always"))
}

#[test]
fn after_a_restart_of_the_server_its_database_is_begun_again() {
    let mut server = lasting();
    let mut told = Listener::default();
    restarted(&mut server, Mode::Expire, &mut told);
    let mut client = server.client();
    for n in 0..1000 {
        let key = format!("o:{n}").into_bytes();
        assert!(told.told.iter().any(|told| told.key == key));
        assert!(ttl(&mut client, key) > 0);
    }
}

#[test]
fn after_a_restart_of_the_server_no_key_is_counted_twice() {
    let mut server = lasting();
    let mut report = Report::new(&rules());
    let swept = restarted(&mut server, Mode::Report, &mut report);
    let found = report.finish(KeyNames::Masked, swept.finished_ms);
    assert_eq!((found.len(), found[0].keys), (1, 1000));
    assert_eq!(found[0].rules[1].counts.set, 1000);

    let mut tally = Tally::new(&rules());
    restarted(&mut server, Mode::DryRun, &mut tally);
    assert_eq!((tally.scanned(), tally.counts()[1].set), (1000, 1000));

    // What was done stays counted, and is met again with its TTL.
    let mut tally = Tally::new(&rules());
    restarted(&mut server, Mode::Expire, &mut tally);
    let counts = &tally.counts()[1];
    assert_eq!((tally.done(), counts.set), (1000, 1000));
    let again = counts.left["ttl-in-order"];
    assert_eq!(tally.scanned(), 1000 + again);
    assert!((1..1000).contains(&again), "{again}");
}
