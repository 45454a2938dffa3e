//! The memory and the time that reading a value takes: each of the worst values is read in a process of its own, which
//! says how much memory it held at most.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdbkeeper::config::SessionStore;
use rdbkeeper::sessions::Unreadable;
use rdbkeeper::sessions::stores::{LONGEST, read_text};

/// What reading one value may add. Of the 96 MiB of the whole program the rest is for all else.
const MOST_KIB: u64 = 32 << 10;
/// The name of the test that starts itself.
const THIS: &str =
    "sessions::memory::whatever_stands_in_a_value_it_takes_little_memory_and_little_time";
/// Tells a process that it is the one that reads.
const CHILD: &str = "RDBKEEPER_TEST_READS_A_VALUE";

/// `begin`, then `again` as often as it fits in a length with `end` after it.
fn filled(length: usize, begin: &[u8], again: &[u8], end: &[u8]) -> Vec<u8> {
    let times = (length - begin.len() - end.len()) / again.len();
    [begin, &again.repeat(times), end].concat()
}

/// Compressed, without all of it in memory at a time.
fn deflated(begin: &[u8], again: &[u8], times: usize, end: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(begin).unwrap();
    for _ in 0..times {
        encoder.write_all(again).unwrap();
    }
    encoder.write_all(end).unwrap();
    encoder.finish().unwrap()
}

/// Values of every notation that make their readers keep as much as can be.
fn worst() -> Vec<(&'static str, Vec<u8>)> {
    let full = |begin: &[u8], again: &[u8], end: &[u8]| filled(LONGEST, begin, again, end);
    let inflated = |begin: &[u8], again: &[u8], end: &[u8]| {
        let times = ((4 << 20) - 1 - begin.len() - end.len()) / again.len();
        deflated(begin, again, times, end)
    };
    let far = [b"}r".as_slice(), &262_143_u32.to_le_bytes()].concat();
    let long_text = |length: u32| {
        let text = vec![b'a'; length as usize];
        [b"X".as_slice(), &length.to_le_bytes(), &text, b"q\x00"].concat()
    };
    let names = b"0}(U\x01mh\x00U\x01ch\x00U\x01vh\x00U\x01th\x00U\x01xh\x00u.";
    vec![
        ("none and memoize", full(b"(", b"N\x94", b"t.")),
        ("duplicates", full(b"N", b"2", b".")),
        ("marks", full(b"", b"(", b".")),
        ("tuples of tuples", full(b"K\x01", b"2\x86", b".")),
        (
            "entries from the memo",
            full(b"Nq\x00}", b"h\x00h\x00s", b"."),
        ),
        ("one place of the memo, far off", full(&far, b"h\x00", b".")),
        ("many lists", full(b"(", b"]", b"l.")),
        ("dictionaries, again and again", full(b"(", b"(d0", b"t.")),
        (
            "all at once",
            [
                filled(LONGEST / 4, b"", b"N\x94", b"").as_slice(),
                &filled(LONGEST / 4, b"}", b"h\x00h\x00s", b""),
                &vec![b'2'; LONGEST / 8],
                &vec![b'('; LONGEST / 4 - 2],
            ]
            .concat(),
        ),
        (
            "one text for every name",
            [long_text(1 << 19).as_slice(), names].concat(),
        ),
        ("digits", full(b"I", b"1", b"\n.")),
        (
            "inflated: none and memoize",
            inflated(b"(", b"N\x94", b"t."),
        ),
        (
            "inflated: entries from the memo",
            inflated(b"Nq\x00}", b"h\x00h\x00s", b"."),
        ),
        ("inflated: one text for every name", {
            let begin = [b"X".as_slice(), &4_000_000_u32.to_le_bytes()].concat();
            let end = [b"q\x00".as_slice(), names].concat();
            deflated(&begin, b"aaaaaaaaaa", 400_000, &end)
        }),
        (
            "inflated: blanks",
            deflated(b"", &[b' '; 1 << 16], 512, b""),
        ),
        (
            "inflated: escapes in a name",
            inflated(b"{\"\\n", b"\\n", b"\":1}"),
        ),
        (
            "inflated: escapes in a text",
            inflated(
                b"{\"created\":\"\\n",
                b"\\n",
                b"\",\"managed_dict\":{},\"timeout\":1}",
            ),
        ),
        (
            "lists in a cookie",
            full(b"{\"cookie\":{\"a\":[[]", b",[]", b"]}}"),
        ),
        (
            "members in a cookie",
            full(b"{\"cookie\":{\"a\":0", b",\"a\":{}", b"}}"),
        ),
        (
            "an age of lists",
            full(b"{\"cookie\":{\"originalMaxAge\":[[]", b",[]", b"]}}"),
        ),
        ("cookies", full(b"{\"cookie\":{}", b",\"cookie\":{}", b"}")),
        (
            "members",
            full(
                b"{\"_session_expiry\":1",
                b",\"_session_expiry\":\"1\"",
                b"}",
            ),
        ),
        ("lists in JSON", full(b"{\"a\":", b"[", b"")),
        ("a number in JSON", full(b"{\"timeout\":", b"9", b"}")),
        (
            "lists in msgpack",
            full(b"\x81\xa1a\xdd\x00\x0f\x00\x00", b"\x90", b""),
        ),
        ("depth in msgpack", full(b"\x81\xa1a", b"\x91", b"\xc0")),
        ("arrays in php", full(b"a|", b"a:1:{i:0;", b"")),
        ("names in php", full(b"", b"!a|", b"")),
        ("a text in php's JSON", full(b"\"\\n", b"\\n", b"\"")),
        ("digits in php", full(b"a|i:", b"1", b";")),
        (
            "arrays in laravel",
            full(b"s:1048000:\"a:1:{i:0;", b"a:1:{i:0;", b""),
        ),
        ("a number in laravel", full(b"", b"1", b"")),
        ("marshal", full(b"\x04\x08{", b"\x00", b"")),
    ]
}

