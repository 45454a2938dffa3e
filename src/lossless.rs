//! Any bytes as text, and back: nothing is lost, and a terminal or a line-based tool takes no harm.
//!
//! Bytes that are not UTF-8 and control characters (category Cc) are written `\xNN`, a backslash `\\`; all other
//! characters stand for themselves. So different bytes have different texts. In a JSON string that text is escaped once
//! more, as JSON wants it: `\\xNN`, `\\\\`, `\"`.
//!
//! The trap: this is where an export spends its time. Runs of bytes that need no care are found many at once and copied
//! whole.

/// How the three things that need care are written.
trait Form {
    const BACKSLASH: &[u8];
    const QUOTE: &[u8];
    const HEX: &[u8];
}

struct Text;

impl Form for Text {
    const BACKSLASH: &[u8] = br"\\";
    const QUOTE: &[u8] = b"\"";
    const HEX: &[u8] = br"\x";
}

struct Json;

impl Form for Json {
    const BACKSLASH: &[u8] = br"\\\\";
    const QUOTE: &[u8] = br#"\""#;
    const HEX: &[u8] = br"\\x";
}

/// Adds the text of `bytes` to `out`.
pub fn text(bytes: &[u8], out: &mut Vec<u8>) {
    push::<Text>(bytes, out);
}

/// The text of `bytes`.
pub fn text_of(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len());
    text(bytes, &mut out);
    // What is copied is UTF-8, the rest is written in ASCII.
    String::from_utf8_lossy(&out).into_owned()
}

/// Adds the text of `bytes` to `out` as it stands in a JSON string, without the quotes around it. A piece of a longer
/// string must end where [`boundary`] says.
pub fn json(bytes: &[u8], out: &mut Vec<u8>) {
    push::<Json>(bytes, out);
}

/// Where a piece of about `wanted` bytes, at least 4, may end so that no character is cut in two.
pub fn boundary(bytes: &[u8], wanted: usize) -> usize {
    if wanted >= bytes.len() {
        return bytes.len();
    }
    let continues = |at: usize| bytes[at] & 0xc0 == 0x80;
    // No character has more than three bytes after its first: where there are more they are none.
    (wanted.saturating_sub(3)..=wanted)
        .rev()
        .find(|at| *at > 0 && !continues(*at))
        .unwrap_or(wanted)
}

/// The bytes of a text that [`text`] made.
///
/// # Errors
/// It is none: a backslash is followed by neither another nor `x` and two hex digits.
pub fn parse(text: &str) -> Result<Vec<u8>, NotEscaped> {
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    loop {
        let Some(at) = rest.iter().position(|byte| *byte == b'\\') else {
            out.extend_from_slice(rest);
            return Ok(out);
        };
        out.extend_from_slice(&rest[..at]);
        rest = match rest[at + 1..] {
            [b'\\', ..] => {
                out.push(b'\\');
                &rest[at + 2..]
            }
            [b'x', high, low, ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(NotEscaped);
                out.push((digit(high)? << 4 | digit(low)?) as u8);
                &rest[at + 4..]
            }
            _ => return Err(NotEscaped),
        };
    }
}

/// A text in which a backslash stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a backslash is followed by neither another one nor x and two hex digits")]
pub struct NotEscaped;

/// So many bytes are looked at in one step.
const STEP: usize = 16;

/// Whether a byte stands for itself, whatever is around it.
const fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte < 0x7f && byte != b'"' && byte != b'\\'
}

/// How many bytes at the beginning stand for themselves.
#[inline]
fn plain(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(step) = bytes[at..].first_chunk::<STEP>() {
        // No early end within a step: so the compiler makes one comparison of many.
        let all = step.iter().fold(true, |all, byte| all & is_plain(*byte));
        if !all {
            break;
        }
        at += STEP;
    }
    let rest = &bytes[at..];
    at + rest
        .iter()
        .position(|byte| !is_plain(*byte))
        .unwrap_or(rest.len())
}

#[inline]
fn push<F: Form>(bytes: &[u8], out: &mut Vec<u8>) {
    // Where what was not copied yet begins.
    let mut from = 0;
    let mut at = 0;
    loop {
        at += plain(&bytes[at..]);
        let Some(&byte) = bytes.get(at) else {
            out.extend_from_slice(&bytes[from..]);
            return;
        };
        let special = match byte {
            b'"' => F::QUOTE,
            b'\\' => F::BACKSLASH,
            _ => {
                let character = character(&bytes[at..]);
                if character > 0 {
                    at += character;
                    continue;
                }
                out.extend_from_slice(&bytes[from..at]);
                // Where one is, more follow: binary values.
                while let Some(&byte) = bytes.get(at)
                    && (byte < 0x20 || byte >= 0x7f)
                    && character_is_none(&bytes[at..])
                {
                    out.extend_from_slice(F::HEX);
                    out.extend_from_slice(&HEX[usize::from(byte)]);
                    at += 1;
                }
                from = at;
                continue;
            }
        };
        out.extend_from_slice(&bytes[from..at]);
        out.extend_from_slice(special);
        at += 1;
        from = at;
    }
}

