//! Where a key's name ends and its ID begins.
//!
//! A report names key prefixes, and a session's ID is a login token: what is shown must never hold a part of one.
//! So a prefix is not "what comes before the ID" but "what is certainly not one": pieces that read as words, up to
//! a separator, or up to something whose shape is that of an ID to the very end of the name. The traps: IDs that
//! hold `-` and `_` themselves, IDs glued to a word without separator (`websauna_session<64 hex>`,
//! `…sessions.cache<32>`), IDs that are all letters, and names with no prefix at all.
//!
//! Where a piece of a random ID could pass for a word (`ab-Xy…`), the cut is not [`Cut::sure`]: whoever shows it
//! waits until several keys share it, which pieces of random IDs do not.

use crate::units::HumanCount;

/// Words are no longer than this: nothing that is all letters and longer is shown.
const LONGEST_WORD: usize = 16;
/// In front of what may be an ID or not, words have so many letters.
const SHORTEST_WORD: usize = 3;
/// A prefix is no longer than this.
pub const LONGEST_PREFIX: usize = 96;

/// What follows a prefix, by its looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Nothing: the name is whole.
    Whole,
    /// So many hex digits.
    Hex(usize),
    /// A UUID, and nothing after it.
    Uuid,
    /// So many letters, digits, `-` and `_`.
    Token(usize),
    /// Anything else.
    Other,
}

/// A key's name, cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut<'k> {
    /// What may be shown.
    pub prefix: &'k [u8],
    /// What may not.
    pub rest: &'k [u8],
    /// Its looks.
    pub shape: Shape,
    /// Whether the prefix cannot be the beginning of an ID.
    pub sure: bool,
}

/// Cuts a key's name.
pub fn cut(key: &[u8]) -> Cut<'_> {
    let mut begin = 0;
    loop {
        let segment = &key[begin..];
        let end = segment.iter().position(|byte| is_hard(*byte));
        let Some(end) = end else {
            return last(key, begin);
        };
        if !is_wordy(&segment[..end]) || begin + end + 1 > LONGEST_PREFIX {
            let head = match inner(&segment[..end]) {
                (head, Inner::Id) => head,
                _ => 0,
            };
            return at(key, begin + head, true);
        }
        begin += end + 1;
    }
}

/// The prefix that is the next shorter one, cut at a separator; `None` for what has none.
pub fn parent(prefix: &[u8]) -> Option<&[u8]> {
    let (_, before) = prefix.split_last()?;
    let end = before
        .iter()
        .rposition(|byte| is_hard(*byte) || is_soft(*byte))?;
    Some(&prefix[..=end])
}

/// Whether a prefix ends where a part of the name ends for certain.
pub fn ends_hard(prefix: &[u8]) -> bool {
    prefix.last().is_some_and(|byte| is_hard(*byte))
}

fn at(key: &[u8], begin: usize, sure: bool) -> Cut<'_> {
    let (begin, sure) = if begin > LONGEST_PREFIX {
        (0, true)
    } else {
        (begin, sure)
    };
    let (prefix, rest) = key.split_at(begin);
    Cut {
        prefix,
        rest,
        shape: shape(rest),
        sure: sure || prefix.is_empty(),
    }
}

/// Cuts in the last segment, which begins at `begin`.
fn last(key: &[u8], begin: usize) -> Cut<'_> {
    let segment = &key[begin..];
    let (head, kind) = inner(segment);
    match kind {
        Inner::Id => at(key, begin + head, true),
        // Behind a separator that no ID holds anything may be an ID.
        _ if begin > 0 => at(key, begin, true),
        Inner::Words if segment.len() <= LONGEST_PREFIX => Cut {
            prefix: key,
            rest: &[],
            shape: Shape::Whole,
            sure: true,
        },
        Inner::Words => at(key, 0, true),
        Inner::Unsure => at(key, said(segment, head), false),
    }
}

/// Takes short pieces from the end of words that an ID may follow: `x_` is an ID's more often than a name's.
fn said(segment: &[u8], mut head: usize) -> usize {
    while head > 0 {
        let piece = segment[..head - 1]
            .iter()
            .rposition(|byte| is_soft(*byte))
            .map_or(0, |at| at + 1);
        if head - 1 - piece >= SHORTEST_WORD {
            break;
        }
        head = piece;
    }
    head
}

enum Inner {
    /// An ID of a known shape begins here, and words stand before it.
    Id,
    /// There are only words.
    Words,
    /// Words end here, and something else begins.
    Unsure,
}

/// What Django puts before a session's ID, without a separator.
const DJANGO: [&[u8]; 2] = [
    b"django.contrib.sessions.cached_db",
    b"django.contrib.sessions.cache",
];

fn inner(segment: &[u8]) -> (usize, Inner) {
    if segment.first() == Some(&b'd')
        && let Some(name) = DJANGO.iter().find(|name| segment.starts_with(name))
    {
        return (name.len(), Inner::Id);
    }
    let before_hex = segment.len() - trailing(segment, HEX);
    if segment.len() - before_hex >= 16 && is_wordy(&segment[..before_hex]) {
        return (before_hex, Inner::Id);
    }
    let words = words_end(segment);
    if words == segment.len() {
        return (words, Inner::Words);
    }
    if let Some(begin) = find_uuid(segment) {
        let head = if is_wordy(&segment[..begin]) {
            begin
        } else {
            0
        };
        return (head, Inner::Id);
    }
    let before_digits = segment.len() - trailing(segment, DIGIT);
    if segment.len() - before_digits >= 3 && is_wordy(&segment[..before_digits]) {
        return (before_digits, Inner::Id);
    }
    (words, Inner::Unsure)
}

