//! Every type in every encoding that a server has, on both sides of each threshold, with random binary content.
//!
//! The thresholds are set low, so that small values reach them. Each key says which encoding it must have: what is not
//! reached on a server would prove nothing there.

use super::client::{Client, Command};
use super::data::Random;
use super::servers::Kind;
use crate::cmd;

/// So many entries at most has a packed set, sorted set or hash; so many bytes a string in it.
const ENTRIES: usize = 8;
const BYTES: usize = 20;
/// So many elements has a packed list, or a node of one.
const LIST: usize = 4;
/// So many entries has a stream's node.
const NODE: usize = 5;

/// Far enough that nothing expires while a test runs.
const LATE: u64 = 4_102_444_800_000;

/// A key, and what OBJECT ENCODING must say of it.
pub struct Made {
    pub key: Vec<u8>,
    pub encoding: &'static str,
}

/// What is made so far.
struct Maker<'a> {
    kind: &'a Kind,
    random: Random,
    commands: Vec<Command>,
    made: Vec<Made>,
}

/// Sets the thresholds low and fills the selected database.
pub fn fill(client: &mut Client, kind: &Kind, seed: u64) -> Vec<Made> {
    lower(client, kind);
    let mut maker = Maker {
        kind,
        random: Random::new(seed),
        commands: Vec::new(),
        made: Vec::new(),
    };
    maker.strings();
    maker.lists();
    maker.sets();
    maker.zsets();
    maker.hashes();
    maker.streams();
    maker.names();
    client.run_all(maker.commands);
    maker.made
}

/// The thresholds, by the names that servers of every age know.
fn lower(client: &mut Client, kind: &Kind) {
    let mut set = |name: &str, value: usize| {
        client.run(cmd!["CONFIG", "SET", name, value]);
    };
    for of in ["hash", "zset"] {
        set(&format!("{of}-max-ziplist-entries"), ENTRIES);
        set(&format!("{of}-max-ziplist-value"), BYTES);
    }
    set("set-max-intset-entries", ENTRIES);
    set("list-max-ziplist-size", LIST);
    set("stream-node-max-entries", NODE);
    if kind.speaks_redis(7, 2) {
        set("set-max-listpack-entries", ENTRIES);
        set("set-max-listpack-value", BYTES);
    }
    if kind.speaks_redis(7, 0) {
        client.run(cmd!["DEBUG", "QUICKLIST-PACKED-THRESHOLD", "8000"]);
    }
}

