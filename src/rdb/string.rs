//! A string as it stands in a file: plain, an integer, or compressed.

use std::borrow::Cow;
use std::fmt;

use super::error::Damage;
use super::length::{Form, string_head};
use super::lzf;
use super::packed::Digits;

/// A string in its file form, whole. Decoded only on demand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StringRef<'a> {
    raw: &'a [u8],
    head: usize,
    form: Form,
}

impl<'a> StringRef<'a> {
    /// The string at the start of `bytes`, if it is whole there.
    ///
    /// # Errors
    /// A head that begins no string.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<StringRef<'a>>, Damage> {
        let Some(head) = string_head(bytes)? else {
            return Ok(None);
        };
        let Ok(body) = usize::try_from(head.body) else {
            return Ok(None);
        };
        let Some(raw) = head.head.checked_add(body).and_then(|end| bytes.get(..end)) else {
            return Ok(None);
        };
        Ok(Some(StringRef::new(raw, head.head, head.form)))
    }

    pub(crate) fn new(raw: &'a [u8], head: usize, form: Form) -> StringRef<'a> {
        StringRef { raw, head, form }
    }

    /// The string's bytes in the file, its head included.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The content, when it is kept plain: no decoding, no copy.
    pub fn plain(&self) -> Option<&'a [u8]> {
        match self.form {
            Form::Plain => Some(&self.raw[self.head..]),
            Form::Int | Form::Lzf { .. } => None,
        }
    }

    /// How many bytes [`StringRef::decode`] will give, as the head announces it; an upper bound for integers.
    pub fn decoded_len(&self) -> u64 {
        match self.form {
            Form::Plain => (self.raw.len() - self.head) as u64,
            // `-2147483648`
            Form::Int => 11,
            Form::Lzf { plain } => plain,
        }
    }

    /// The content, as [`decode`](StringRef::decode) gives it; what must be made is made in `room`, whose content goes.
    ///
    /// # Errors
    /// As [`decode`](StringRef::decode).
    pub fn decode_in<'b>(&self, room: &'b mut Vec<u8>) -> Result<&'b [u8], Damage>
    where
        'a: 'b,
    {
        let body = &self.raw[self.head..];
        match self.form {
            Form::Plain => Ok(body),
            Form::Int => {
                room.clear();
                room.extend_from_slice(Digits::new().of(self.int(body)?));
                Ok(room)
            }
            Form::Lzf { plain } => {
                let plain = usize::try_from(plain).map_err(|_| Damage::Lzf)?;
                lzf::decompress_into(body, plain, room)?;
                Ok(room)
            }
        }
    }

    fn int(&self, body: &[u8]) -> Result<i64, Damage> {
        Ok(match *body {
            [a] => i64::from(a.cast_signed()),
            [a, b] => i64::from(i16::from_le_bytes([a, b])),
            [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
            // The head of an integer announces 1, 2 or 4 bytes and nothing else.
            _ => return Err(Damage::NotAString(self.raw[0])),
        })
    }

    /// The content: integers as decimal text, LZF inflated.
    ///
    /// # Errors
    /// [`Damage::Lzf`] when the compressed form is damaged.
    pub fn decode(&self) -> Result<Cow<'a, [u8]>, Damage> {
        let body = &self.raw[self.head..];
        match self.form {
            Form::Plain => Ok(Cow::Borrowed(body)),
            Form::Int => {
                let mut digits = Digits::new();
                Ok(Cow::Owned(digits.of(self.int(body)?).to_vec()))
            }
            Form::Lzf { plain } => {
                let plain = usize::try_from(plain).map_err(|_| Damage::Lzf)?;
                lzf::decompress(body, plain).map(Cow::Owned)
            }
        }
    }
}

impl fmt::Debug for StringRef<'_> {
    /// Only the size: keys are login tokens, and must not reach a log by accident.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StringRef({} bytes, {:?})", self.raw.len(), self.form)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_signed_decimal_text() {
        for (raw, text) in [
            (&[0xc0u8, 0xff][..], "-1"),
            (&[0xc1, 0x00, 0x80], "-32768"),
            (&[0xc2, 0xff, 0xff, 0xff, 0x7f], "2147483647"),
        ] {
            let string = StringRef::parse(raw).unwrap().unwrap();
            assert_eq!(string.plain(), None);
            assert_eq!(string.decode().unwrap().as_ref(), text.as_bytes());
        }
    }

    #[test]
    fn a_key_never_shows_in_debug_output() {
        let string = StringRef::parse(b"\x06secret").unwrap().unwrap();
        assert!(!format!("{string:?}").contains("secret"));
    }
}
