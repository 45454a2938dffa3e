//! Files and payloads of every real server that is here.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdbkeeper::rdb::payload::{self, Payload};
use rdbkeeper::rdb::{Checksum, DbIndex, Event, StringRef, from_fn, scan_bytes};

use crate::support::*;

/// Names and programs of the servers that are installed.
fn servers() -> Vec<(String, PathBuf)> {
    let root = std::env::var_os("RDBKEEPER_TEST_SERVERS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/rdbkeeper-test-servers"),
        PathBuf::from,
    );
    let mut found = vec![("redis (PATH)".to_owned(), PathBuf::from("redis-server"))];
    for name in [
        "redis-6.0",
        "redis-6.2",
        "redis-8.0",
        "valkey-8.1",
        "valkey-9.1",
    ] {
        let program = if name.starts_with("redis") {
            "redis-server"
        } else {
            "valkey-server"
        };
        let path = root.join(name).join("bin").join(program);
        if path.exists() {
            found.push((name.to_owned(), path));
        }
    }
    found
}

struct Server {
    child: Child,
    folder: tempfile::TempDir,
    stream: BufReader<TcpStream>,
}

impl Server {
    fn start(program: &Path) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut child = Command::new(program)
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .args([
                "--dir",
                folder.path().to_str().unwrap(),
                "--appendonly",
                "no",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(error) => {
                    assert!(child.try_wait().unwrap().is_none(), "the server ended");
                    assert!(Instant::now() < deadline, "no server on {port}: {error}");
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        };
        Server {
            child,
            folder,
            stream: BufReader::new(stream),
        }
    }

    fn send(&mut self, args: &[&[u8]]) {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            request.extend(format!("${}\r\n", arg.len()).bytes());
            request.extend_from_slice(arg);
            request.extend(b"\r\n");
        }
        self.stream.get_mut().write_all(&request).unwrap();
    }

    fn call(&mut self, args: &[&[u8]]) -> Result<Option<Vec<u8>>, String> {
        self.send(args);
        self.reply()
    }

    /// A reply; an array's elements are read and forgotten.
    fn reply(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "+" | ":" => Ok(Some(rest.as_bytes().to_vec())),
            "-" => Err(rest.to_owned()),
            "$" if rest == "-1" => Ok(None),
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.stream.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                Ok(Some(bytes))
            }
            "*" => {
                for _ in 0..rest.parse::<i64>().unwrap().max(0) {
                    self.reply()?;
                }
                Ok(None)
            }
            other => panic!("reply {other}{rest}"),
        }
    }

    fn text(&mut self, command: &str) -> Result<Option<Vec<u8>>, String> {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        self.call(&args)
    }
}

