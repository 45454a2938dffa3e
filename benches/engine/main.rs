//! The RDB engine and the stages around it, over what is in memory: no server, no disk.
//!
//! `cargo bench --bench engine`, or a part of it: `cargo bench --bench engine -- decode/`. With
//! `RDBKEEPER_BENCH_FILE=dump.rdb` that file is read, too, in pieces of 256 KiB as a transfer brings them: `-- file/`.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod data;
mod stages;
mod values;

use std::convert::Infallible;
use std::hint::black_box;
use std::io;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rdbkeeper::pipeline::Compression;
use rdbkeeper::rdb::payload::{self, Payload, PayloadBuilder};
use rdbkeeper::rdb::value::{Decoder, Element};
use rdbkeeper::rdb::{
    DbFilter, DbIndex, Event, NewKey, Scanner, Summary, ValueType, Writer, crc64, from_fn, lzf,
};

use data::{Made, Random, VERSION};

const PIECE: usize = 256 * 1024;

/// One row: a piece of work over so many bytes.
fn row<T>(c: &mut Criterion, group: &str, name: &str, bytes: usize, mut work: impl FnMut() -> T) {
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(name, |b| b.iter(|| black_box(work())));
    group.finish();
}

fn scan_with<H>(file: &[u8], handler: &mut H)
where
    H: rdbkeeper::rdb::Handler<Error: std::fmt::Debug>,
{
    let mut scanner = Scanner::new();
    for piece in file.chunks(PIECE) {
        scanner.feed(piece, handler).unwrap();
    }
    black_box(scanner.finish(handler).unwrap());
}

fn scan(file: &[u8]) -> u64 {
    let mut summary = Summary::new();
    scan_with(file, &mut summary);
    summary.keys()
}

fn filter(file: &[u8], db: u32) -> u64 {
    let mut bytes = 0;
    let mut filter = DbFilter::new([DbIndex(db)]);
    let mut out = |block: &[u8]| bytes += black_box(block).len() as u64;
    scan_with(file, &mut from_fn(|event| filter.event(&event, &mut out)));
    bytes
}

/// Each event is written as it came.
fn write_events(file: &[u8]) -> u64 {
    let mut writer = Writer::new(io::sink(), VERSION).unwrap();
    scan_with(
        file,
        &mut from_fn(|event: Event<'_>| match event {
            Event::Header { .. } | Event::End { .. } => Ok(()),
            event => writer.raw(event.raw()),
        }),
    );
    writer.finish().unwrap().1
}

fn decode(decoder: &mut Decoder, value_type: ValueType, bytes: &[u8]) -> u64 {
    let mut elements = 0;
    let mut sink = |element: Element<'_>| {
        black_box(element);
        elements += 1;
        Ok::<(), Infallible>(())
    };
    decoder.start(value_type);
    decoder.push(bytes, &mut sink).unwrap();
    decoder.finish().unwrap();
    elements
}

fn files(c: &mut Criterion) {
    let made = [
        ("sess", data::sessions(100_000)),
        ("mix", data::mixed(50_000)),
    ];
    let mut files: Vec<_> = made
        .iter()
        .map(|(name, keys)| (*name, data::file(keys)))
        .collect();
    for ((name, keys), (_, file)) in made.iter().zip(&files) {
        row(c, name, "write keys", file.len(), || {
            write_keys(black_box(keys))
        });
    }
    if let Some(path) = std::env::var_os("RDBKEEPER_BENCH_FILE") {
        files.push(("file", std::fs::read(path).unwrap()));
    }
    for (name, file) in &files {
        let len = file.len();
        row(c, name, "crc64", len, || crc64::crc64(black_box(file)));
        row(c, name, "scan", len, || scan(black_box(file)));
        row(c, name, "filter keep", len, || filter(black_box(file), 1));
        row(c, name, "filter drop", len, || filter(black_box(file), 9));
        row(c, name, "write events", len, || {
            write_events(black_box(file))
        });
    }
}

fn write_keys(keys: &[Made]) -> u64 {
    let mut writer = Writer::new(io::sink(), VERSION).unwrap();
    for (key, code, expire_at_ms, value) in keys {
        let head = NewKey {
            expire_at_ms: *expire_at_ms,
            ..NewKey::new(key.as_bytes(), *code)
        };
        writer.key(&head, value).unwrap();
    }
    writer.finish().unwrap().1
}

fn values(c: &mut Criterion) {
    let mut decoder = Decoder::new();
    for (name, value_type, bytes) in values::all() {
        assert!(decode(&mut decoder, value_type, &bytes) > 0, "{name}");
        row(c, "decode", name, bytes.len(), || {
            decode(&mut decoder, value_type, black_box(&bytes))
        });
    }
    let mut random = Random(0x12f);
    for (name, len) in [("400 bytes", 400), ("64 KiB", 64 << 10)] {
        let plain = values::text_of(&mut random, len);
        let packed = data::lzf(&plain);
        let mut out = Vec::new();
        row(c, "LZF", name, len, || {
            lzf::decompress_into(black_box(&packed), len, &mut out).unwrap()
        });
        assert_eq!(out, plain);
    }
}

/// DUMP payloads: each value's is taken apart, as a scan does, and made, as a restore does.
fn payloads(c: &mut Criterion) {
    let chosen = [
        "string",
        "string of 64 KiB, LZF",
        "hash, listpack",
        "hash, plain",
        "stream",
    ];
    for (name, value_type, bytes) in values::all() {
        if !chosen.contains(&name) {
            continue;
        }
        let code = value_type.code();
        let dumped = payload::encode(code, &[], &bytes, 11);
        let len = dumped.len();
        row(c, "payload parse", name, len, || {
            Payload::parse(black_box(&dumped)).unwrap().value.len()
        });
        let mut buffer = Some(Vec::new());
        row(c, "payload make", name, len, || {
            let mut builder = PayloadBuilder::reusing(buffer.take().unwrap(), code, &[]);
            builder.push(black_box(&bytes));
            let made = builder.finish(11);
            let len = made.len();
            buffer = Some(made);
            len
        });
    }
}

/// 16 MiB of sessions, that is eight blocks.
fn compression(c: &mut Criterion) {
    let plain = values::text_of(&mut Random(0xc0de), 16 << 20);
    let len = plain.len();
    for compression in [
        Compression::Zstd(1),
        Compression::Zstd(3),
        Compression::Gzip(6),
    ] {
        let name = compression.to_string();
        let parts = stages::packed(&plain, compression);
        assert_eq!(stages::read(&parts), len as u64);
        row(c, "pack", &name, len, || {
            stages::pack(black_box(&plain), compression, drop)
        });
        row(c, "unpack", &name, len, || stages::read(black_box(&parts)));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = files, values, payloads, compression
}
criterion_main!(benches);
