//! The data set as a replica gets it: `PSYNC ? -1`, and the file that follows.
//!
//! Promise: `Ok` only when the announced length, or the mark at the end of a diskless transfer,
//! has come. No offset is ever acknowledged, so WAIT and min-replicas-to-write don't count us.
//! The trap: what comes before the file is lines of which some are empty (pings while the server
//! forks), and a Valkey that is not told which version asks for it hangs up when a hash field has
//! an expiry (`rdb-format`: Replication).

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::server::info::{Product, Version};
use crate::server::wire::{WireReader, WireWriter};
use crate::server::{self, Code, Endpoint, Facts, ServerError};

use super::mark::{self, Finder};
use super::{Error, Method, Pumped};

/// The most that one piece holds, in bytes.
const PIECE: usize = 256 << 10;

/// A transfer that is about to begin.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) replid: String,
    pub(super) offset: i64,
    place: String,
    reader: WireReader,
    /// Kept: without it the connection would be half closed.
    _writer: WireWriter,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Length(u64),
    Marked(Box<Finder>),
}

impl Opened {
    pub(super) fn expected(&self) -> Option<u64> {
        match self.form {
            Form::Length(len) => Some(len),
            Form::Marked(_) => None,
        }
    }
}

/// Asks for a full synchronisation and waits until the file begins.
pub(super) async fn open(endpoint: &Endpoint, facts: &Facts) -> Result<Opened, Error> {
    let place = endpoint.place();
    let failed = |source| Error::Server {
        place: place.clone(),
        doing: "ask for the data set",
        source: Box::new(source),
    };
    let incapable = |command: &str, reply: ServerError| {
        let why = format!("{command} is refused");
        Error::Incapable {
            method: Method::Replication,
            place: place.clone(),
            why,
            source: Some(Box::new(server::Error::Reply {
                command: command.to_owned(),
                reply,
            })),
        }
    };

    let mut wire = endpoint.wire().await.map_err(failed)?;
    wire.queue(&[b"REPLCONF", b"capa", b"eof"]);
    let version = facts.version.to_string();
    let mut replies = 1;
    if facts.product == Product::Valkey && facts.version >= Version(8, 0, 0) {
        // What we can read is what it can write: the file goes to an archive, not into a server.
        wire.queue(&[b"REPLCONF", b"VERSION", version.as_bytes()]);
        replies += 1;
    }
    if facts.is_at_least(Version(6, 2, 0), Version(7, 2, 0)) {
        wire.queue(&[b"REPLCONF", b"rdb-only", b"1"]);
        replies += 1;
    }
    wire.flush().await.map_err(failed)?;
    for _ in 0..replies {
        // An option that is not known is harmless; a REPLCONF that is not allowed shows on PSYNC.
        if let Some(reply) = wire.reply().await.map_err(failed)?.as_error() {
            match reply.code {
                Code::Err => tracing::debug!(%reply, "REPLCONF"),
                Code::NoPerm => return Err(incapable("REPLCONF", reply)),
                _ => {
                    return Err(failed(server::Error::Reply {
                        command: "REPLCONF".to_owned(),
                        reply,
                    }));
                }
            }
        }
    }

    wire.queue(&[b"PSYNC", b"?", b"-1"]);
    wire.flush().await.map_err(failed)?;
    let (mut reader, writer) = wire.split();
    let line = match next_line(&mut reader).await {
        Ok(line) => line,
        // Proxies and managed servers hang up on it.
        Err(server::Error::Closed) => {
            return Err(Error::Incapable {
                method: Method::Replication,
                place,
                why: "the server hung up on PSYNC".to_owned(),
                source: None,
            });
        }
        Err(error) => return Err(failed(error)),
    };
    if let Some(text) = line.strip_prefix(b"-") {
        let reply = ServerError::parse(text);
        return Err(match reply.code {
            // Unknown, renamed, forbidden. Whatever has a word of its own is a state, and passes.
            Code::Err | Code::NoPerm => incapable("PSYNC", reply),
            _ => failed(server::Error::Reply {
                command: "PSYNC".to_owned(),
                reply,
            }),
        });
    }
    let (replid, offset) = parse_fullresync(&line).ok_or_else(|| {
        failed(server::Error::Unexpected {
            command: "PSYNC".to_owned(),
        })
    })?;

    let line = next_line(&mut reader).await.map_err(|source| Error::Died {
        place: place.clone(),
        received: 0,
        expected: None,
        source: Box::new(source),
    })?;
    if let Some(text) = line.strip_prefix(b"-") {
        tracing::debug!(reply = %ServerError::parse(text), "instead of the file");
        return Err(Error::SaveFailed { place });
    }
    let form = parse_form(&line).ok_or_else(|| {
        failed(server::Error::Unexpected {
            command: "PSYNC".to_owned(),
        })
    })?;
    Ok(Opened {
        replid,
        offset,
        place,
        reader,
        _writer: writer,
        form,
    })
}