fn character_is_none(bytes: &[u8]) -> bool {
    character(bytes) == 0
}

const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = [digits[at >> 4], digits[at & 15]];
        at += 1;
    }
    table
};

/// How long the character beyond ASCII is that stands at the beginning, 0 when none does or it is a control character.
#[inline]
fn character(bytes: &[u8]) -> usize {
    let continues = |byte: u8| byte & 0xc0 == 0x80;
    match *bytes {
        // C2 80 to C2 9F are control characters.
        [0xc2, second, ..] => 2 * usize::from((0xa0..=0xbf).contains(&second)),
        [0xc3..=0xdf, second, ..] => 2 * usize::from(continues(second)),
        [first @ 0xe0..=0xef, second, third, ..] => {
            // Not what fits into two bytes, and no half of a pair of UTF-16.
            let fits = match first {
                0xe0 => second >= 0xa0,
                0xed => second <= 0x9f,
                _ => true,
            };
            3 * usize::from(fits && continues(second) && continues(third))
        }
        [first @ 0xf0..=0xf4, second, third, fourth, ..] => {
            // Not what fits into three bytes, and nothing beyond U+10FFFF.
            let fits = match first {
                0xf0 => second >= 0x90,
                0xf4 => second <= 0x8f,
                _ => true,
            };
            4 * usize::from(fits && continues(second) && continues(third) && continues(fourth))
        }
        _ => 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By the definition: what the standard library says is no character, or one of Cc, byte by byte.
    fn by_definition(bytes: &[u8]) -> String {
        let mut out = String::new();
        let hex = |out: &mut String, bytes: &[u8]| {
            for byte in bytes {
                out.push_str(&format!("\\x{byte:02x}"));
            }
        };
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => out.push_str("\\\\"),
                    c if c.is_control() => hex(&mut out, c.to_string().as_bytes()),
                    c => out.push(c),
                }
            }
            hex(&mut out, chunk.invalid());
        }
        out
    }

    fn json_of(bytes: &[u8]) -> String {
        let mut out = b"\"".to_vec();
        json(bytes, &mut out);
        out.push(b'"');
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn what_needs_care_is_written_as_promised() {
        for (bytes, wanted) in [
            (&b"plain"[..], "plain"),
            (b"", ""),
            (b"a\\b", r"a\\b"),
            (b"\"", "\""),
            (b"\x00\t\n\x1f \x7f", r"\x00\x09\x0a\x1f \x7f"),
            ("ä€😀".as_bytes(), "ä€😀"),
            (
                "\u{80}\u{9f}\u{a0}".as_bytes(),
                "\\xc2\\x80\\xc2\\x9f\u{a0}",
            ),
            (b"\xff\xc3", r"\xff\xc3"),
            (b"\xe2\x82", r"\xe2\x82"),
            (b"\xed\xa0\x80\xc0\x80", r"\xed\xa0\x80\xc0\x80"),
        ] {
            assert_eq!(text_of(bytes), wanted);
            assert_eq!(json_of(bytes), wanted);
            assert_eq!(parse(wanted).unwrap(), bytes);
        }
    }

    #[test]
    fn a_backslash_that_stands_for_nothing_is_an_error() {
        for wrong in ["\\", "\\n", "\\x", "\\x4", "\\xg0", "a\\xé"] {
            assert_eq!(parse(wrong), Err(NotEscaped), "{wrong}");
        }
    }

    #[test]
    fn every_beginning_of_a_character_is_judged_as_the_standard_library_does() {
        for first in 0x70..=0xff_u8 {
            for second in [
                0, 0x22, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff,
            ] {
                for third in [0x41, 0x80, 0xbf] {
                    let bytes = [first, second, third, 0x80, b'x'];
                    for end in 0..=bytes.len() {
                        assert_eq!(text_of(&bytes[..end]), by_definition(&bytes[..end]));
                    }
                }
            }
        }
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<Vec<u8>>(),
            any::<String>().prop_map(String::into_bytes),
            "[ -~]{0,80}".prop_map(String::into_bytes),
            proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\\'), Just(0xc2)], 0..60),
        ]
    }

    proptest! {
        #[test]
        fn escaped_and_read_again_bytes_are_the_same(bytes in bytes()) {
            let escaped = text_of(&bytes);
            prop_assert_eq!(&escaped, &by_definition(&bytes));
            prop_assert!(!escaped.chars().any(char::is_control));
            prop_assert_eq!(&parse(&escaped).unwrap(), &bytes);
            prop_assert_eq!(json_of(&bytes), escaped);
        }

        #[test]
        fn in_pieces_the_text_is_the_same(bytes in bytes(), size in 4_usize..12) {
            let mut pieces = Vec::new();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(boundary(rest, size));
                json(piece, &mut pieces);
                rest = after;
            }
            let mut whole = Vec::new();
            json(&bytes, &mut whole);
            prop_assert_eq!(pieces, whole);
        }
    }
}
