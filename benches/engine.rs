//! The RDB engine over files in memory: a million-session-like one and one of all types, scaled down.
//!
//! `cargo bench --bench engine`. With `RDBKEEPER_BENCH_FILE=dump.rdb` that file is scanned too, in
//! pieces of 256 KiB as a transfer brings them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rdbkeeper::rdb::length::{encode, encode_string};
use rdbkeeper::rdb::{
    DbFilter, DbIndex, Family, FileVersion, NewKey, Scanner, Summary, Writer, crc64, from_fn,
};

const PIECE: usize = 256 * 1024;

const VERSION: FileVersion = FileVersion {
    family: Family::Redis,
    number: 10,
};

/// A cheap generator, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// Session strings of about 400 bytes with an expiry.
fn sessions(count: usize) -> Vec<u8> {
    let mut random = Random(0x5e55);
    let mut writer = Writer::new(Vec::new(), VERSION).unwrap();
    writer.select_db(DbIndex(1)).unwrap();
    let mut value = Vec::new();
    for _ in 0..count {
        let key = format!(
            "session:{:016x}{:016x}{:08x}",
            random.next(),
            random.next(),
            7
        );
        let len = 340 + (random.next() % 120) as usize;
        value.clear();
        encode_string(&vec![random.next() as u8; len], &mut value);
        let head = NewKey {
            expire_at_ms: Some(1_800_000_000_000),
            ..NewKey::new(key.as_bytes(), 0)
        };
        writer.key(&head, &value).unwrap();
    }
    writer.finish().unwrap().0
}

/// Listpacks, hashes and sorted sets in their long form, streams, blobs.
fn mixed(count: usize) -> Vec<u8> {
    let mut random = Random(0x1213);
    let mut writer = Writer::new(Vec::new(), VERSION).unwrap();
    writer.select_db(DbIndex(0)).unwrap();
    let mut value = Vec::new();
    for i in 0..count {
        value.clear();
        let code = match i % 100 {
            0..40 => {
                encode_string(&random.bytes(300), &mut value);
                16
            }
            40..60 => {
                encode(1, &mut value);
                encode(2, &mut value);
                encode_string(&random.bytes(500), &mut value);
                18
            }
            60..80 => {
                encode(20, &mut value);
                for _ in 0..20 {
                    encode_string(&random.bytes(15), &mut value);
                    value.extend(random.next().to_le_bytes());
                }
                5
            }
            80..97 => {
                encode(1, &mut value);
                encode_string(&random.bytes(16), &mut value);
                encode_string(&random.bytes(400), &mut value);
                for _ in 0..8 {
                    encode(random.next() % 20_000, &mut value);
                }
                encode(0, &mut value);
                19
            }
            97 | 98 => {
                encode(2_000, &mut value);
                for field in 0..2_000 {
                    encode_string(format!("field:{field}").as_bytes(), &mut value);
                    encode_string(&random.bytes(22), &mut value);
                }
                4
            }
            _ => {
                encode_string(&random.bytes(65_536), &mut value);
                0
            }
        };
        writer
            .key(&NewKey::new(format!("key:{i}").as_bytes(), code), &value)
            .unwrap();
    }
    writer.finish().unwrap().0
}

fn scan(file: &[u8]) -> u64 {
    let mut summary = Summary::new();
    let mut scanner = Scanner::new();
    for piece in file.chunks(PIECE) {
        scanner.feed(piece, &mut summary).unwrap();
    }
    black_box(scanner.finish(&mut summary).unwrap());
    summary.keys()
}

fn filter(file: &[u8], db: u32) -> u64 {
    let mut bytes = 0;
    let mut filter = DbFilter::new([DbIndex(db)]);
    let mut out = |block: &[u8]| bytes += black_box(block).len() as u64;
    let mut handler = from_fn(|event| filter.event(&event, &mut out));
    let mut scanner = Scanner::new();
    for piece in file.chunks(PIECE) {
        scanner.feed(piece, &mut handler).unwrap();
    }
    scanner.finish(&mut handler).unwrap();
    bytes
}

fn engine(c: &mut Criterion) {
    let mut files = vec![("sess", sessions(100_000)), ("mix", mixed(50_000))];
    if let Some(path) = std::env::var_os("RDBKEEPER_BENCH_FILE") {
        files.push(("file", std::fs::read(path).unwrap()));
    }
    for (name, file) in &files {
        let mut group = c.benchmark_group(*name);
        group.sample_size(10);
        group.throughput(Throughput::Bytes(file.len() as u64));
        group.bench_function("crc64", |b| b.iter(|| crc64::crc64(black_box(file))));
        group.bench_function("scan", |b| b.iter(|| scan(black_box(file))));
        group.bench_function("filter keep", |b| b.iter(|| filter(black_box(file), 1)));
        group.bench_function("filter drop", |b| b.iter(|| filter(black_box(file), 9)));
        group.finish();
    }
}

criterion_group!(benches, engine);
criterion_main!(benches);
