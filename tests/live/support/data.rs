//! Data of every shape: each type in each encoding that the server has, on both sides of its thresholds, with binary
//! keys, expiries and several databases. The same call gives the same keys and values on every server of a kind.

use super::client::{Client, Command};
use super::servers::Kind;
use crate::cmd;

/// The databases that [`fill`] puts keys into.
pub const DATABASES: [u32; 4] = [0, 1, 3, 15];

/// Fills a server: everything into database 0, a web site's share into 1 and 3, a handful into 15, and functions.
pub fn fill(client: &mut Client, kind: &Kind) {
    client.select(0);
    client.run_all(strings());
    client.run_all(collections());
    plain_nodes(client, kind);
    streams(client);
    client.run_all(expiring());
    if kind.has_hash_field_expiry() {
        client.run_all(field_expiries());
    }
    client.select(1);
    client.run_all(sessions(300));
    client.select(3);
    client.run_all(celery());
    client.select(15);
    client.run_all(vec![
        cmd!["SET", "last", "database"],
        cmd!["SET", "", "the empty key"],
    ]);
    client.select(0);
    if kind.speaks_redis(7, 0) {
        functions(client);
    }
}

/// `count` session strings of about 400 bytes, as a web framework keeps them, all with an expiry.
pub fn sessions(count: usize) -> Vec<Command> {
    let mut random = Random::new(20_251_122);
    (0..count)
        .map(|number| {
            let token: String = (0..4).map(|_| format!("{:016x}", random.next())).collect();
            let value = format!(
                "{{\"user_id\": {}, \"csrf\": \"{:032x}\", \"locale\": \"en_US\", \"last_path\": \"/product/{}\", \
                 \"ua\": \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\", \"cart\": {:?}}}",
                random.next() % 5_000_000,
                random.next(),
                random.next() % 100_000,
                (0..random.next() % 12).map(|_| random.next() % 1000).collect::<Vec<_>>(),
            );
            let seconds = 7 * 86_400 + number;
            cmd!["SET", format!("websauna_session{token}"), value, "EX", seconds]
        })
        .collect()
}

/// What a Celery worker leaves: a queue, results, bindings.
pub fn celery() -> Vec<Command> {
    let mut commands = Vec::new();
    for number in 0..40 {
        commands.push(cmd![
            "SETEX",
            format!("celery-task-meta-{number:08x}"),
            86_400 + number,
            format!("{{\"status\": \"SUCCESS\", \"result\": {number}}}")
        ]);
        commands.push(cmd![
            "LPUSH",
            "celery",
            format!("{{\"body\": \"W1tdLCB7fV0=\", \"id\": {number}}}")
        ]);
    }
    commands.push(cmd![
        "SADD",
        "_kombu.binding.celery",
        "celery\u{6}\u{16}\u{6}\u{16}celery"
    ]);
    commands.push(cmd!["HSET", "unacked", "tag-1", "[{}, \"\", \"celery\"]"]);
    commands.push(cmd!["ZADD", "unacked_index", "1732312345.678", "tag-1"]);
    commands
}

fn strings() -> Vec<Command> {
    let mut random = Random::new(7);
    let noise = random.bytes(20_000);
    vec![
        cmd!["SET", "string:empty", ""],
        cmd!["SET", "string:int8", 100],
        cmd!["SET", "string:int8:low", -128],
        cmd!["SET", "string:int16", 32_767],
        cmd!["SET", "string:int32", i64::from(i32::MIN)],
        cmd!["SET", "string:int64", i64::MAX],
        cmd!["SET", "string:almost an int", "007"],
        cmd!["SET", "string:embstr", "e".repeat(44)],
        cmd!["SET", "string:raw", "r".repeat(45)],
        cmd!["SET", "string:lzf", "compress me ".repeat(2000)],
        cmd!["SET", "string:noise", noise],
        cmd!["SET", "string:binary", b"\x00\xff\r\n$-1\r\n\xc0\x80"],
        cmd!["SETRANGE", "string:zeros", 100_000, "end"],
        cmd!["SETBIT", "string:bits", 4095, 1],
        cmd!["PFADD", "string:hyperloglog", "a", "b", "c"],
        cmd!["SET", "12345", "a key that is an integer"],
        cmd!["SET", "-7", "and a negative one"],
        cmd!["SET", b"binary \x00\xff\xfe key\r\n", "value"],
        cmd!["SET", "k".repeat(300), "a key that compresses"],
        cmd!["SET", "schlüssel ✓", "wert ✓"],
        cmd!["SET", "glob*[chars]?\\", "not a pattern"],
    ]
}

