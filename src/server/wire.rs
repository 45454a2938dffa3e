//! Raw RESP2 over a dialled stream, for whatever moves data: pipelines of DUMP and RESTORE,
//! and the replication stream, where the protocol stops and a file begins.
//!
//! [`Wire::queue`] writes into a buffer, [`Wire::flush`] sends it, [`Wire::reply`] reads the next
//! reply; split into halves, both directions run at once. The trap of pipelining on one task:
//! flushing megabytes while the server waits for us to read its answers. The server buffers them,
//! so it does not deadlock, but its memory pays: bound what is in flight, or split.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::info::Version;
use super::resp::{self, Limits, Parser, Reply};
use super::{Error, Facts, Stream};

/// The least room that a read is given, in bytes.
const READ_ROOM: usize = 64 << 10;

/// The reading half.
#[derive(Debug)]
pub struct WireReader {
    stream: ReadHalf<Stream>,
    buf: BytesMut,
    parser: Parser,
    idle: Duration,
}

/// The writing half.
#[derive(Debug)]
pub struct WireWriter {
    stream: WriteHalf<Stream>,
    buf: BytesMut,
    idle: Duration,
}

/// A raw connection.
#[derive(Debug)]
pub struct Wire {
    reader: WireReader,
    writer: WireWriter,
    local: bool,
}

impl Wire {
    /// Over a dialled stream. `idle` bounds the wait for a single read or write.
    pub fn new(stream: Stream, idle: Duration) -> Wire {
        let local = stream.is_local();
        let (read, write) = tokio::io::split(stream);
        Wire {
            reader: WireReader {
                stream: read,
                buf: BytesMut::new(),
                parser: Parser::default(),
                idle,
            },
            writer: WireWriter {
                stream: write,
                buf: BytesMut::new(),
                idle,
            },
            local,
        }
    }

    /// Whether the server is on this host, as far as the addresses tell.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// Sets what replies may announce.
    pub fn set_limits(&mut self, limits: Limits) {
        self.reader.set_limits(limits);
    }

    /// Sets how long a single read or write may wait.
    pub fn set_idle(&mut self, idle: Duration) {
        self.reader.idle = idle;
        self.writer.idle = idle;
    }

    /// Puts a command into the write buffer; nothing is sent yet.
    pub fn queue(&mut self, args: &[&[u8]]) {
        self.writer.queue(args);
    }

    /// Bytes queued and not yet flushed.
    pub fn queued_bytes(&self) -> usize {
        self.writer.queued_bytes()
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// When the connection is gone, or takes nothing within the idle time.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.writer.flush().await
    }

    /// The next reply. A server's error is a [`Reply::Error`] here.
    ///
    /// # Errors
    /// When the connection ends, idles, or sends what is not RESP2.
    pub async fn reply(&mut self) -> Result<Reply, Error> {
        self.reader.reply().await
    }

    /// Sends one command, and whatever was queued before it, and reads one reply.
    ///
    /// # Errors
    /// As for [`Wire::flush`] and [`Wire::reply`]; a server's error is [`Error::Reply`].
    pub async fn call(&mut self, args: &[&[u8]]) -> Result<Reply, Error> {
        self.queue(args);
        self.flush().await?;
        self.reply().await?.ok(&command_name(args))
    }

    /// Both directions at once.
    pub fn split(self) -> (WireReader, WireWriter) {
        (self.reader, self.writer)
    }

    /// The stream back, when nothing is read ahead or queued.
    ///
    /// # Errors
    /// When there are bytes that would be lost.
    pub fn into_stream(self) -> Result<Stream, Error> {
        if !self.reader.buf.is_empty() || !self.writer.buf.is_empty() {
            return Err(Error::Protocol("an answer to a question nobody asked"));
        }
        Ok(self.reader.stream.unsplit(self.writer.stream))
    }
}

impl WireReader {
    /// Sets what replies may announce.
    pub fn set_limits(&mut self, limits: Limits) {
        self.parser.limits = limits;
    }

    /// The next reply. A server's error is a [`Reply::Error`] here.
    ///
    /// # Errors
    /// When the connection ends, idles, or sends what is not RESP2.
    pub async fn reply(&mut self) -> Result<Reply, Error> {
        loop {
            if let Some(reply) = self.buffered_reply()? {
                return Ok(reply);
            }
            self.fill().await?;
        }
    }

    /// The next reply, if it is in the buffer already.
    ///
    /// # Errors
    /// When the bytes are not RESP2.
    pub fn buffered_reply(&mut self) -> Result<Option<Reply>, Error> {
        self.parser.next(&mut self.buf)
    }