impl Maker<'_> {
    fn key(&mut self, name: &str, encoding: &'static str) -> Vec<u8> {
        let key = name.as_bytes().to_vec();
        self.made.push(Made {
            key: key.clone(),
            encoding,
        });
        key
    }

    fn packed(&self) -> &'static str {
        match self.kind.speaks_redis(7, 0) {
            true => "listpack",
            false => "ziplist",
        }
    }

    /// A short string of any kind that packed structures tell apart, and no other of the same number.
    fn short(&mut self, number: usize) -> Vec<u8> {
        let number = number as i64;
        match self.random.below(8) {
            0 => number.to_string().into_bytes(),
            1 => (-number - 1).to_string().into_bytes(),
            2 => (number + (1 << (8 + self.random.below(54))))
                .to_string()
                .into_bytes(),
            3 => (-number - (1 << (8 + self.random.below(54))))
                .to_string()
                .into_bytes(),
            4 => format!("0{number}").into_bytes(),
            _ => {
                let length = self.random.below(BYTES - 2);
                let mut bytes = self.random.bytes(length);
                // No number begins so.
                bytes.insert(0, b'~');
                bytes.push(number as u8);
                bytes
            }
        }
    }

    fn strings(&mut self) {
        let noise = self.random.bytes(9000);
        let ints: [i64; 12] = [
            0,
            127,
            -128,
            128,
            -129,
            32_767,
            -32_769,
            i64::from(i32::MAX),
            i64::from(i32::MIN),
            i64::from(i32::MAX) + 1,
            i64::MAX,
            i64::MIN,
        ];
        for int in ints {
            let key = self.key(&format!("string:int:{int}"), "int");
            self.commands.push(cmd!["SET", key, int]);
        }
        for (name, encoding, value) in [
            ("empty", "embstr", Vec::new()),
            ("almost an int", "embstr", b"-0".to_vec()),
            ("beyond an int", "embstr", b"9223372036854775808".to_vec()),
            ("binary", "embstr", b"\x00\xff\r\n\xc3\x01".to_vec()),
            ("compresses", "raw", b"abcdefghij".repeat(900)),
            ("one byte", "raw", vec![0; 70_000]),
            ("noise", "raw", noise),
        ] {
            let key = self.key(&format!("string:{name}"), encoding);
            self.commands.push(cmd!["SET", key, value]);
        }
    }

    fn lists(&mut self) {
        let small = match self.kind.speaks_redis(7, 2) {
            true => "listpack",
            false => "quicklist",
        };
        for (size, encoding) in [
            (1, small),
            (LIST, small),
            (LIST + 1, "quicklist"),
            (203, "quicklist"),
        ] {
            let key = self.key(&format!("list:{size}"), encoding);
            let mut command = cmd!["RPUSH", key];
            for number in 0..size {
                command.push(self.short(number));
            }
            self.commands.push(command);
        }
        // Around what makes a node plain, and long strings within packed ones.
        let key = self.key("list:long", "quicklist");
        let mut command = cmd!["RPUSH", key];
        for length in [
            63, 64, 253, 254, 4095, 4096, 7999, 8000, 8001, 8192, 9000, 20_000,
        ] {
            command.push(self.random.bytes(length));
            command.push(vec![b'z'; length]);
            command.push(b"12".to_vec());
        }
        self.commands.push(command);
    }

    fn sets(&mut self) {
        let listpack = match self.kind.speaks_redis(7, 2) {
            true => "listpack",
            false => "hashtable",
        };
        for (name, members) in [
            ("16", vec![1, -2, 32_767, -32_768]),
            ("32", vec![1, 70_000, i64::from(i32::MIN)]),
            ("64", vec![1, i64::MAX, i64::MIN, -70_000]),
            (
                "most",
                (0..ENTRIES as i64).map(|n| n * 5000 - 9000).collect(),
            ),
        ] {
            let key = self.key(&format!("set:intset:{name}"), "intset");
            let mut command = cmd!["SADD", key];
            command.extend(members.iter().map(|int| int.to_string().into_bytes()));
            self.commands.push(command);
        }
        let key = self.key("set:ints", "hashtable");
        let mut command = cmd!["SADD", key];
        command.extend((0..=ENTRIES).map(|int| int.to_string().into_bytes()));
        self.commands.push(command);
        for (size, longest, encoding) in [
            (1, BYTES, listpack),
            (ENTRIES, BYTES, listpack),
            (ENTRIES + 1, BYTES, "hashtable"),
            (3, BYTES + 1, "hashtable"),
            (300, 300, "hashtable"),
        ] {
            let key = self.key(&format!("set:{size}:{longest}"), encoding);
            let mut command = cmd!["SADD", key, self.random.bytes(longest)];
            for number in 1..size {
                command.push(self.short(number));
            }
            self.commands.push(command);
        }
    }

    fn zsets(&mut self) {
        const SCORES: [&str; 16] = [
            "0",
            "-0",
            "inf",
            "-inf",
            "1",
            "-1",
            "127",
            "-4097",
            "1e-300",
            "5e-324",
            "0.1",
            "3.141592653589793",
            "-123456.78901234567",
            "9007199254740993",
            "-1e300",
            "4294967296",
        ];
        let packed = self.packed();
        for (size, longest, encoding) in [
            (1, BYTES, packed),
            (ENTRIES - 1, BYTES - 1, packed),
            (ENTRIES, BYTES, packed),
            (ENTRIES + 1, BYTES, "skiplist"),
            (2, BYTES + 1, "skiplist"),
            (200, 100, "skiplist"),
        ] {
            let key = self.key(&format!("zset:{size}:{longest}"), encoding);
            let mut command = cmd!["ZADD", key, "0.5", self.random.bytes(longest)];
            for number in 1..size {
                let score = match self.random.below(3) {
                    0 => format!("{:e}", f64::from_bits(self.random.next() & !(1 << 62))),
                    // Each of them in one or the other.
                    _ => SCORES[(number + size) % SCORES.len()].to_owned(),
                };
                command.push(score.into_bytes());
                command.push(self.short(number));
            }
            self.commands.push(command);
        }
        for (name, encoding) in [("packed", packed), ("unpacked", "skiplist")] {
            for (at, scores) in SCORES.chunks(ENTRIES - 1).enumerate() {
                let key = self.key(&format!("zset:scores:{name}:{at}"), encoding);
                let mut command = cmd!["ZADD", key];
                for score in scores {
                    command.extend([score.as_bytes().to_vec(), format!("s{score}").into_bytes()]);
                }
                if name == "unpacked" {
                    command.extend([b"7".to_vec(), vec![b'l'; BYTES + 1]]);
                }
                self.commands.push(command);
            }
        }
    }

    fn hashes(&mut self) {
        let packed = self.packed();
        for (size, longest, encoding) in [
            (1, BYTES, packed),
            (ENTRIES, BYTES, packed),
            (ENTRIES + 1, BYTES, "hashtable"),
            (2, BYTES + 1, "hashtable"),
            (200, 2000, "hashtable"),
        ] {
            self.hash(&format!("hash:{size}:{longest}"), size, longest, encoding);
        }
        if !self.kind.has_hash_field_expiry() {
            return;
        }
        // Valkey unpacks a hash as soon as one of its fields expires.
        let packed = match self.kind.is_valkey() {
            true => "hashtable",
            false => "listpackex",
        };
        for (size, encoding) in [
            (1, packed),
            (ENTRIES, packed),
            (ENTRIES + 1, "hashtable"),
            (50, "hashtable"),
        ] {
            for (share, step) in [("all", 1), ("some", 3)] {
                let name = format!("fields:{size}:{share}");
                let fields = self.hash(&name, size, BYTES, encoding);
                for field in fields.iter().step_by(step) {
                    let at = LATE + self.random.next() % 100_000_000_000;
                    let command = cmd!["HPEXPIREAT", name, at, "FIELDS", 1, field];
                    self.commands.push(command);
                }
            }
        }
        // All at the same moment; and all but one, whose time is then the greatest or the least.
        for (name, size, encoding, other) in [
            ("same", 5, packed, LATE),
            ("later", ENTRIES + 4, "hashtable", LATE + 1007),
            ("sooner", ENTRIES + 4, "hashtable", LATE - 1),
        ] {
            let name = format!("fields:{name}");
            let fields = self.hash(&name, size, BYTES, encoding);
            for (number, field) in fields.iter().enumerate() {
                let at = if number == 3 { other } else { LATE };
                self.commands
                    .push(cmd!["HPEXPIREAT", name, at, "FIELDS", 1, field]);
            }
        }
    }

    fn hash(
        &mut self,
        name: &str,
        size: usize,
        longest: usize,
        encoding: &'static str,
    ) -> Vec<Vec<u8>> {
        let key = self.key(name, encoding);
        let mut command = cmd!["HSET", key];
        let mut fields = vec![self.random.bytes(longest)];
        for number in 1..size {
            fields.push(self.short(number));
        }
        for (number, field) in fields.iter().enumerate() {
            command.push(field.clone());
            let value = self.short(number);
            command.push(value);
        }
        self.commands.push(command);
        fields
    }

    fn streams(&mut self) {
        for (size, shape) in [
            (1, "same"),
            (NODE, "same"),
            (NODE + 1, "other"),
            (43, "mixed"),
        ] {
            let key = self.key(&format!("stream:{size}:{shape}"), "stream");
            let mut id = (1_700_000_000_000_u64, 0_u64);
            for number in 0..size {
                id = match self.random.below(3) {
                    0 => (id.0, id.1 + 1 + self.random.next() % 70_000),
                    1 => (id.0 + 1, self.random.next() >> 1),
                    _ => (id.0 + self.random.next() % 1_000_000_000, id.1 + 1),
                };
                let mut command = cmd!["XADD", key, format!("{}-{}", id.0, id.1)];
                match (shape, self.random.below(2)) {
                    ("same", _) | ("mixed", 0) => {
                        for field in ["user", "7", "~\0"] {
                            command.push(field.as_bytes().to_vec());
                            let value = self.short(number);
                            command.push(value);
                        }
                    }
                    _ => {
                        for _ in 0..=self.random.below(4) {
                            let pair = [self.short(number), self.short(number)];
                            command.extend(pair);
                        }
                    }
                }
                self.commands.push(command);
            }
        }
        let ids = |key: &str, ids: std::ops::RangeInclusive<u32>| -> Vec<Command> {
            ids.map(|id| cmd!["XADD", key, format!("{id}-1"), "n", id])
                .collect()
        };
        for name in ["deleted", "trimmed", "emptied", "last", "groups", "newest"] {
            self.key(&format!("stream:{name}"), "stream");
            let commands = ids(&format!("stream:{name}"), 1..=17);
            self.commands.extend(commands);
        }
        let [a, b] = [self.random.bytes(12), self.random.bytes(3)];
        self.commands.extend([
            // In a node, at its ends, and a whole one.
            cmd![
                "XDEL",
                "stream:deleted",
                "2-1",
                "6-1",
                "10-1",
                "11-1",
                "12-1",
                "13-1",
                "14-1",
                "15-1"
            ],
            cmd!["XTRIM", "stream:trimmed", "MAXLEN", 8],
            cmd!["XTRIM", "stream:emptied", "MAXLEN", 0],
            cmd!["XDEL", "stream:last", "17-1"],
            cmd!["XSETID", "stream:last", "99-18446744073709551615"],
            cmd![
                "XADD",
                "stream:newest",
                "18446744073709551615-18446744073709551614",
                "",
                ""
            ],
            cmd!["XGROUP", "CREATE", "stream:groups", &a, "0"],
            cmd!["XGROUP", "CREATE", "stream:groups", "nobody", "$"],
            cmd!["XGROUP", "CREATE", "stream:groups", "between", "5-0"],
            cmd!["XGROUP", "CREATE", "stream:emptied", "g", "3-1"],
            cmd![
                "XREADGROUP",
                "GROUP",
                &a,
                &b,
                "COUNT",
                9,
                "STREAMS",
                "stream:groups",
                ">"
            ],
            cmd![
                "XREADGROUP",
                "GROUP",
                &a,
                "bob",
                "COUNT",
                4,
                "STREAMS",
                "stream:groups",
                ">"
            ],
            cmd![
                "XREADGROUP",
                "GROUP",
                &a,
                "idle",
                "STREAMS",
                "stream:groups",
                "0"
            ],
            cmd![
                "XREADGROUP",
                "GROUP",
                "between",
                "",
                "STREAMS",
                "stream:groups",
                ">"
            ],
            cmd!["XACK", "stream:groups", &a, "1-1", "12-1"],
            cmd![
                "XCLAIM",
                "stream:groups",
                &a,
                "bob",
                0,
                "3-1",
                "4-1",
                "IDLE",
                12_345,
                "RETRYCOUNT",
                300
            ],
            cmd![
                "XCLAIM",
                "stream:groups",
                &a,
                "claimer",
                0,
                "5-1",
                "TIME",
                1_600_000_000_000_u64,
                "JUSTID"
            ],
            // Deleted, and still pending.
            cmd!["XDEL", "stream:groups", "7-1"],
            cmd![
                "XGROUP",
                "CREATE",
                "stream:only a group",
                "g",
                "$",
                "MKSTREAM"
            ],
        ]);
        self.key("stream:only a group", "stream");
        if self.kind.speaks_redis(6, 2) {
            self.commands.push(cmd![
                "XGROUP",
                "CREATECONSUMER",
                "stream:groups",
                "nobody",
                "made"
            ]);
        }
    }

    /// Every byte in a name, alone and all together; the empty name.
    fn names(&mut self) {
        let all: Vec<u8> = (0..=255).collect();
        for byte in &all {
            let name = vec![*byte];
            self.commands.push(cmd!["RPUSH", name, name]);
        }
        self.commands.push(cmd!["HSET", all, all, all]);
        self.commands.push(cmd!["SADD", "", ""]);
        self.commands.push(cmd!["PEXPIREAT", "", LATE + 1]);
        self.commands.push(cmd!["EXPIRE", "stream:groups", 86_400]);
    }
}
