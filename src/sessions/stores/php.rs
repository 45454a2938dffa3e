//! What PHP's sessions look like, phpredis' own and Laravel's.
//!
//! No times stand in them. What is read is whether the value is a session at all: the notation of `serialize()`
//! is walked to its end, without recursion, with one number kept for each array that is open.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::datum::json_members;
use crate::sessions::facts::{Times, Unreadable};

/// The header of igbinary, format 1 or 2 (`igbinary.c`), in front of an array or a text.
fn igbinary(value: &[u8]) -> Option<&[u8]> {
    let (header, rest) = value.split_first_chunk::<4>()?;
    matches!(header, [0, 0, 0, 1 | 2]).then_some(rest)
}

/// A session of phpredis: as `session.serialize_handler` makes it, `php` (`name|value` after each other),
/// `php_serialize` or igbinary. The empty one is an empty text.
pub(super) fn read_php(value: &[u8]) -> Result<Times, Unreadable> {
    let session = if let Some(rest) = igbinary(value) {
        // An array of up to 2^8, 2^16 or 2^32 members.
        matches!(rest, [0x14..=0x16, _, ..])
    } else if value.starts_with(b"a:") {
        is_serialized(value) || is_named(value)
    } else {
        is_named(value)
    };
    session.then(Times::default).ok_or(Unreadable::Format)
}

/// A session of Laravel's `redis` driver, which is its cache: the payload, as a text of `serialize()`, or of the
/// serializer that its phpredis connection has. What else the cache holds is no session: its names can be of the same
/// shape (SHA-1 of an address), and a page in JSON is a text as well. So what is not encrypted has to have what
/// `Illuminate\Session\Store` puts into every session, `_token` as it starts and `_flash` as it saves.
pub(super) fn read_laravel(value: &[u8]) -> Result<Times, Unreadable> {
    let outer = match igbinary(value) {
        Some(rest) => Cow::from(igbinary_text(rest).ok_or(Unreadable::NotASession)?),
        None if value.starts_with(b"\"") => serde_json::from_slice::<String>(value)
            .map_err(|_| Unreadable::Format)?
            .into_bytes()
            .into(),
        None => Cow::from(value),
    };
    let payload = match serialized_text(&outer) {
        Some(payload) => payload,
        // The connection's serializer can be the only one; without one this is something else of the cache.
        None if *outer != *value => &outer,
        None if is_serialized(value) || is_numeric(value) => return Err(Unreadable::NotASession),
        None => return Err(Unreadable::Format),
    };
    let session = is_encrypted(payload)
        || has_member(payload, &["_token", "_flash"])
        || json_members::<IgnoredAny, 2>(payload, ["_token", "_flash"])
            .is_ok_and(|found| found.iter().any(Option::is_some));
    session.then(Times::default).ok_or(Unreadable::NotASession)
}

fn is_numeric(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| text.parse::<f64>().is_ok())
}

/// A payload of Laravel's encrypter: base64 of JSON that begins with `{"iv":"`.
fn is_encrypted(payload: &[u8]) -> bool {
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    payload.starts_with(b"eyJpdiI6I") && payload.iter().all(base64)
}

/// The text after igbinary's header, all of it: a type that tells how wide the length is.
fn igbinary_text(rest: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = rest.split_first()?;
    let width = match kind {
        0x11 => 1,
        0x12 => 2,
        0x13 => 4,
        _ => return None,
    };
    let (length, text) = rest.split_at_checked(width)?;
    let length = length
        .iter()
        .fold(0, |all, byte| all << 8 | usize::from(*byte));
    (text.len() == length).then_some(text)
}

/// The text in `s:5:"hello";`, when that is all.
fn serialized_text(value: &[u8]) -> Option<&[u8]> {
    let mut walker = Walker { rest: value };
    walker.exactly(b"s:")?;
    let text = walker.quoted()?;
    walker.exactly(b";")?;
    walker.rest.is_empty().then_some(text)
}

/// Whether it is one value of `serialize()`.
fn is_serialized(value: &[u8]) -> bool {
    let mut walker = Walker { rest: value };
    walker.value().is_some() && walker.rest.is_empty()
}

/// Whether it is one array of `serialize()` that has something by one of these names.
fn has_member(value: &[u8], names: &[&str]) -> bool {
    let mut walker = Walker { rest: value };
    walker.array_with(names) == Some(true) && walker.rest.is_empty()
}

