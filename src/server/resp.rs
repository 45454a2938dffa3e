//! RESP2 as bytes: replies read without copying, commands written into one buffer.
//!
//! The parser keeps its place between reads, so a reply that comes in a thousand pieces is
//! looked at once; a bulk string is a slice of the read buffer. The trap: lengths come from the
//! other side, so each has a limit, and memory grows with what has come, not with what was announced.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Error, ServerError};
use crate::rdb::packed::Digits;

/// A reply. Simple strings and errors are without their `+`, `-` and line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(Bytes),
    /// `-ERR …`
    Error(Bytes),
    /// `:1`
    Int(i64),
    /// `$…`; `None` is the nil bulk string.
    Bulk(Option<Bytes>),
    /// `*…`; `None` is the nil array.
    Array(Option<Vec<Reply>>),
}

impl Reply {
    /// The error in it, if it is one.
    pub fn as_error(&self) -> Option<ServerError> {
        match self {
            Reply::Error(line) => Some(ServerError::parse(line)),
            _ => None,
        }
    }

    /// An error reply becomes [`Error::Reply`], naming `command`.
    ///
    /// # Errors
    /// When the server refused the command.
    pub fn ok(self, command: &str) -> Result<Reply, Error> {
        match self.as_error() {
            None => Ok(self),
            Some(reply) => Err(Error::Reply {
                command: command.to_owned(),
                reply,
            }),
        }
    }

    /// The bytes of a bulk or simple string.
    pub fn into_bytes(self) -> Option<Bytes> {
        match self {
            Reply::Simple(bytes) | Reply::Bulk(Some(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// An integer, also one that is written as a string.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Reply::Int(int) => Some(*int),
            Reply::Simple(bytes) | Reply::Bulk(Some(bytes)) => {
                std::str::from_utf8(bytes).ok()?.parse().ok()
            }
            _ => None,
        }
    }

    /// The answer to TIME, as Unix time in milliseconds.
    pub fn as_time_ms(&self) -> Option<i64> {
        let Reply::Array(Some(parts)) = self else {
            return None;
        };
        let [seconds, micros] = parts.as_slice() else {
            return None;
        };
        Some(seconds.as_int()? * 1000 + micros.as_int()? / 1000)
    }

    /// The elements of an array.
    pub fn into_array(self) -> Option<Vec<Reply>> {
        match self {
            Reply::Array(items) => items,
            _ => None,
        }
    }
}

/// What a reply may announce.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest bulk string, in bytes.
    pub bulk: u64,
    /// The most elements of one array.
    pub array: u64,
    /// The deepest nesting of arrays.
    pub depth: usize,
    /// The longest line, in bytes.
    pub line: usize,
}

impl Default for Limits {
    /// 1 GiB, 16 M elements, 8 levels, 64 KiB a line.
    fn default() -> Limits {
        Limits {
            bulk: 1 << 30,
            array: 1 << 24,
            depth: 8,
            line: 64 << 10,
        }
    }
}

/// An incremental reply parser over one growing buffer.
#[derive(Debug, Default)]
pub struct Parser {
    /// What may be announced.
    pub limits: Limits,
    /// Arrays that are being filled, outermost first: elements still to come, and those that came.
    stack: Vec<(u64, Vec<Reply>)>,
    /// A bulk string whose length line is read already.
    bulk: Option<usize>,
    /// Bytes of the buffer that hold no line end.
    searched: usize,
}

impl Parser {
    /// The next whole reply, taken off the front of `buf`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are not RESP2, or announce more than the limits allow.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Reply>, Error> {
        loop {
            let Some(mut reply) = self.element(buf)? else {
                return Ok(None);
            };
            // Hand it to the array that waits for it; a full array is an element itself.
            loop {
                let Some((remaining, items)) = self.stack.last_mut() else {
                    return Ok(Some(reply));
                };
                items.push(reply);
                *remaining -= 1;
                if *remaining > 0 {
                    break;
                }
                match self.stack.pop() {
                    Some((_, items)) => reply = Reply::Array(Some(items)),
                    None => break,
                }
            }
        }
    }

    /// Whether a reply has begun and not ended.
    pub fn in_reply(&self) -> bool {
        self.bulk.is_some() || !self.stack.is_empty()
    }

    /// How many more bytes the bulk string in progress needs at least; 0 when that is not known.
    pub fn wanted(&self, buf: &BytesMut) -> usize {
        self.bulk
            .map_or(0, |len| (len + 2).saturating_sub(buf.len()))
    }