/// Lists, sets, sorted sets and hashes, each just below and above where the encoding changes, and far above.
fn collections() -> Vec<Command> {
    let mut commands = Vec::new();
    let long = "l".repeat(65);
    for size in [1, 2, 127, 128, 129, 130, 511, 512, 513, 3000] {
        let mut list = cmd!["RPUSH", format!("list:{size}")];
        let mut numbers = cmd!["SADD", format!("set:ints:{size}")];
        let mut words = cmd!["SADD", format!("set:words:{size}")];
        let mut zset = cmd!["ZADD", format!("zset:{size}")];
        let mut hash = cmd!["HSET", format!("hash:{size}")];
        for index in 0..size {
            list.push(format!("element {index}").into_bytes());
            numbers.push((i64::from(index) * 7 - 100).to_string().into_bytes());
            words.push(format!("word {index}").into_bytes());
            zset.push(format!("{}", f64::from(index) * 1.5 - 7.0).into_bytes());
            zset.push(format!("member {index}").into_bytes());
            hash.push(format!("field {index}").into_bytes());
            hash.push(format!("value {index}").into_bytes());
        }
        commands.extend([list, numbers, words, zset, hash]);
    }
    commands.extend([
        cmd![
            "RPUSH",
            "list:mixed",
            "",
            "0",
            "12",
            "13",
            "-1",
            "127",
            "128",
            "4095",
            "4096",
            "-4097"
        ],
        cmd![
            "RPUSH",
            "list:mixed",
            65_535,
            8_388_608,
            i64::from(i32::MAX),
            i64::MIN,
            "9223372036854775808"
        ],
        cmd![
            "RPUSH",
            "list:mixed",
            "s".repeat(63),
            "s".repeat(64),
            "m".repeat(4095),
            "m".repeat(4096)
        ],
        cmd![
            "RPUSH",
            "list:many nodes",
            "n".repeat(5000),
            "n".repeat(5001),
            "o".repeat(5002),
            "p".repeat(5003)
        ],
        cmd!["SADD", "set:int16", 1, 2, 3],
        cmd!["SADD", "set:int32", 1, 2, 70_000],
        cmd!["SADD", "set:int64", 1, 2, i64::MAX, i64::MIN],
        cmd!["SADD", "set:mixed", 1, "two", b"\x00\xff", ""],
        cmd!["SADD", "set:long member", &long, "short"],
        cmd![
            "ZADD",
            "zset:scores",
            "inf",
            "most",
            "-inf",
            "least",
            "-0",
            "minus zero",
            "0",
            "zero"
        ],
        cmd![
            "ZADD",
            "zset:scores",
            "3.141592653589793",
            "pi",
            "1e300",
            "big",
            "5e-324",
            "tiny",
            "-17",
            "int"
        ],
        cmd![
            "ZADD",
            "zset:scores",
            "9007199254740993",
            "past 2^53",
            "0.1",
            "tenth",
            "100",
            b"\xff\x00"
        ],
        cmd![
            "ZADD",
            "zset:big scores",
            "inf",
            &long,
            "-inf",
            "least",
            "-0",
            "minus zero",
            "0.1",
            "tenth"
        ],
        cmd![
            "GEOADD", "zset:geo", 13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"
        ],
        cmd![
            "HSET",
            "hash:mixed",
            "",
            "empty field",
            "empty value",
            "",
            "int",
            12,
            b"\x00\xff",
            b"\xfe\x00"
        ],
        cmd![
            "HSET",
            "hash:long value",
            "field",
            &long,
            "other",
            "o".repeat(20_000)
        ],
    ]);
    commands
}

/// List elements too large for a packed node: they become plain nodes from Redis 7.0 on.
fn plain_nodes(client: &mut Client, kind: &Kind) {
    if kind.speaks_redis(7, 0) {
        // By default only past a gigabyte in 7.0.
        client.run(cmd!["DEBUG", "QUICKLIST-PACKED-THRESHOLD", "1000"]);
    }
    client.run(cmd![
        "RPUSH",
        "list:plain",
        "small",
        "p".repeat(20_000),
        "q".repeat(9000),
        "small again"
    ]);
    if kind.speaks_redis(7, 0) {
        client.run(cmd!["DEBUG", "QUICKLIST-PACKED-THRESHOLD", "0"]);
    }
}