impl Drop for Server {
    /// By its own command, since a script may have started it; whatever is left is killed.
    fn drop(&mut self) {
        let _ = self
            .stream
            .get_mut()
            .write_all(b"*2\r\n$8\r\nSHUTDOWN\r\n$6\r\nNOSAVE\r\n");
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keys of every type and encoding that the server has.
fn fill(server: &mut Server) {
    let run = |server: &mut Server, command: &str| {
        server
            .text(command)
            .unwrap_or_else(|error| panic!("{command}: {error}"));
    };
    // What older servers don't have is left out.
    let maybe = |server: &mut Server, command: &str| server.text(command).is_ok();
    for command in [
        "SET str:short hello",
        "SET str:int8 -7",
        "SET str:int16 3000",
        "SET str:int32 -70000",
        "SET str:int64 9999999999",
        "SET str:empty x",
        "SETRANGE str:long 500 end",
        "RPUSH list:small a 1 -300 70000",
        "SADD set:ints 1 2 3 100000",
        "SADD set:small a b 7",
        "ZADD zset:small 1 a 2.5 b inf c",
        "HSET hash:small f v g 12",
        "PFADD hll a b c",
        "SET expires v PX 100000000",
        "XADD stream 1-1 f v",
        "XADD stream 2-1 f w g 12",
        "XADD stream 3-1 f v",
        "XGROUP CREATE stream group 0",
        "XREADGROUP GROUP group alice COUNT 2 STREAMS stream >",
        "XDEL stream 3-1",
        "XADD stream:bare 5-5 a b",
        "GEOADD geo 13.36 38.11 Palermo",
    ] {
        run(server, command);
    }
    for i in 0..600 {
        run(server, &format!("RPUSH list:big element-{i}"));
        run(server, &format!("SADD set:big member-{i}"));
        run(server, &format!("SADD set:bigints {}", i * 7));
        run(server, &format!("ZADD zset:big {}.5 member-{i}", i));
        run(
            server,
            &format!("HSET hash:big field-{i} {}", "v".repeat(i % 90)),
        );
        run(server, &format!("XADD stream:big {}-1 f {i}", i + 1));
    }
    let long = "0123456789abcdef".repeat(1000);
    run(server, &format!("SET str:lzf {long}"));
    let words: Vec<String> = (0..2_000).map(|i| format!("word{}", i * i % 977)).collect();
    run(server, &format!("SET str:words {}", words.concat()));
    run(server, &format!("RPUSH list:long {long} {long} short"));
    if maybe(server, "HSET hash:expiry a 1 b 2")
        && maybe(server, "HPEXPIRE hash:expiry 10000000 FIELDS 1 a")
    {
        for i in 0..600 {
            run(server, &format!("HSET hash:expirybig field-{i} {i}"));
        }
        run(
            server,
            "HPEXPIRE hash:expirybig 10000000 FIELDS 2 field-1 field-77",
        );
    }
    let library = b"#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    let _ = server.call(&[b"FUNCTION", b"LOAD", library]);
    run(server, "SELECT 9");
    run(server, "SET other db EX 5000");
    run(server, "SELECT 0");
}

struct Found {
    db: DbIndex,
    expire_at_ms: Option<i64>,
    name: &'static str,
    payload: Vec<u8>,
}

#[test]
fn every_server_writes_files_that_scan_verified_and_payloads_that_equal_them() {
    let mut encodings = std::collections::BTreeSet::new();
    for (name, program) in servers() {
        let mut server = Server::start(&program);
        fill(&mut server);
        server.text("SAVE").unwrap();
        let bytes = std::fs::read(server.folder.path().join("dump.rdb")).unwrap();

        let (outcome, summary) = summary(&bytes);
        let report = outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            (report.checksum, report.opaque),
            (Checksum::Verified, None),
            "{name}"
        );
        let version = report.version.unwrap();
        eprintln!(
            "{name}: {version}, {} keys, {:?}",
            summary.keys(),
            summary.aux.server
        );
        let size = server.text("DBSIZE").unwrap().unwrap();
        let size: u64 = String::from_utf8(size).unwrap().parse().unwrap();
        assert_eq!(summary.databases()[&DbIndex(0)].keys, size, "{name}");
        assert_eq!(summary.databases()[&DbIndex(9)].expires, 1, "{name}");
        assert_eq!(filtered(&bytes, &[0, 9]), bytes, "{name}");
        assert_eq!(
            record(&filtered(&bytes, &[9])).0.unwrap().checksum,
            Checksum::Verified
        );

        let keys = keys_of(&bytes);
        assert_eq!(keys.len() as u64, summary.keys());
        for (key, found) in &keys {
            encodings.insert(found.name);
            server.text(&format!("SELECT {}", found.db)).unwrap();
            let dumped = server.call(&[b"DUMP", key]).unwrap().unwrap();
            let text = String::from_utf8_lossy(key);
            assert_eq!(dumped, found.payload, "{name}: {text}");
            let parsed = Payload::parse(&dumped).unwrap();
            assert_eq!(parsed.version, version, "{name}: {text}");
            if parsed.type_code == 0 {
                let value = StringRef::parse(parsed.value).unwrap().unwrap();
                let said = server.call(&[b"GET", key]).unwrap().unwrap();
                assert_eq!(value.decode().unwrap(), said, "{name}: {text}");
            }
            // It goes back where it came from, under the footer that goes furthest down.
            let value_type = parsed.value_type.unwrap();
            let footer = payload::footer_version_for(value_type, version.family, version.number);
            let again =
                payload::encode(parsed.type_code, parsed.meta, parsed.value, footer.unwrap());
            server
                .call(&[b"RESTORE", b"again", b"0", &again, b"REPLACE"])
                .unwrap_or_else(|error| panic!("{name}: {text}: {error}"));
            assert_eq!(
                server.call(&[b"DUMP", b"again"]).unwrap().unwrap().len(),
                dumped.len()
            );
            assert_eq!(
                found.expire_at_ms.is_some(),
                key == b"expires" || key == b"other"
            );
        }
        if summary.functions > 0 {
            functions_travel(&mut server, &bytes, version.number);
        }
    }
    eprintln!("encodings seen: {encodings:?}");
}

fn keys_of(bytes: &[u8]) -> BTreeMap<Vec<u8>, Found> {
    let mut keys = BTreeMap::new();
    let mut number = 0;
    let mut open: Option<(Vec<u8>, Found, payload::PayloadBuilder)> = None;
    plain(scan_bytes(
        bytes,
        &mut from_fn(|event| {
            match event {
                Event::Header { version, .. } => number = version.number,
                Event::Key(head) => {
                    let found = Found {
                        db: head.db,
                        expire_at_ms: head.expire_at_ms,
                        name: head.value_type.name(),
                        payload: Vec::new(),
                    };
                    let builder = payload::PayloadBuilder::new(head.value_type.code(), head.meta);
                    open = Some((head.key.decode().unwrap().into_owned(), found, builder));
                }
                Event::Value(raw) => open.as_mut().unwrap().2.push(raw),
                Event::ValueEnd => {
                    let (key, mut found, builder) = open.take().unwrap();
                    found.payload = builder.finish(number);
                    keys.insert(key, found);
                }
                _ => {}
            }
            Ok(())
        }),
    ))
    .unwrap();
    keys
}

fn functions_travel(server: &mut Server, bytes: &[u8], number: u16) {
    let mut libraries = Vec::new();
    plain(scan_bytes(
        bytes,
        &mut from_fn(|event| {
            if let Event::Function { code, .. } = event {
                libraries.push(code.raw().to_vec());
            }
            Ok(())
        }),
    ))
    .unwrap();
    let refs = || {
        libraries
            .iter()
            .map(|raw| StringRef::parse(raw).unwrap().unwrap())
    };
    let dumped = server.text("FUNCTION DUMP").unwrap().unwrap();
    assert_eq!(dumped, payload::encode_functions(refs(), number));
    assert_eq!(
        payload::parse_functions(&dumped).unwrap().len(),
        libraries.len()
    );
    let footer = payload::functions_footer_version(number).unwrap();
    server.text("FUNCTION FLUSH").unwrap();
    server
        .call(&[
            b"FUNCTION",
            b"RESTORE",
            &payload::encode_functions(refs(), footer),
        ])
        .unwrap();
    assert_eq!(server.text("FUNCTION DUMP").unwrap().unwrap(), dumped);
}
