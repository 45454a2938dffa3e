//! The memory and the time that decoding a value takes, whatever stands in it: each of the worst values is decoded in a
//! process of its own, which says how much memory it held at most.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use rdbkeeper::rdb::packed::ListpackWriter;
use rdbkeeper::rdb::value::{Decoder, Element};
use rdbkeeper::rdb::{Family, ValueType, length};

/// The name of the test that starts itself.
const THIS: &str = "bounds::whatever_stands_in_a_value_memory_is_in_proportion_and_time_short";
/// Tells a process that it is the one that decodes, and in which fragments.
const CHILD: &str = "RDBKEEPER_TEST_DECODES_A_VALUE";

/// Far more than any of them needs, and far less than a copy for each entry, or one for each byte that comes, would.
const MOST_MILLIS: u64 = 15_000;

struct Worst {
    what: &'static str,
    code: u8,
    value: Vec<u8>,
    piece: usize,
    /// Beyond the value itself.
    most_kib: u64,
    whole: bool,
}

fn lengths(lengths: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in lengths {
        length::encode(value, &mut bytes);
    }
    bytes
}

/// So many bytes `a`, compressed as far as LZF can.
fn lzf_of_one_byte(plain: usize) -> Vec<u8> {
    let mut packed = vec![0, b'a'];
    let mut left = plain - 1;
    while left >= 264 {
        packed.extend([0xe0, 255, 0]);
        left -= 264;
    }
    for _ in 0..left {
        packed.extend([0, b'a']);
    }
    let mut string = vec![0xc3];
    string.extend(lengths([packed.len() as u64, plain as u64]));
    string.extend(packed);
    string
}

/// A stream of one node: what stands before its entries, then one entry again and again; and no groups.
fn stream(
    master: impl FnOnce(&mut ListpackWriter),
    entry: impl Fn(&mut ListpackWriter),
    times: usize,
) -> Vec<u8> {
    let mut node = ListpackWriter::new();
    master(&mut node);
    (0..times).for_each(|_| entry(&mut node));
    let mut bytes = lengths([1]);
    length::encode_string(&[0; 16], &mut bytes);
    length::encode_string(&node.finish(), &mut bytes);
    bytes.extend(lengths([times as u64, 9, 9, 0]));
    bytes
}

fn named(name: &[u8], flags: i64, times: usize) -> Vec<u8> {
    let master = |node: &mut ListpackWriter| {
        [times as i64, 0, 1]
            .into_iter()
            .for_each(|int| node.int(int));
        node.bytes(name);
        node.int(0);
    };
    let entry = |node: &mut ListpackWriter| {
        [flags, 0, 0, 7, 4]
            .into_iter()
            .for_each(|int| node.int(int));
    };
    stream(master, entry, times)
}