fn streams(client: &mut Client) {
    let mut commands = Vec::new();
    for number in 1..=250_u64 {
        let id = format!("{}-{}", 1_700_000_000_000 + number * 3, number % 4);
        commands.push(cmd![
            "XADD",
            "stream:long",
            &id,
            "type",
            "view",
            "user",
            number
        ]);
        if number <= 5 {
            commands.push(cmd!["XADD", "stream:plain", &id, "field", "value"]);
            commands.push(cmd!["XADD", "stream:groups", &id, "a", number]);
            commands.push(cmd![
                "XADD",
                "stream:deleted",
                &id,
                b"\x00\xff",
                "binary",
                "n",
                number,
                "",
                ""
            ]);
            commands.push(cmd!["XADD", "stream:emptied", &id, "gone", "soon"]);
        }
        if number % 10 == 0 {
            commands.push(cmd![
                "XADD",
                "stream:long",
                format!("{}-9", 1_700_000_000_000 + number * 3),
                "other",
                "fields"
            ]);
        }
    }
    let id = |number: u64| format!("{}-{}", 1_700_000_000_000 + number * 3, number % 4);
    commands.extend([
        cmd!["XDEL", "stream:deleted", id(2), id(5)],
        cmd!["XDEL", "stream:emptied", id(1), id(2), id(3), id(4), id(5)],
        cmd!["XTRIM", "stream:long", "MAXLEN", 180],
        cmd!["XGROUP", "CREATE", "stream:groups", "readers", "0"],
        cmd!["XGROUP", "CREATE", "stream:groups", "nobody", "$"],
        cmd!["XGROUP", "CREATE", "stream:groups", b"bin\x00ary", id(2)],
        cmd![
            "XREADGROUP",
            "GROUP",
            "readers",
            "alice",
            "COUNT",
            3,
            "STREAMS",
            "stream:groups",
            ">"
        ],
        cmd![
            "XREADGROUP",
            "GROUP",
            "readers",
            "bob",
            "COUNT",
            2,
            "STREAMS",
            "stream:groups",
            ">"
        ],
        cmd![
            "XREADGROUP",
            "GROUP",
            "readers",
            "idle",
            "STREAMS",
            "stream:groups",
            ">"
        ],
        cmd!["XACK", "stream:groups", "readers", id(1)],
        cmd!["XCLAIM", "stream:groups", "readers", "bob", 0, id(2)],
        // Deleted, and still pending.
        cmd!["XDEL", "stream:groups", id(3)],
        cmd![
            "XGROUP",
            "CREATE",
            "stream:only a group",
            "g",
            "$",
            "MKSTREAM"
        ],
    ]);
    client.run_all(commands);
}

/// Keys with an expiry, far enough that none goes while a test runs.
fn expiring() -> Vec<Command> {
    vec![
        cmd!["SET", "expiring:string", "v"],
        cmd!["PEXPIREAT", "expiring:string", 4_102_444_800_123_u64],
        cmd!["HSET", "expiring:hash", "f", "v"],
        cmd!["PEXPIREAT", "expiring:hash", 4_102_444_800_000_u64],
        cmd!["SADD", "expiring:set", 1, 2],
        cmd!["PEXPIREAT", "expiring:set", 9_999_999_999_999_u64],
        cmd!["RPUSH", "expiring:list", "x"],
        cmd!["EXPIRE", "expiring:list", 3600],
        cmd!["ZADD", "expiring:zset", 1, "x"],
        cmd!["EXPIRE", "expiring:zset", 86_400],
        cmd!["XADD", "expiring:stream", "1-1", "f", "v"],
        cmd!["EXPIRE", "expiring:stream", 7200],
    ]
}

/// Hashes whose fields expire, packed and unpacked (Redis 7.4 and later, Valkey 9.0 and later).
fn field_expiries() -> Vec<Command> {
    let mut large = cmd!["HSET", "fields:large"];
    for index in 0..600 {
        large.push(format!("field {index}").into_bytes());
        large.push(format!("value {index}").into_bytes());
    }
    vec![
        cmd!["HSET", "fields:small", "a", 1, "b", 2, "c", 3],
        cmd![
            "HPEXPIREAT",
            "fields:small",
            4_102_444_800_123_u64,
            "FIELDS",
            1,
            "a"
        ],
        cmd![
            "HPEXPIREAT",
            "fields:small",
            4_102_444_900_000_u64,
            "FIELDS",
            1,
            "c"
        ],
        large,
        cmd![
            "HPEXPIREAT",
            "fields:large",
            4_102_444_800_000_u64,
            "FIELDS",
            2,
            "field 1",
            "field 599"
        ],
        cmd!["HSET", "fields:and key", "a", 1],
        cmd![
            "HPEXPIREAT",
            "fields:and key",
            4_102_444_800_001_u64,
            "FIELDS",
            1,
            "a"
        ],
        cmd!["PEXPIREAT", "fields:and key", 4_102_444_800_002_u64],
    ]
}

/// The name of a function library that [`fill`] loads.
pub const LIBRARY: &str = "rdbkeeper_test";

fn functions(client: &mut Client) {
    for name in [LIBRARY, "rdbkeeper_other"] {
        let code = format!(
            "#!lua name={name}\n-- {}\nredis.register_function('{name}_f', function(keys, args) return '{name}' end)\n",
            "a comment that compresses well, ".repeat(10)
        );
        client.run(cmd!["FUNCTION", "LOAD", code]);
    }
}

/// A small generator of numbers that is the same everywhere: xorshift64*.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed that is not zero.
    pub fn new(seed: u64) -> Random {
        Random(seed.max(1))
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound
    }

    /// Bytes that do not compress.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 32) as u8).collect()
    }
}
