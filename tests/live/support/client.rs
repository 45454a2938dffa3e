//! A small synchronous client, independent of the crate's own wire: what proves the product must not share its mistakes.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A command: its name and arguments.
pub type Command = Vec<Vec<u8>>;

/// What can stand in a command.
pub trait Argument {
    /// Its bytes on the wire.
    fn bytes(&self) -> Vec<u8>;
}

macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl Argument for $kind {
            fn bytes(&self) -> Vec<u8> {
                self.to_string().into_bytes()
            }
        }
    )*};
}
as_text!(str, String, i32, i64, u16, u32, u64, usize, f64);

impl Argument for [u8] {
    fn bytes(&self) -> Vec<u8> {
        self.to_vec()
    }
}

impl<const N: usize> Argument for [u8; N] {
    fn bytes(&self) -> Vec<u8> {
        self.to_vec()
    }
}

impl Argument for Vec<u8> {
    fn bytes(&self) -> Vec<u8> {
        self.clone()
    }
}

impl<T: Argument + ?Sized> Argument for &T {
    fn bytes(&self) -> Vec<u8> {
        (**self).bytes()
    }
}

/// Builds a [`Command`] from arguments of any [`Argument`] type: `cmd!["SET", key, 7]`.
#[macro_export]
macro_rules! cmd {
    ($($argument:expr),+ $(,)?) => {
        vec![$($crate::support::client::Argument::bytes(&$argument)),+]
    };
}

/// A reply of RESP2.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR …`
    Error(String),
    /// `:7`
    Int(i64),
    /// `$3\r\nabc`
    Bulk(Vec<u8>),
    /// `$-1` or `*-1`
    Nil,
    /// `*2…`
    Array(Vec<Reply>),
}

impl Reply {
    /// The integer; panics on anything else.
    pub fn int(&self) -> i64 {
        match self {
            Reply::Int(value) => *value,
            other => panic!("not an integer: {other:?}"),
        }
    }

    /// The bytes of a bulk or simple string; panics on anything else.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Reply::Bulk(value) => value.clone(),
            Reply::Simple(value) => value.clone().into_bytes(),
            other => panic!("not a string: {other:?}"),
        }
    }

    /// The text of a bulk or simple string; panics on anything else.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// The elements; panics on anything else.
    pub fn array(&self) -> &[Reply] {
        match self {
            Reply::Array(value) => value,
            other => panic!("not an array: {other:?}"),
        }
    }

    /// The error's text, if it is one.
    pub fn error(&self) -> Option<&str> {
        match self {
            Reply::Error(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is nil.
    pub fn is_nil(&self) -> bool {
        *self == Reply::Nil
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Simple(text) => write!(f, "+{text}"),
            Reply::Error(text) => write!(f, "-{text}"),
            Reply::Int(value) => write!(f, ":{value}"),
            Reply::Bulk(bytes) if bytes.len() > 300 => {
                write!(
                    f,
                    "\"{}…\" ({} bytes)",
                    bytes[..200].escape_ascii(),
                    bytes.len()
                )
            }
            Reply::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Reply::Nil => write!(f, "nil"),
            Reply::Array(items) => f.debug_list().entries(items).finish(),
        }
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection to a server.
pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
}

impl Client {
    /// Connects to a port of 127.0.0.1.
    pub fn tcp(port: u16) -> std::io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Client {
            stream: BufReader::with_capacity(1 << 16, Box::new(stream)),
        })
    }

    /// Connects to a unix socket.
    pub fn unix(path: &Path) -> std::io::Result<Client> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Client {
            stream: BufReader::with_capacity(1 << 16, Box::new(stream)),
        })
    }

    /// Sends a command and returns whatever comes back, errors included; `Err` when the connection breaks.
    pub fn attempt(&mut self, command: Command) -> std::io::Result<Reply> {
        let mut out = Vec::new();
        encode(&command, &mut out);
        self.stream.get_mut().write_all(&out)?;
        self.read()
    }

    /// Sends a command; panics when the server answers with an error or hangs up.
    pub fn run(&mut self, command: Command) -> Reply {
        let name = describe(&command);
        match self.attempt(command) {
            Ok(Reply::Error(text)) => panic!("{name}: {text}"),
            Ok(reply) => reply,
            Err(error) => panic!("{name}: {error}"),
        }
    }

    /// Sends commands in batches; panics on the first error.
    pub fn run_all(&mut self, commands: Vec<Command>) -> Vec<Reply> {
        let mut replies = Vec::with_capacity(commands.len());
        for batch in commands.chunks(500) {
            let mut out = Vec::new();
            // What is sent at once stays small enough that both sides' socket buffers cannot block each other.
            let mut sent = 0;
            let mut answered = 0;
            while answered < batch.len() {
                while sent < batch.len() && (out.is_empty() || out.len() < 32 << 10) {
                    encode(&batch[sent], &mut out);
                    sent += 1;
                }
                self.stream
                    .get_mut()
                    .write_all(&out)
                    .expect("the server takes commands");
                out.clear();
                while answered < sent {
                    let reply = self.read().expect("the server answers");
                    if let Reply::Error(text) = &reply {
                        panic!("{}: {text}", describe(&batch[answered]));
                    }
                    replies.push(reply);
                    answered += 1;
                }
            }
        }
        replies
    }

    /// `SELECT db`.
    pub fn select(&mut self, db: u32) {
        self.run(cmd!["SELECT", db]);
    }

    /// One field of INFO, as text.
    pub fn info(&mut self, field: &str) -> Option<String> {
        let text = self.run(cmd!["INFO", "everything"]).text();
        text.lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .map(|value| value.trim().to_owned())
    }

    /// The databases that hold keys, and how many.
    pub fn keyspace(&mut self) -> Vec<(u32, u64)> {
        let text = self.run(cmd!["INFO", "keyspace"]).text();
        text.lines()
            .filter_map(|line| {
                let (db, facts) = line.strip_prefix("db")?.split_once(':')?;
                let keys = facts.strip_prefix("keys=")?.split(',').next()?;
                Some((db.parse().ok()?, keys.parse().ok()?))
            })
            .collect()
    }

    fn read(&mut self) -> std::io::Result<Reply> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\r\n") {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.len() - 2);
        let text = String::from_utf8_lossy(&line[1..]).into_owned();
        let number = || {
            text.parse::<i64>()
                .map_err(|_| std::io::Error::other(format!("not a number in a reply: {text}")))
        };
        Ok(match line[0] {
            b'+' => Reply::Simple(text),
            b'-' => Reply::Error(text),
            b':' => Reply::Int(number()?),
            b'$' | b'*' if text.starts_with('-') => Reply::Nil,
            b'$' => {
                let mut bytes = vec![0; usize::try_from(number()?).expect("not negative") + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Reply::Bulk(bytes)
            }
            b'*' => {
                let mut items = Vec::new();
                for _ in 0..number()? {
                    items.push(self.read()?);
                }
                Reply::Array(items)
            }
            other => return Err(std::io::Error::other(format!("not a reply: {other:?}"))),
        })
    }
}

fn encode(command: &Command, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for argument in command {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

fn describe(command: &Command) -> String {
    let mut text = String::new();
    for argument in command.iter().take(4) {
        let shown = &argument[..argument.len().min(60)];
        text.push_str(&format!("{} ", shown.escape_ascii()));
    }
    text
}
