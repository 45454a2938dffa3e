//! Which keys are meant: databases, globs on bytes, types.
//!
//! A [`KeyPattern`] follows the rules of KEYS and SCAN MATCH (`stringmatchlen` in the servers' `util.c`), oddities
//! included: a class that is not closed ends with the pattern, `[a-]` is a range up to `]`, a lone `\` at the end is itself.
//! It is compiled once, and matching costs at most pattern × key, whatever the pattern: the servers' own recursion is not taken over.
//! Two things are told apart from the servers: bytes are compared unsigned in ranges, as theirs are on ARM (on x86
//! `[a-\xff]` is nonsense there), and a pattern of stars alone matches the empty key too, as `*` does everywhere.
//!
//! Key names are login tokens more often than not: [`shown`] is how they enter a log, a plan or an error.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use crate::rdb::{Damage, DbIndex, KeyHead, LogicalType};
use crate::units::HumanCount;

/// A glob on bytes, by Redis's rules.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPattern {
    source: Vec<u8>,
    tokens: Vec<Token>,
}

#[derive(Clone, PartialEq, Eq)]
enum Token {
    /// `*`; never two in a row.
    Star,
    /// `?`
    Any,
    /// The byte itself.
    Byte(u8),
    /// `[…]`: a bit for each byte that it takes.
    Class(Box<[u64; 4]>),
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Token::Star | Token::Any => true,
            Token::Byte(own) => *own == byte,
            Token::Class(bits) => bits[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1,
        }
    }
}

impl KeyPattern {
    /// Compiles a pattern. Every pattern means something, so this cannot fail.
    pub fn new(source: impl Into<Vec<u8>>) -> KeyPattern {
        let source = source.into();
        let mut tokens = Vec::new();
        let mut rest = source.as_slice();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match byte {
                b'*' => {
                    if tokens.last() != Some(&Token::Star) {
                        tokens.push(Token::Star);
                    }
                }
                b'?' => tokens.push(Token::Any),
                b'[' => {
                    let (class, after) = class(rest);
                    tokens.push(Token::Class(Box::new(class)));
                    rest = after;
                }
                b'\\' if !rest.is_empty() => {
                    tokens.push(Token::Byte(rest[0]));
                    rest = &rest[1..];
                }
                byte => tokens.push(Token::Byte(byte)),
            }
        }
        KeyPattern { source, tokens }
    }

    /// Whether it takes the whole of `key`.
    pub fn matches(&self, key: &[u8]) -> bool {
        let (mut token, mut at) = (0, 0);
        // Where to go on when what follows the last star does not fit: only the last one matters.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.tokens.get(token) {
                Some(Token::Star) => {
                    token += 1;
                    if token == self.tokens.len() {
                        return true;
                    }
                    retry = Some((token, at));
                    continue;
                }
                Some(single) if at < key.len() && single.takes(key[at]) => {
                    token += 1;
                    at += 1;
                    continue;
                }
                None if at == key.len() => return true,
                _ => {}
            }
            match &mut retry {
                Some((after_star, from)) if *from < key.len() => {
                    *from += 1;
                    token = *after_star;
                    at = *from;
                }
                _ => return false,
            }
        }
    }
}

impl fmt::Debug for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPattern({})", self.source.escape_ascii())
    }
}

impl fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.escape_ascii().fmt(f)
    }
}

/// The class behind a `[`, and what follows it in the pattern.
fn class(mut rest: &[u8]) -> ([u64; 4], &[u8]) {
    let mut bits = [0_u64; 4];
    let mut set = |from: u8, to: u8| {
        for byte in from.min(to)..=from.max(to) {
            bits[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
    };
    let negated = rest.first() == Some(&b'^');
    if negated {
        rest = &rest[1..];
    }
    loop {
        match *rest {
            [] => break,
            [b'\\', byte, ..] => {
                set(byte, byte);
                rest = &rest[2..];
            }
            [b']', ..] => {
                rest = &rest[1..];
                break;
            }
            [from, b'-', to, ..] => {
                set(from, to);
                rest = &rest[3..];
            }
            [byte, ..] => {
                set(byte, byte);
                rest = &rest[1..];
            }
        }
    }
    if negated {
        bits = bits.map(|word| !word);
    }
    (bits, rest)
}

/// Which keys are meant. Empty lists mean all; several entries of one list are alternatives, the lists all apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// `--db`: the databases that keys come from.
    pub databases: BTreeSet<DbIndex>,
    /// `--match`: at least one takes the key.
    pub include: Vec<KeyPattern>,
    /// `--exclude`: none takes the key.
    pub exclude: Vec<KeyPattern>,
    /// `--type`: what TYPE says.
    pub types: BTreeSet<LogicalType>,
}

impl Filters {
    /// Whether every key is meant.
    pub fn is_all(&self) -> bool {
        self.databases.is_empty()
            && self.include.is_empty()
            && self.exclude.is_empty()
            && self.types.is_empty()
    }

    /// Whether this database is meant.
    pub fn takes_database(&self, db: DbIndex) -> bool {
        self.databases.is_empty() || self.databases.contains(&db)
    }

    /// Whether keys' names have to be looked at.
    fn needs_names(&self) -> bool {
        !self.include.is_empty() || !self.exclude.is_empty()
    }

    /// Whether a key with this name is meant, its database and type aside.
    pub fn takes_name(&self, key: &[u8]) -> bool {
        (self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(key)))
            && !self.exclude.iter().any(|pattern| pattern.matches(key))
    }

    /// Whether a key is meant.
    ///
    /// # Errors
    /// Its name has to be looked at, and is damaged.
    pub fn takes(&self, head: &KeyHead<'_>) -> Result<bool, Damage> {
        match self.needs_names() {
            true => Ok(self.taken(head)?.is_some()),
            false => Ok(self.takes_but_for_name(head)),
        }
    }

    /// The name of a key that is meant.
    ///
    /// # Errors
    /// It is damaged.
    pub fn taken<'a>(&self, head: &KeyHead<'a>) -> Result<Option<Cow<'a, [u8]>>, Damage> {
        if !self.takes_but_for_name(head) {
            return Ok(None);
        }
        let name = head.key.decode()?;
        Ok(self.takes_name(&name).then_some(name))
    }

    /// Whether a key is meant, its name aside.
    pub fn takes_but_for_name(&self, head: &KeyHead<'_>) -> bool {
        self.takes_database(head.db) && self.takes_type(head.value_type.logical())
    }

    fn takes_type(&self, logical: LogicalType) -> bool {
        self.types.is_empty() || self.types.contains(&logical)
    }
}