/// Whether it is `name|value` after each other; `!name|` for a name without value.
fn is_named(value: &[u8]) -> bool {
    let mut walker = Walker { rest: value };
    while !walker.rest.is_empty() {
        let undefined = walker.rest.starts_with(b"!");
        let walked = walker
            .until(b'|')
            .and_then(|_| if undefined { Some(()) } else { walker.value() });
        if walked.is_none() {
            return false;
        }
    }
    true
}

/// Walks the notation of `serialize()`: PHP's `ext/standard/var_unserializer.re`.
struct Walker<'a> {
    rest: &'a [u8],
}

impl<'a> Walker<'a> {
    fn exactly(&mut self, bytes: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(bytes)?;
        Some(())
    }

    /// What stands before a byte, which is passed.
    fn until(&mut self, end: u8) -> Option<&'a [u8]> {
        let at = self.rest.iter().position(|byte| *byte == end)?;
        let before = &self.rest[..at];
        self.rest = &self.rest[at + 1..];
        Some(before)
    }

    fn count(&mut self, end: u8) -> Option<usize> {
        let digits = self.until(end)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    /// `5:"hello"`.
    fn quoted(&mut self) -> Option<&'a [u8]> {
        let length = self.count(b':')?;
        self.exactly(b"\"")?;
        let text = self.take(length)?;
        self.exactly(b"\"")?;
        Some(text)
    }

    /// One array with all that stands in it; whether it has something by one of these names.
    fn array_with(&mut self, names: &[&str]) -> Option<bool> {
        self.exactly(b"a:")?;
        let members = self.count(b':')?;
        self.exactly(b"{")?;
        let mut found = false;
        for _ in 0..members {
            if self.rest.starts_with(b"s:") {
                self.exactly(b"s:")?;
                let name = self.quoted()?;
                self.exactly(b";")?;
                found |= names.iter().any(|wanted| wanted.as_bytes() == name);
            } else if self.rest.starts_with(b"i:") {
                self.value()?;
            } else {
                return None;
            }
            self.value()?;
        }
        self.exactly(b"}")?;
        Some(found)
    }

    /// One value with all that stands in it.
    fn value(&mut self) -> Option<()> {
        // How many keys and values each open array still wants.
        let mut open: Vec<usize> = Vec::new();
        loop {
            if let Some(wanted) = self.one(open.last().copied())? {
                open.push(wanted);
            }
            while open.last() == Some(&0) {
                self.exactly(b"}")?;
                open.pop();
            }
            match open.last_mut() {
                Some(wanted) => *wanted -= 1,
                None => return Some(()),
            }
        }
    }

    /// One value, or the head of an array or object: how many keys and values it wants.
    fn one(&mut self, wanted: Option<usize>) -> Option<Option<usize>> {
        let (kind, _) = self.rest.split_first()?;
        // Keys and values take turns; what is wanted after a key is its value and whole pairs.
        let key = wanted.is_some_and(|wanted| wanted % 2 == 1);
        if key && !matches!(kind, b'i' | b's' | b'S') {
            return None;
        }
        match kind {
            b'N' => self.exactly(b"N;")?,
            b'b' | b'i' | b'd' | b'r' | b'R' => {
                self.take(1)?;
                self.exactly(b":")?;
                let number = self.until(b';')?;
                let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                if number.is_empty() || !number.iter().all(plain) {
                    return None;
                }
            }
            b's' | b'E' => {
                self.take(1)?;
                self.exactly(b":")?;
                self.quoted()?;
                self.exactly(b";")?;
            }
            b'a' => {
                self.exactly(b"a:")?;
                let wanted = self.count(b':')?.checked_mul(2)?;
                self.exactly(b"{")?;
                return Some(Some(wanted));
            }
            b'O' => {
                self.exactly(b"O:")?;
                self.quoted()?;
                self.exactly(b":")?;
                let wanted = self.count(b':')?.checked_mul(2)?;
                self.exactly(b"{")?;
                return Some(Some(wanted));
            }
            // An object that wrote itself.
            b'C' => {
                self.exactly(b"C:")?;
                self.quoted()?;
                self.exactly(b":")?;
                let length = self.count(b':')?;
                self.exactly(b"{")?;
                self.take(length)?;
                self.exactly(b"}")?;
            }
            _ => return None,
        }
        Some(None)
    }
}
