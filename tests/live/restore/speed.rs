//! How fast a restore is, against the server's own limit in the same run. Not run by default: it takes time and a quiet machine.
//!
//! `cargo test --release --test live -- --ignored --nocapture speed`

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rdbkeeper::rdb::{Event, FromFn, Scanner, from_fn, payload};
use rdbkeeper::restore::Request;

use super::{Dumped, good, run};
use crate::cmd;
use crate::support::data;
use crate::support::servers::{self, Server};

/// The commands that restore a file's string keys, encoded beforehand.
fn commands(file: &[u8]) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut count = 0;
    let mut key = Vec::new();
    let mut value = Vec::new();
    let mut expire = 0;
    let mut handler: FromFn<_> = from_fn(|event: Event<'_>| {
        match event {
            Event::Key(head) => {
                key = head.key.decode().unwrap().into_owned();
                expire = head.expire_at_ms.unwrap_or(0);
                value.clear();
            }
            Event::Value(bytes) => value.extend_from_slice(bytes),
            Event::ValueEnd => {
                let payload = payload::encode(0, &[], &value, 9);
                let ttl = expire.to_string();
                write!(out, "*5\r\n$7\r\nRESTORE\r\n${}\r\n", key.len()).unwrap();
                out.extend_from_slice(&key);
                write!(out, "\r\n${}\r\n{ttl}\r\n${}\r\n", ttl.len(), payload.len()).unwrap();
                out.extend_from_slice(&payload);
                out.extend_from_slice(b"\r\n$6\r\nABSTTL\r\n");
                count += 1;
            }
            _ => {}
        }
        Ok::<(), std::convert::Infallible>(())
    });
    let mut scanner = Scanner::new();
    scanner.feed(file, &mut handler).unwrap();
    scanner.finish(&mut handler).unwrap();
    (out, count)
}

/// As `redis-cli --pipe`: one thread writes, the other counts what comes back.
fn blast(server: &Server, commands: &[u8], count: usize) -> Duration {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let mut reading = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            let mut left = count * "+OK\r\n".len();
            while left > 0 {
                left -= reading.read(&mut buffer).unwrap();
            }
        });
        stream.write_all(commands).unwrap();
    });
    begun.elapsed()
}

/// CPU time of this process, all threads.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    // Fields 14 and 15, in ticks of 10 ms.
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

#[test]
#[ignore = "a measurement"]
fn a_restore_is_about_as_fast_as_the_server_takes_it() {
    let kind = servers::usual();
    let source = Server::start(kind);
    for _ in 0..2 {
        source.client().run_all(data::sessions(400_000));
    }
    let dumped = Dumped::of(&source);
    drop(source);
    let (commands, count) = commands(&std::fs::read(&dumped.file).unwrap());
    let server = Server::start(kind);
    let rate = |took: Duration| count as f64 / took.as_secs_f64() / 1000.0;
    for _ in 0..3 {
        let limit = blast(&server, &commands, count);
        assert_eq!(server.client().keyspace(), [(0, count as u64)]);
        server.client().run(cmd!["FLUSHALL", "SYNC"]);
        let (begun, cpu_before) = (Instant::now(), cpu());
        good(run(&dumped, &server, Request::default()));
        let (took, cpu) = (begun.elapsed(), cpu() - cpu_before);
        assert_eq!(server.client().keyspace(), [(0, count as u64)]);
        server.client().run(cmd!["FLUSHALL", "SYNC"]);
        eprintln!(
            "{count} keys: the server alone {:.0} k/s, a restore {:.0} k/s, both readings of the backup included, \
             {:.2} µs of our CPU a key",
            rate(limit),
            rate(took),
            cpu.as_secs_f64() * 1e6 / count as f64
        );
    }
}
