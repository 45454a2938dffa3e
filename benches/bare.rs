//! The least that a client can do, to measure the program against: not a benchmark of its own, but the peers that nobody
//! else wrote.
//!
//!     bare scan PORT DB [COUNT]        SCAN alone: every key name is brought here and thrown away
//!     bare dump PORT DB [COUNT]        SCAN, DUMP and PTTL of each key, pipelined as the program does; all is thrown away
//!     bare restore FILE > commands     the RESTORE commands of an RDB file, for redis-cli --pipe
//!
//! Replies are skipped in one buffer; nothing is checked, kept or written.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::convert::Infallible;
use std::io::{self, BufWriter, Read, Write};
use std::net::TcpStream;
use std::ops::Range;

use rdbkeeper::rdb::payload::{PayloadBuilder, footer_version_for};
use rdbkeeper::rdb::{DbIndex, Event, FileVersion, from_fn, scan_bytes};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u32| {
        args.get(at)
            .map_or(default, |text| text.parse().expect("a number"))
    };
    match args.first().map(String::as_str) {
        Some("scan") => walk(number(1, 6379), number(2, 0), number(3, 100), false),
        Some("dump") => walk(number(1, 6379), number(2, 0), number(3, 100), true),
        Some("restore") => restore(&args[1]),
        _ => eprintln!("bare scan PORT DB [COUNT] | bare dump PORT DB [COUNT] | bare restore FILE"),
    }
}

/// A connection, and what was read of it.
struct Server {
    stream: TcpStream,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
}

impl Server {
    fn fill(&mut self) {
        if self.at > 0 {
            self.buffer.copy_within(self.at..self.filled, 0);
            self.filled -= self.at;
            self.at = 0;
        }
        if self.buffer.len() - self.filled < 64 << 10 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let read = self.stream.read(&mut self.buffer[self.filled..]).unwrap();
        assert!(read > 0, "the server hung up");
        self.filled += read;
    }

    /// The number in a reply's head, and its kind; the place is behind it.
    fn head(&mut self) -> (u8, i64) {
        loop {
            let bytes = &self.buffer[self.at..self.filled];
            if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let number = std::str::from_utf8(&bytes[1..end - 1]).unwrap_or_default();
                let head = (bytes[0], number.parse().unwrap_or(0));
                self.at += end + 1;
                return head;
            }
            self.fill();
        }
    }

    /// A bulk string, by its place in the buffer.
    fn bulk(&mut self) -> Range<usize> {
        let (_, length) = self.head();
        let Ok(length) = usize::try_from(length) else {
            return 0..0;
        };
        while self.filled - self.at < length + 2 {
            self.fill();
        }
        let begin = self.at;
        self.at += length + 2;
        begin..begin + length
    }
}

fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    write!(out, "*{}\r\n", args.len()).unwrap();
    for arg in args {
        write!(out, "${}\r\n", arg.len()).unwrap();
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn walk(port: u32, db: u32, count: u32, values: bool) {
    let stream = TcpStream::connect(("127.0.0.1", port as u16)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut server = Server {
        stream,
        buffer: vec![0; 1 << 20],
        at: 0,
        filled: 0,
    };
    let count = count.to_string();
    let scan = |out: &mut Vec<u8>, cursor: &[u8]| {
        command(out, &[b"SCAN", cursor, b"COUNT", count.as_bytes()]);
    };
    let mut out = Vec::new();
    command(&mut out, &[b"SELECT", db.to_string().as_bytes()]);
    scan(&mut out, b"0");
    server.stream.write_all(&out).unwrap();
    server.head();
    let (mut keys, mut bytes, mut in_flight) = (0, 0, 0);
    loop {
        server.head();
        let cursor = server.bulk();
        let cursor = server.buffer[cursor].to_vec();
        let (_, names) = server.head();
        out.clear();
        if cursor != b"0" {
            scan(&mut out, &cursor);
        }
        for _ in 0..names {
            let name = server.bulk();
            if values {
                let name = &server.buffer[name];
                command(&mut out, &[b"PTTL", name]);
                command(&mut out, &[b"DUMP", name]);
            }
        }
        keys += names;
        if !out.is_empty() {
            server.stream.write_all(&out).unwrap();
        }
        // The values of the batch before this one: they were asked for before the next SCAN was.
        let mut skip = |server: &mut Server, count: i64| {
            for _ in 0..count {
                server.head();
                bytes += server.bulk().len();
            }
        };
        skip(&mut server, in_flight);
        in_flight = if values { names } else { 0 };
        if cursor == b"0" {
            skip(&mut server, in_flight);
            break;
        }
    }
    println!("{keys} keys, {bytes} bytes");
}

fn restore(path: &str) {
    let file = std::fs::read(path).unwrap();
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let mut version = FileVersion::of_number(10);
    let mut selected = DbIndex(0);
    let mut current = None;
    let mut words = Vec::new();
    let mut handler = from_fn(|event| {
        match event {
            Event::Header { version: found, .. } => version = found,
            Event::Key(head) => {
                if head.db != selected {
                    selected = head.db;
                    words.clear();
                    command(&mut words, &[b"SELECT", selected.to_string().as_bytes()]);
                    out.write_all(&words).unwrap();
                }
                let footer = footer_version_for(head.value_type, version.family, version.number);
                let payload = PayloadBuilder::new(head.value_type.code(), head.meta);
                let key = head.key.decode().unwrap().into_owned();
                current = Some((key, head.expire_at_ms, footer.unwrap(), payload));
            }
            Event::Value(bytes) => {
                if let Some((.., payload)) = &mut current {
                    payload.push(bytes);
                }
            }
            Event::ValueEnd => {
                let (key, expiry, footer, payload) = current.take().unwrap();
                let payload = payload.finish(footer);
                let at = expiry.unwrap_or(0).to_string();
                words.clear();
                let mut args: Vec<&[u8]> = vec![b"RESTORE", &key, at.as_bytes(), &payload];
                if expiry.is_some() {
                    args.push(b"ABSTTL");
                }
                command(&mut words, &args);
                out.write_all(&words).unwrap();
            }
            _ => {}
        }
        Ok::<(), Infallible>(())
    });
    scan_bytes(&file, &mut handler).unwrap();
    out.flush().unwrap();
}