/// The most memory that this process held so far, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let figure = line.unwrap().split_ascii_whitespace().nth(1);
    figure.unwrap().parse().unwrap()
}

/// In the process of its own: reads what it is given as every store.
fn read_one() {
    let mut value = Vec::with_capacity(LONGEST + 1);
    std::io::stdin().read_to_end(&mut value).unwrap();
    assert!(value.len() <= LONGEST);
    let before = peak_kib();
    let mut slowest = Duration::ZERO;
    for store in SessionStore::ALL {
        let begun = Instant::now();
        let _ = read_text(store, &value);
        slowest = slowest.max(begun.elapsed());
    }
    eprintln!("peak {} {}", peak_kib() - before, slowest.as_millis());
}

#[test]
fn whatever_stands_in_a_value_it_takes_little_memory_and_little_time() {
    if std::env::var_os(CHILD).is_some() {
        return read_one();
    }
    for (what, value) in worst() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1", THIS])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&value).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let figures = text.lines().find_map(|line| {
            let (_, figures) = line.split_once("peak ")?;
            let (kib, millis) = figures.split_once(' ')?;
            Some((kib.parse::<u64>().ok()?, millis.parse::<u64>().ok()?))
        });
        let (kib, millis) = figures.unwrap_or_else(|| panic!("{what}: {text}"));
        eprintln!("{what}: {kib} KiB, {millis} ms");
        assert!(kib <= MOST_KIB, "{what}: {kib} KiB");
        assert!(millis < 10_000, "{what}: {millis} ms");
    }
}

#[test]
fn what_is_longer_than_is_read_is_too_long() {
    let session = |length: usize| filled(length, b"{\"cookie\":{},\"a\":\"", b"a", b"\"}");
    assert!(read_text(SessionStore::Express, &session(LONGEST)).is_ok());
    assert_eq!(
        read_text(SessionStore::Express, &session(LONGEST + 1)),
        Err(Unreadable::TooLong)
    );
}
