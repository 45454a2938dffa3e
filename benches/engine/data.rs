//! What the benchmarks read: made at random, the same in every run.

use rdbkeeper::rdb::length::{encode, encode_string};
use rdbkeeper::rdb::{DbIndex, Family, FileVersion, NewKey, Writer};

pub const VERSION: FileVersion = FileVersion {
    family: Family::Redis,
    number: 10,
};

/// A cheap generator, the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// A web session as JSON, of about 400 bytes.
pub fn session(random: &mut Random) -> String {
    let cart: Vec<String> = (0..random.below(4))
        .map(|_| {
            format!(
                r#"{{"sku":"SKU-{:06}","qty":{}}}"#,
                random.below(50_000),
                1 + random.below(4)
            )
        })
        .collect();
    format!(
        "{{\"user_id\":{},\"csrf_token\":\"{:016x}{:016x}\",\"locale\":\"en_US\",\"created\":{},\"last_seen\":{},\
         \"ua\":\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36\",\
         \"ip\":\"10.{}.{}.{}\",\"last_path\":\"/product/{}\",\"cart\":[{}],\"flash\":null}}",
        random.below(5_000_000),
        random.next(),
        random.next(),
        1_732_200_000 + random.below(2_592_000),
        1_734_792_000 + random.below(86_400),
        100 + random.below(30),
        random.below(256),
        random.below(256),
        random.below(256),
        random.below(100_000),
        cart.join(","),
    )
}

/// A key with its value in file form: name, type byte, when it expires, value.
pub type Made = (String, u8, Option<i64>, Vec<u8>);

/// Sessions as strings, with an expiry.
pub fn sessions(count: usize) -> Vec<Made> {
    let mut random = Random(0x5e55);
    let key = |random: &mut Random| {
        format!(
            "session:{:016x}{:016x}{:08x}",
            random.next(),
            random.next(),
            7
        )
    };
    (0..count)
        .map(|_| {
            let mut value = Vec::new();
            encode_string(session(&mut random).as_bytes(), &mut value);
            (key(&mut random), 0, Some(1_800_000_000_000), value)
        })
        .collect()
}

/// Listpacks, hashes and sorted sets in their long form, streams, blobs: what a scanner passes through, not all of it true inside.
pub fn mixed(count: usize) -> Vec<Made> {
    let mut random = Random(0x1213);
    (0..count)
        .map(|i| {
            let mut value = Vec::new();
            let code = mixed_value(i, &mut random, &mut value);
            (format!("key:{i}"), code, None, value)
        })
        .collect()
}

fn mixed_value(i: usize, random: &mut Random, value: &mut Vec<u8>) -> u8 {
    match i % 100 {
        0..40 => {
            encode_string(&random.bytes(300), value);
            16
        }
        40..60 => {
            encode(1, value);
            encode(2, value);
            encode_string(&random.bytes(500), value);
            18
        }
        60..80 => {
            encode(20, value);
            for _ in 0..20 {
                encode_string(&random.bytes(15), value);
                value.extend(random.next().to_le_bytes());
            }
            5
        }
        80..97 => {
            encode(1, value);
            encode_string(&random.bytes(16), value);
            encode_string(&random.bytes(400), value);
            for _ in 0..8 {
                encode(random.next() % 20_000, value);
            }
            encode(0, value);
            19
        }
        97 | 98 => {
            encode(2_000, value);
            for field in 0..2_000 {
                encode_string(format!("field:{field}").as_bytes(), value);
                encode_string(&random.bytes(22), value);
            }
            4
        }
        _ => {
            encode_string(&random.bytes(65_536), value);
            0
        }
    }
}

/// A file of these keys.
pub fn file(keys: &[Made]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), VERSION).unwrap();
    writer.select_db(DbIndex(1)).unwrap();
    for (key, code, expire_at_ms, value) in keys {
        let head = NewKey {
            expire_at_ms: *expire_at_ms,
            ..NewKey::new(key.as_bytes(), *code)
        };
        writer.key(&head, value).unwrap();
    }
    writer.finish().unwrap().0
}

/// What a server's LZF makes of some bytes, nearly: each place is remembered by its first three bytes.
pub fn lzf(plain: &[u8]) -> Vec<u8> {
    let mut places = vec![usize::MAX; 1 << 16];
    let (mut out, mut literals, mut at) = (Vec::new(), 0, 0);
    let flush = |out: &mut Vec<u8>, run: &[u8]| {
        for run in run.chunks(32) {
            out.push(run.len() as u8 - 1);
            out.extend_from_slice(run);
        }
    };
    while at < plain.len() {
        let length = plain.get(at..at + 3).map_or(0, |three| {
            let slot =
                (usize::from(three[0]) << 8 ^ usize::from(three[1]) << 4 ^ usize::from(three[2]))
                    & 0xffff;
            let from = std::mem::replace(&mut places[slot], at);
            if from == usize::MAX || at - from > 8192 {
                return 0;
            }
            let (there, here) = (&plain[from..], &plain[at..]);
            let same = there
                .iter()
                .zip(here)
                .take(264)
                .take_while(|(a, b)| a == b)
                .count();
            if same < 3 {
                0
            } else {
                flush(&mut out, &plain[literals..at]);
                let (distance, rest) = (at - from - 1, same - 2);
                out.push((rest.min(7) << 5 | distance >> 8) as u8);
                out.extend((rest >= 7).then(|| (rest - 7) as u8));
                out.push(distance as u8);
                same
            }
        });
        at += length.max(1);
        if length > 0 {
            literals = at;
        }
    }
    flush(&mut out, &plain[literals..]);
    out
}