/// Where the last of the words from the beginning ends, its separator included. What follows has no word at
/// its beginning; the end of the segment when all of it is words.
fn words_end(segment: &[u8]) -> usize {
    let mut begin = 0;
    loop {
        let piece = &segment[begin..];
        match piece.iter().position(|byte| is_soft(*byte)) {
            Some(end) if is_word(&piece[..end]) => begin += end + 1,
            None if is_word(piece) => return segment.len(),
            _ => return begin,
        }
    }
}

fn is_wordy(segment: &[u8]) -> bool {
    words_end(segment) == segment.len()
}

/// Whether it reads as a word, or as a small number such as a version, and not as a piece of an ID.
fn is_word(piece: &[u8]) -> bool {
    if piece.len() > LONGEST_WORD {
        return false;
    }
    let letters = piece
        .iter()
        .take_while(|byte| byte.is_ascii_alphabetic())
        .count();
    let digits = piece.len() - letters;
    if !piece[letters..].iter().all(u8::is_ascii_digit) {
        return false;
    }
    match (letters, digits) {
        (_, 0) => has_one_case(piece) && can_be_said(piece),
        (0, _) => digits <= 2,
        _ => letters <= 8 && digits <= 3 && has_one_case(&piece[..letters]),
    }
}

/// `word`, `WORD`, `Word`, `twoWords`, `TwoWords`.
fn has_one_case(letters: &[u8]) -> bool {
    if letters.iter().all(u8::is_ascii_uppercase) {
        return true;
    }
    let mut small = 2;
    for (index, byte) in letters.iter().enumerate() {
        if byte.is_ascii_lowercase() {
            small += 1;
        } else if index > 0 && small < 2 {
            return false;
        } else {
            small = 0;
        }
    }
    small >= 1
}

/// No five consonants in a row, and from six letters on a vowel.
fn can_be_said(letters: &[u8]) -> bool {
    let (mut row, mut vowels) = (0, 0);
    for byte in letters {
        if matches!(
            byte.to_ascii_lowercase(),
            b'a' | b'e' | b'i' | b'o' | b'u' | b'y'
        ) {
            vowels += 1;
            row = 0;
        } else {
            row += 1;
        }
        if row > 4 {
            return false;
        }
    }
    letters.len() < 6 || vowels > 0
}

const HARD: u8 = 1;
const SOFT: u8 = 2;
const HEX: u8 = 4;
const DIGIT: u8 = 8;
const TOKEN: u8 = 16;

/// What each byte may be: every key's name passes here.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        // Separators that no session ID holds.
        if matches!(byte, b':' | b'|' | b'#' | b';' | b'{' | b'}' | b' ') || byte < 0x20 {
            kinds[at] |= HARD;
        }
        // Separators that stand between words, and in some IDs as well.
        if matches!(byte, b'_' | b'-' | b'.' | b'/' | b',') {
            kinds[at] |= SOFT;
        }
        if byte.is_ascii_hexdigit() {
            kinds[at] |= HEX;
        }
        if byte.is_ascii_digit() {
            kinds[at] |= DIGIT;
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            kinds[at] |= TOKEN;
        }
        at += 1;
    }
    kinds
};

fn is(byte: u8, kind: u8) -> bool {
    KINDS[usize::from(byte)] & kind != 0
}

fn is_hard(byte: u8) -> bool {
    is(byte, HARD)
}

fn is_soft(byte: u8) -> bool {
    is(byte, SOFT)
}

/// How many bytes at the end are of a kind.
fn trailing(segment: &[u8], kind: u8) -> usize {
    let other = segment.iter().rposition(|byte| !is(*byte, kind));
    other.map_or(segment.len(), |at| segment.len() - at - 1)
}

/// Where a UUID begins.
fn find_uuid(segment: &[u8]) -> Option<usize> {
    segment
        .windows(36)
        .position(|part| part[8] == b'-' && is_uuid(part))
}

fn is_uuid(text: &[u8]) -> bool {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    text.len() == 36
        && DASHES.iter().all(|at| text[*at] == b'-')
        && text
            .iter()
            .enumerate()
            .all(|(at, byte)| is(*byte, HEX) || DASHES.contains(&at))
}

fn shape(rest: &[u8]) -> Shape {
    let all = rest
        .iter()
        .fold(u8::MAX, |all, byte| all & KINDS[usize::from(*byte)]);
    if all & HEX != 0 {
        Shape::Hex(rest.len())
    } else if is_uuid(rest) {
        Shape::Uuid
    } else if all & TOKEN != 0 {
        Shape::Token(rest.len())
    } else {
        Shape::Other
    }
}

/// A key's name for a person's eyes, its ID left out: its prefix where that is certain, else at most its
/// first 4 bytes, and its length.
pub fn masked(key: &[u8]) -> String {
    let cut = cut(key);
    let head = if cut.sure && cut.shape != Shape::Whole && !cut.prefix.is_empty() {
        cut.prefix
    } else {
        &key[..(key.len() / 4).min(4)]
    };
    let bytes = HumanCount(key.len() as u64).of("byte", "bytes");
    format!("\"{}…\" ({bytes})", head.escape_ascii())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