/// The next line that is not a ping.
async fn next_line(reader: &mut WireReader) -> Result<Bytes, server::Error> {
    loop {
        let line = reader.line().await?;
        if !line.is_empty() {
            return Ok(line);
        }
    }
}

fn parse_fullresync(line: &[u8]) -> Option<(String, i64)> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    if words.next()? != "+FULLRESYNC" {
        return None;
    }
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

fn parse_form(line: &[u8]) -> Option<Form> {
    if let Some(text) = line.strip_prefix(b"$EOF:") {
        let mark: [u8; mark::LEN] = text.try_into().ok()?;
        return Some(Form::Marked(Box::new(Finder::new(mark))));
    }
    let text = std::str::from_utf8(line.strip_prefix(b"$")?).ok()?;
    Some(Form::Length(text.parse().ok()?))
}

impl Opened {
    pub(super) async fn pump(self, out: mpsc::Sender<Bytes>) -> Result<Pumped, Error> {
        let (mut reader, place) = (self.reader, self.place);
        let expected = match &self.form {
            Form::Length(len) => Some(*len),
            Form::Marked(_) => None,
        };
        let mut form = self.form;
        let mut bytes: u64 = 0;
        loop {
            let room = match &form {
                Form::Length(len) if bytes == *len => break,
                Form::Length(len) => (len - bytes).min(PIECE as u64) as usize,
                Form::Marked(_) => PIECE,
            };
            let piece = reader.raw(room).await.map_err(|source| Error::Died {
                place: place.clone(),
                received: bytes,
                expected,
                source: Box::new(source),
            })?;
            let (pieces, end) = match &mut form {
                Form::Length(_) => ([piece, Bytes::new()], false),
                Form::Marked(finder) => {
                    let found = finder.feed(piece);
                    (found.file, found.end)
                }
            };
            for piece in pieces {
                if !piece.is_empty() {
                    bytes += piece.len() as u64;
                    out.send(piece).await.map_err(|_| Error::ReceiverGone)?;
                }
            }
            if end {
                break;
            }
        }
        Ok(Pumped {
            bytes,
            ..Pumped::default()
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_forms_of_a_transfer_are_known() {
        assert!(matches!(parse_form(b"$123"), Some(Form::Length(123))));
        let mark = [&b"$EOF:"[..], &[b'a'; 40]].concat();
        assert!(matches!(parse_form(&mark), Some(Form::Marked(_))));
        for line in [
            &b"$-1"[..],
            b"$EOF:short",
            b"+OK",
            b"$",
            b"$99999999999999999999",
        ] {
            assert!(parse_form(line).is_none());
        }
    }

    #[test]
    fn fullresync_tells_replid_and_offset() {
        let line = b"+FULLRESYNC 8371445ee67d3a6a 42";
        let (replid, offset) = parse_fullresync(line).unwrap();
        assert_eq!((replid.as_str(), offset), ("8371445ee67d3a6a", 42));
        assert!(parse_fullresync(b"+CONTINUE").is_none());
    }
}