fn worst() -> Vec<Worst> {
    let mut found = Vec::new();
    let mut add = |what, code, value: Vec<u8>, whole| {
        let kib = value.len() as u64 / 1024;
        found.push(Worst {
            what,
            code,
            value,
            piece: 1 << 16,
            // One unit gathered in a vector that doubles, and room for what is in it.
            most_kib: 4 * kib + 2048,
            whole,
        });
    };
    let filler = |head: Vec<u8>| [head, vec![1; 1 << 20]].concat();
    add("a string that lies", 0, filler(lengths([1 << 40])), false);
    add(
        "a string of all that there is",
        0,
        filler(lengths([u64::MAX])),
        false,
    );
    add(
        "a list of more than there is",
        1,
        filler(lengths([u64::MAX])),
        false,
    );
    add(
        "a hash of more than there is",
        4,
        filler(lengths([u64::MAX])),
        false,
    );
    add(
        "nodes of more than there is",
        18,
        filler(lengths([u64::MAX])),
        false,
    );
    let head = [
        lengths([0, 0, 9, 9, 1, 1]),
        b"g".to_vec(),
        lengths([9, 9, u64::MAX]),
    ]
    .concat();
    let groups = [lengths([0, 0, 9, 9, u64::MAX]), vec![0; 1 << 20]].concat();
    add("groups of more than there is", 15, groups, false);
    add(
        "pending entries of more than there is",
        15,
        filler(head),
        false,
    );
    let pending = {
        let count = 40_000_u64;
        let mut bytes = lengths([0, 0, 9, 9, 1]);
        length::encode_string(b"g", &mut bytes);
        bytes.extend(lengths([9, 9, count]));
        for id in 0..count {
            bytes.extend(u128::from(id).to_be_bytes());
            bytes.extend([0; 8]);
            bytes.push(1);
        }
        bytes.extend(lengths([1, 1]));
        bytes.push(b'c');
        bytes.extend([0; 8]);
        bytes.extend(lengths([count]));
        for id in 0..count {
            bytes.extend(u128::from(id).to_be_bytes());
        }
        bytes
    };
    add("pending entries", 15, pending, true);
    let long = vec![b'n'; 2 << 20];
    add(
        "one long name for many entries",
        15,
        named(&long, 2, 200_000),
        true,
    );
    add(
        "the same, and all are deleted",
        15,
        named(&long, 3, 200_000),
        true,
    );
    let countless = stream(
        |node| [1, 0, i64::MAX].into_iter().for_each(|int| node.int(int)),
        |node| node.int(1),
        1000,
    );
    add("names of more than there is", 15, countless, false);
    let empty_names = stream(
        |node| {
            [1, 0, 200_000].into_iter().for_each(|int| node.int(int));
            (0..200_000).for_each(|_| node.bytes(b""));
            node.int(0);
        },
        |node| {
            [2, 0, 0].into_iter().for_each(|int| node.int(int));
            (0..200_000).for_each(|_| node.bytes(b""));
            node.int(200_003);
        },
        1,
    );
    add("empty names", 15, empty_names, true);
    // 88 times as much, and the vector may have twice of it.
    let bomb = lzf_of_one_byte(16 << 20);
    for (what, code, value, piece, rooms) in [
        ("what inflates", 0, bomb.clone(), 1 << 16, 1),
        ("what inflates, byte by byte", 0, bomb.clone(), 1, 1),
        (
            "both of a pair inflate",
            4,
            [lengths([1]), bomb.clone(), bomb].concat(),
            1,
            2,
        ),
    ] {
        let most_kib = rooms * (34 << 10);
        let whole = true;
        found.push(Worst {
            what,
            code,
            value,
            piece,
            most_kib,
            whole,
        });
    }
    // As elements take the most memory for what they are: at the sizes above empty names are four words a byte.
    let names = found.iter_mut().find(|worst| worst.what == "empty names");
    names.unwrap().most_kib = 16 << 10;
    found
}

/// The most memory that this process held so far, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let figure = line.unwrap().split_ascii_whitespace().nth(1);
    figure.unwrap().parse().unwrap()
}

/// In the process of its own: decodes what it is given.
fn decode_one(how: &str) {
    let (code, piece) = how.split_once(' ').unwrap();
    let mut value = Vec::with_capacity(16 << 20);
    std::io::stdin().read_to_end(&mut value).unwrap();
    let before = peak_kib();
    let begun = Instant::now();
    let mut decoder = Decoder::new();
    decoder.start(ValueType::new(code.parse().unwrap(), Family::Redis).unwrap());
    let mut sink = |_: Element<'_>| Ok::<(), Infallible>(());
    let mut parts = value.chunks(piece.parse().unwrap());
    let pushed = parts.try_for_each(|part| decoder.push(part, &mut sink));
    let whole = pushed.is_ok() && decoder.finish().is_ok();
    let millis = begun.elapsed().as_millis();
    eprintln!("peak {} {millis} {whole}", peak_kib() - before);
}

#[test]
fn whatever_stands_in_a_value_memory_is_in_proportion_and_time_short() {
    if let Some(how) = std::env::var_os(CHILD) {
        return decode_one(how.to_str().unwrap());
    }
    for worst in worst() {
        let what = worst.what;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1", THIS])
            .env(CHILD, format!("{} {}", worst.code, worst.piece))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&worst.value).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let figures = text.lines().find_map(|line| {
            let (_, figures) = line.split_once("peak ")?;
            let mut figures = figures.split(' ');
            let mut number = || figures.next()?.parse::<u64>().ok();
            Some((number()?, number()?, figures.next()? == "true"))
        });
        let (kib, millis, whole) = figures.unwrap_or_else(|| panic!("{what}: {text}"));
        let given = worst.value.len() / 1024;
        eprintln!("{what}: {given} KiB given, {kib} KiB held, {millis} ms");
        assert_eq!(whole, worst.whole, "{what}");
        assert!(kib <= worst.most_kib, "{what}: {kib} KiB");
        assert!(millis < MOST_MILLIS, "{what}: {millis} ms");
    }
}