    /// A scalar, or the head of an array (pushed on the stack; then the loop goes on).
    fn element(&mut self, buf: &mut BytesMut) -> Result<Option<Reply>, Error> {
        loop {
            if let Some(len) = self.bulk {
                return self.bulk_body(buf, len);
            }
            let Some(line) = self.line(buf)? else {
                return Ok(None);
            };
            let Some((&kind, rest)) = line.split_first() else {
                return Err(Error::Protocol("an empty line where a reply should begin"));
            };
            match kind {
                b'+' => return Ok(Some(Reply::Simple(line.slice(1..)))),
                b'-' => return Ok(Some(Reply::Error(line.slice(1..)))),
                b':' => {
                    return match parse_int(rest) {
                        Some(int) => Ok(Some(Reply::Int(int))),
                        None => Err(Error::Protocol("an integer that is none")),
                    };
                }
                b'$' => match parse_len(rest)? {
                    None => return Ok(Some(Reply::Bulk(None))),
                    Some(len) if len > self.limits.bulk => {
                        return Err(Error::TooLong {
                            len,
                            limit: self.limits.bulk,
                        });
                    }
                    Some(len) => self.bulk = Some(len as usize),
                },
                b'*' => match parse_len(rest)? {
                    None => return Ok(Some(Reply::Array(None))),
                    Some(0) => return Ok(Some(Reply::Array(Some(Vec::new())))),
                    Some(len) if len > self.limits.array => {
                        return Err(Error::Protocol("an array beyond the limit"));
                    }
                    Some(_) if self.stack.len() >= self.limits.depth => {
                        return Err(Error::Protocol("arrays nested beyond the limit"));
                    }
                    // The announced length is only trusted up to a small reservation.
                    Some(len) => self
                        .stack
                        .push((len, Vec::with_capacity(len.min(1024) as usize))),
                },
                _ => return Err(Error::Protocol("a reply of an unknown kind")),
            }
        }
    }

    fn bulk_body(&mut self, buf: &mut BytesMut, len: usize) -> Result<Option<Reply>, Error> {
        if buf.len() < len + 2 {
            return Ok(None);
        }
        let body = buf.split_to(len).freeze();
        if &buf[..2] != b"\r\n" {
            return Err(Error::Protocol(
                "a string that does not end where it should",
            ));
        }
        buf.advance(2);
        self.bulk = None;
        Ok(Some(Reply::Bulk(Some(body))))
    }

    /// A line without its `\r\n`; `None` when it is not whole yet.
    pub fn line(&mut self, buf: &mut BytesMut) -> Result<Option<Bytes>, Error> {
        match buf[self.searched..].iter().position(|b| *b == b'\n') {
            None => {
                self.searched = buf.len();
                if self.searched > self.limits.line {
                    return Err(Error::Protocol("a line beyond the limit"));
                }
                Ok(None)
            }
            Some(at) => {
                let mut line = buf.split_to(self.searched + at + 1);
                self.searched = 0;
                line.truncate(line.len() - 1);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                Ok(Some(line.freeze()))
            }
        }
    }
}

fn parse_int(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn parse_len(text: &[u8]) -> Result<Option<u64>, Error> {
    match parse_int(text) {
        Some(-1) => Ok(None),
        Some(len) if len >= 0 => Ok(Some(len as u64)),
        _ => Err(Error::Protocol("a length that is none")),
    }
}

/// Writes a command: an array of bulk strings.
pub fn encode(buf: &mut BytesMut, args: &[&[u8]]) {
    buf.reserve(16 + args.iter().map(|arg| arg.len() + 16).sum::<usize>());
    head(buf, b'*', args.len());
    for arg in args {
        head(buf, b'$', arg.len());
        buf.put_slice(arg);
        buf.put_slice(b"\r\n");
    }
}

fn head(buf: &mut BytesMut, kind: u8, number: usize) {
    buf.put_u8(kind);
    buf.put_slice(Digits::new().of_unsigned(number as u64));
    buf.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bulk(text: &'static str) -> Reply {
        Reply::Bulk(Some(Bytes::from_static(text.as_bytes())))
    }

    fn all(input: &[u8], step: usize) -> Result<Vec<Reply>, Error> {
        let (mut parser, mut buf, mut replies) = (Parser::default(), BytesMut::new(), Vec::new());
        for piece in input.chunks(step) {
            buf.extend_from_slice(piece);
            while let Some(reply) = parser.next(&mut buf)? {
                replies.push(reply);
            }
        }
        assert!(buf.is_empty() && !parser.in_reply());
        Ok(replies)
    }

    #[test]
    fn replies_are_the_same_however_they_are_split() {
        let input = b"+OK\r\n-ERR no\r\n:-7\r\n$5\r\na\r\nbc\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n\
            *2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n*1\r\n:1\r\n+PONG\r\n";
        let expected = vec![
            Reply::Simple("OK".into()),
            Reply::Error("ERR no".into()),
            Reply::Int(-7),
            bulk("a\r\nbc"),
            bulk(""),
            Reply::Bulk(None),
            Reply::Array(None),
            Reply::Array(Some(vec![])),
            Reply::Array(Some(vec![
                bulk("0"),
                Reply::Array(Some(vec![
                    bulk("a"),
                    Reply::Array(Some(vec![Reply::Int(1)])),
                ])),
            ])),
            Reply::Simple("PONG".into()),
        ];
        for step in 1..=input.len() {
            assert_eq!(all(input, step).unwrap(), expected, "in pieces of {step}");
        }
    }

    #[test]
    fn what_is_announced_beyond_the_limits_is_refused_before_it_comes() {
        for (input, what) in [
            (&b"$99999999999\r\n"[..], "announced"),
            (b"*99999999999\r\n", "array"),
            (b"$-2\r\n", "length"),
            (b"$x\r\n", "length"),
            (b":x\r\n", "integer"),
            (b"%2\r\n", "unknown"),
            (b"\r\n", "empty"),
            (b"$1\r\nabc", "end"),
            (&b"*1\r\n".repeat(9), "nested"),
            (&[b'+'; 70_000], "line"),
        ] {
            let error = all(input, 4096).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut buf = BytesMut::new();
        encode(&mut buf, &[b"SET", b"k", b"0123456789"]);
        assert_eq!(
            &buf[..],
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n"
        );
    }
}