/// Whether key names may be shown whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyNames {
    /// Only their beginning: a session's key is a login token.
    #[default]
    Masked,
    /// Whole: `--show-keys`.
    Shown,
}

/// A key's name for a person's eyes. Masked, at most a quarter of it and 8 bytes are shown, and its length.
pub fn shown(key: &[u8], names: KeyNames) -> String {
    match names {
        KeyNames::Shown => format!("\"{}\"", key.escape_ascii()),
        KeyNames::Masked => {
            let head = &key[..(key.len() / 4).min(8)];
            let bytes = HumanCount(key.len() as u64).of("byte", "bytes");
            format!("\"{}…\" ({bytes})", head.escape_ascii())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(pattern: &[u8], key: &[u8]) -> bool {
        KeyPattern::new(pattern).matches(key)
    }

    #[test]
    fn patterns_mean_what_they_mean_to_keys_and_scan() {
        for (pattern, key, wanted) in [
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("", "x", false),
            ("a*", "a", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("*a*b*", "xaxbx", true),
            ("?", "", false),
            ("h?llo", "hello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a\\", "a\\", true),
            ("[\\]]", "]", true),
            ("[]", "]", false),
            ("[", "[", false),
            ("[^", "x", true),
            ("[ab", "b", true),
            ("[a-]", "^", true),
            ("[a-]x", "x", true),
            ("[-a]", "-", true),
            ("[\\a-c]", "-", true),
            ("[\\a-c]", "b", false),
            ("x**y", "xy", true),
            ("session:*", "session:1", true),
            ("session:*", "Session:1", false),
        ] {
            assert_eq!(
                takes(pattern.as_bytes(), key.as_bytes()),
                wanted,
                "{pattern} on {key}"
            );
        }
        assert!(takes(b"\x00?\xff", b"\x00\x80\xff"));
        assert!(takes(b"[\x80-\xff]", b"\xc3"));
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_pattern_times_key() {
        let pattern = KeyPattern::new(b"*a".repeat(2000));
        let key = [b"a".repeat(1500), b"b".to_vec()].concat();
        let begun = std::time::Instant::now();
        assert!(!pattern.matches(&key));
        assert!(begun.elapsed().as_secs() < 2);
    }

    #[test]
    fn all_lists_apply_and_exclude_wins() {
        let filters = Filters {
            databases: [DbIndex(1)].into(),
            include: vec![KeyPattern::new(*b"a*"), KeyPattern::new(*b"b*")],
            exclude: vec![KeyPattern::new(*b"*z")],
            types: [LogicalType::Hash].into(),
        };
        assert!(filters.takes_database(DbIndex(1)) && !filters.takes_database(DbIndex(0)));
        assert!(
            filters.takes_name(b"bx") && !filters.takes_name(b"bz") && !filters.takes_name(b"c")
        );
        assert!(filters.takes_type(LogicalType::Hash) && !filters.takes_type(LogicalType::Set));
        assert!(!filters.is_all() && Filters::default().is_all());
        assert!(
            Filters::default().takes_name(b"") && Filters::default().takes_database(DbIndex(7))
        );
    }

    #[test]
    fn a_masked_key_shows_its_beginning_only() {
        let key = b"websauna_session0123456789abcdef";
        assert_eq!(shown(key, KeyNames::Masked), "\"websauna…\" (32 bytes)");
        assert_eq!(shown(b"abc", KeyNames::Masked), "\"…\" (3 bytes)");
        assert_eq!(shown(b"a", KeyNames::Masked), "\"…\" (1 byte)");
        assert_eq!(shown(b"a\x00", KeyNames::Shown), "\"a\\x00\"");
    }
}