    /// The next line without its end, for the replication stream, which is not quite RESP.
    ///
    /// # Errors
    /// As for [`WireReader::reply`].
    pub async fn line(&mut self) -> Result<Bytes, Error> {
        loop {
            if let Some(line) = self.parser.line(&mut self.buf)? {
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    /// Raw bytes, at least one and at most `max`: what is buffered, else what one read brings.
    ///
    /// # Errors
    /// [`Error::Closed`] at the end of the stream.
    pub async fn raw(&mut self, max: usize) -> Result<Bytes, Error> {
        if self.buf.is_empty() {
            // What is left of the last room is used up first: a piece keeps its whole room alive.
            if self.buf.capacity() < READ_ROOM.min(max) {
                self.buf.reserve(max.max(READ_ROOM));
            }
            self.read().await?;
        }
        let len = self.buf.len().min(max);
        Ok(self.buf.split_to(len).freeze())
    }

    async fn fill(&mut self) -> Result<(), Error> {
        // A long string's room grows with what has come of it (at most doubling), so that a
        // length that lies costs nothing.
        let wanted = self.parser.wanted(&self.buf).min(self.buf.len());
        self.buf.reserve(wanted.max(READ_ROOM));
        self.read().await
    }

    async fn read(&mut self) -> Result<(), Error> {
        match timeout(self.idle, self.stream.read_buf(&mut self.buf)).await {
            Err(_) => Err(Error::Idle(self.idle)),
            Ok(Err(error)) => Err(Error::Io(error)),
            Ok(Ok(0)) => Err(Error::Closed),
            Ok(Ok(_)) => Ok(()),
        }
    }
}

impl WireWriter {
    /// Puts a command into the write buffer; nothing is sent yet.
    pub fn queue(&mut self, args: &[&[u8]]) {
        resp::encode(&mut self.buf, args);
    }

    /// Bytes queued and not yet flushed.
    pub fn queued_bytes(&self) -> usize {
        self.buf.len()
    }

    /// Sends bytes that are commands already, without a copy; what is queued goes first.
    ///
    /// # Errors
    /// As for [`WireWriter::flush`].
    pub async fn send(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        if !self.buf.is_empty() {
            self.flush().await?;
        }
        while !bytes.is_empty() {
            match timeout(self.idle, self.stream.write(bytes)).await {
                Err(_) => return Err(Error::Idle(self.idle)),
                Ok(Err(error)) => return Err(Error::Io(error)),
                Ok(Ok(0)) => return Err(Error::Closed),
                Ok(Ok(count)) => bytes = &bytes[count..],
            }
        }
        self.flush().await
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// When the connection is gone, or takes nothing within the idle time.
    pub async fn flush(&mut self) -> Result<(), Error> {
        while !self.buf.is_empty() {
            match timeout(self.idle, self.stream.write_buf(&mut self.buf)).await {
                Err(_) => return Err(Error::Idle(self.idle)),
                Ok(Err(error)) => return Err(Error::Io(error)),
                Ok(Ok(0)) => return Err(Error::Closed),
                Ok(Ok(_)) => {}
            }
        }
        // TLS keeps records back until it is flushed.
        match timeout(self.idle, self.stream.flush()).await {
            Err(_) => Err(Error::Idle(self.idle)),
            Ok(result) => result.map_err(Error::Io),
        }
    }
}

/// The command as errors name it: its name and, where it has subcommands, that; no arguments.
pub(super) fn command_name(args: &[&[u8]]) -> String {
    let word = |at: usize| {
        args.get(at)
            .map(|arg| String::from_utf8_lossy(arg).to_uppercase())
            .unwrap_or_default()
    };
    let name = word(0);
    match name.as_str() {
        "CONFIG" | "CLIENT" | "FUNCTION" | "MEMORY" | "ACL" | "COMMAND" | "REPLCONF" | "SCRIPT"
        | "OBJECT" | "DEBUG" => format!("{name} {}", word(1)),
        _ => name,
    }
}

/// The RDB version that the server writes: from Redis 7.0 on its own word, the footer of FUNCTION
/// DUMP (which ends like a DUMP payload: 2 bytes version, 8 bytes CRC64), else by the table.
///
/// # Errors
/// When the connection fails. A server that refuses FUNCTION DUMP is no error: the table answers.
pub async fn rdb_version(wire: &mut Wire, facts: &Facts) -> Result<u16, Error> {
    if !facts.is_at_least(Version(7, 0, 0), Version(7, 0, 0)) {
        return Ok(facts.rdb_version());
    }
    wire.queue(&[b"FUNCTION", b"DUMP"]);
    wire.flush().await?;
    let payload = wire.reply().await?.into_bytes().unwrap_or_default();
    Ok(
        match payload.len().checked_sub(10).map(|at| &payload[at..]) {
            Some([low, high, ..]) => u16::from_le_bytes([*low, *high]),
            _ => facts.rdb_version(),
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::net::UnixStream;

    fn pair() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let idle = Duration::from_millis(200);
        (Wire::new(Stream::Unix(ours), idle), theirs)
    }

    #[tokio::test]
    async fn a_pipeline_is_answered_in_order() {
        let (mut wire, mut server) = pair();
        wire.queue(&[b"PING"]);
        wire.queue(&[b"GET", b"k"]);
        assert_eq!(wire.queued_bytes(), 14 + 20);
        wire.flush().await.unwrap();
        server.write_all(b"+PONG\r\n$2\r\nhi\r\n").await.unwrap();
        assert_eq!(wire.reply().await.unwrap(), Reply::Simple("PONG".into()));
        assert_eq!(wire.reply().await.unwrap(), Reply::Bulk(Some("hi".into())));
    }

    #[tokio::test]
    async fn a_silent_server_is_an_error_after_the_idle_time_and_a_dead_one_at_once() {
        let (mut wire, server) = pair();
        assert!(matches!(wire.reply().await, Err(Error::Idle(_))));
        drop(server);
        assert!(matches!(wire.reply().await, Err(Error::Closed)));
    }

    #[tokio::test]
    async fn lines_and_raw_bytes_share_the_buffer_with_replies() {
        let (wire, mut server) = pair();
        let (mut reader, _writer) = wire.split();
        server.write_all(b"+OK\r\n\n$5\r\nabcdef").await.unwrap();
        reader.reply().await.unwrap();
        assert_eq!(reader.line().await.unwrap(), "");
        assert_eq!(reader.line().await.unwrap(), "$5");
        assert_eq!(reader.raw(5).await.unwrap(), "abcde");
        assert_eq!(reader.raw(5).await.unwrap(), "f");
    }

    #[test]
    fn errors_name_commands_without_their_arguments() {
        assert_eq!(command_name(&[b"auth", b"u", b"p"]), "AUTH");
        assert_eq!(command_name(&[b"config", b"get", b"dir"]), "CONFIG GET");
    }
}
