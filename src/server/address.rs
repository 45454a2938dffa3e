//! Where a server is: `redis://[user[:password]@]host[:port][/db]`, `rediss://` with TLS,
//! `redis+unix:///path?db=N` and `unix://` for a socket; `valkey://` and `valkeys://` are taken too.
//!
//! Promise: neither [`Address`] nor an error about one ever shows a password. The traps are a
//! password with an unescaped `/`, `?` or `#`: a part of it would be read as port or database,
//! and quoted in the error, so text that may belong to it is never quoted; and `redis://secret@host`,
//! where a password was meant and a user is read, so a user without a password is not shown either.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Secret;

/// The port when a URL names none.
pub const DEFAULT_PORT: u16 = 6379;

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, plain or with TLS.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// `rediss://`.
        tls: bool,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// A server's address with what its URL says of user, password and database.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    transport: Transport,
    username: Option<String>,
    password: Option<Secret>,
    db: Option<u32>,
}

/// Why a text is not an address. Carries nothing that could be a part of a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `scheme://`.
    #[error("a server URL begins with redis://, rediss://, redis+unix:// or unix://")]
    NoScheme,
    /// A scheme that is not a server's.
    #[error("`{0}://` is not a server URL: use redis://, rediss://, redis+unix:// or unix://")]
    Scheme(String),
    /// An `@` behind the place where the password has ended.
    #[error("a `/`, `?` or `#` in the user or password must be percent-encoded (%2F, %3F, %23)")]
    UnescapedUserInfo,
    /// A `%` that is not followed by two hexadecimal digits, or bytes that are not UTF-8.
    #[error("the {0} has a broken percent-encoding: `%` is written `%25`")]
    Percent(&'static str),
    /// No host between `//` and `/`.
    #[error("the URL names no host")]
    NoHost,
    /// An IPv6 address that is not closed, or not in brackets.
    #[error("an IPv6 address stands in brackets: redis://[::1]:6379")]
    Ipv6,
    /// A port that is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// A database that is not a number.
    #[error("the database `{0}` is not a number")]
    Database(String),
    /// A database is given twice.
    #[error("the database is given twice, in the path and as `?db=`")]
    DatabaseTwice,
    /// A parameter other than `db`.
    #[error("the URL parameter `{0}` is not known; only `db` is")]
    Parameter(String),
    /// A socket path that is not absolute.
    #[error("the socket's path must be absolute: redis+unix:///run/redis.sock")]
    SocketPath,
}

impl Address {
    /// A plain TCP address without user, password or database.
    pub fn tcp(host: impl Into<String>, port: u16) -> Address {
        Address::over(Transport::Tcp {
            host: host.into(),
            port,
            tls: false,
        })
    }

    /// A unix socket, without user, password or database.
    pub fn unix(path: impl Into<PathBuf>) -> Address {
        Address::over(Transport::Unix(path.into()))
    }

    fn over(transport: Transport) -> Address {
        Address {
            transport,
            username: None,
            password: None,
            db: None,
        }
    }

    /// How the server is reached.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The user of the URL.
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The password of the URL.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// The database of the URL; `None` when it names none.
    pub fn db(&self) -> Option<u32> {
        self.db
    }

    /// The socket's path, of a unix address.
    pub fn socket(&self) -> Option<&Path> {
        match &self.transport {
            Transport::Unix(path) => Some(path),
            Transport::Tcp { .. } => None,
        }
    }

    /// The server alone, as manifests name it: `localhost:6379`, `[::1]:6379`, `/run/redis.sock`.
    pub fn place(&self) -> String {
        match &self.transport {
            Transport::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Transport::Tcp { host, port, .. } => format!("{host}:{port}"),
            Transport::Unix(path) => path.display().to_string(),
        }
    }
}

/// As it is displayed.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// The URL without its password: `redis://user@localhost:6379/1`. A user without a password is `***`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.transport {
            Transport::Tcp { tls: false, .. } => "redis://",
            Transport::Tcp { tls: true, .. } => "rediss://",
            Transport::Unix(_) => "redis+unix://",
        })?;
        match (&self.username, &self.password) {
            (Some(username), Some(_)) => write!(f, "{username}@")?,
            (Some(_), None) => f.write_str("***@")?,
            (None, _) => {}
        }
        f.write_str(&self.place())?;
        match (&self.transport, self.db) {
            (_, None) => Ok(()),
            (Transport::Tcp { .. }, Some(db)) => write!(f, "/{db}"),
            (Transport::Unix(_), Some(db)) => write!(f, "?db={db}"),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::NoScheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "redis" | "valkey" => parse_tcp(rest, false),
            "rediss" | "valkeys" => parse_tcp(rest, true),
            "redis+unix" | "valkey+unix" | "unix" => parse_unix(rest),
            // What stands before `://` is quoted only when it can be nothing but a scheme.
            other if other.bytes().all(|b| b.is_ascii_alphabetic() || b == b'+') => {
                Err(AddressError::Scheme(other.to_owned()))
            }
            _ => Err(AddressError::NoScheme),
        }
    }
}

fn parse_tcp(rest: &str, tls: bool) -> Result<Address, AddressError> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if tail.contains('@') || tail.contains('#') {
        return Err(AddressError::UnescapedUserInfo);
    }
    let (userinfo, place) = split_userinfo(authority);
    let (username, password) = parse_userinfo(userinfo)?;
    let (host, port) = parse_place(place)?;
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let path = path.strip_prefix('/').unwrap_or(path);
    let from_path = (!path.is_empty()).then(|| parse_db(path)).transpose()?;
    let from_query = parse_query(query)?;
    if from_path.is_some() && from_query.is_some() {
        return Err(AddressError::DatabaseTwice);
    }
    Ok(Address {
        transport: Transport::Tcp { host, port, tls },
        username,
        password,
        db: from_path.or(from_query),
    })
}

fn parse_unix(rest: &str) -> Result<Address, AddressError> {
    let start = rest.find('/').ok_or(AddressError::SocketPath)?;
    let (authority, tail) = rest.split_at(start);
    let (userinfo, place) = split_userinfo(authority);
    if !place.is_empty() {
        // Either a relative path, or a password with a `/`: say nothing of its text.
        return Err(if tail.contains('@') {
            AddressError::UnescapedUserInfo
        } else {
            AddressError::SocketPath
        });
    }
    let (username, password) = parse_userinfo(userinfo)?;
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    Ok(Address {
        transport: Transport::Unix(PathBuf::from(decode(path, "path")?)),
        username,
        password,
        db: parse_query(query)?,
    })
}

fn split_userinfo(authority: &str) -> (&str, &str) {
    authority.rsplit_once('@').unwrap_or(("", authority))
}

fn parse_userinfo(text: &str) -> Result<(Option<String>, Option<Secret>), AddressError> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    };
    let user = decode(user, "user")?;
    let password = password.map(|p| decode(p, "password")).transpose()?;
    Ok((
        (!user.is_empty()).then_some(user),
        password.filter(|p| !p.is_empty()).map(Secret::new),
    ))
}

fn parse_place(place: &str) -> Result<(String, u16), AddressError> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(AddressError::Ipv6)?;
        host.parse::<std::net::Ipv6Addr>()
            .map_err(|_| AddressError::Ipv6)?;
        match after.strip_prefix(':') {
            Some(port) => (host.to_owned(), Some(port)),
            None if after.is_empty() => (host.to_owned(), None),
            None => return Err(AddressError::Ipv6),
        }
    } else {
        match place.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(AddressError::Ipv6),
            Some((host, port)) => (decode(host, "host")?, Some(port)),
            None => (decode(place, "host")?, None),
        }
    };
    if host.is_empty() {
        return Err(AddressError::NoHost);
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => text
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or(AddressError::Port)?,
        Some(_) => return Err(AddressError::Port),
    };
    Ok((host, port))
}

fn parse_db(text: &str) -> Result<u32, AddressError> {
    // A sign would pass `parse`.
    if text.bytes().all(|b| b.is_ascii_digit())
        && let Ok(db) = text.parse()
    {
        return Ok(db);
    }
    Err(AddressError::Database(text.to_owned()))
}

fn parse_query(query: &str) -> Result<Option<u32>, AddressError> {
    let mut db = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != "db" {
            return Err(AddressError::Parameter(name.to_owned()));
        }
        if db.replace(parse_db(value)?).is_some() {
            return Err(AddressError::DatabaseTwice);
        }
    }
    Ok(db)
}

fn decode(text: &str, what: &'static str) -> Result<String, AddressError> {
    let broken = AddressError::Percent(what);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let [high, low, tail @ ..] = rest else {
            return Err(broken);
        };
        let digit = |b: u8| char::from(b).to_digit(16);
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
            return Err(broken);
        };
        bytes.push((high * 16 + low) as u8);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| broken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_of_a_url_is_read() {
        let full = parse("redis://backup:p%40ss%2F@db.example:6380/3");
        assert_eq!(full.username(), Some("backup"));
        assert_eq!(full.password().unwrap().expose(), "p@ss/");
        assert_eq!(full.place(), "db.example:6380");
        assert_eq!(full.db(), Some(3));
        assert_eq!(full.to_string(), "redis://backup@db.example:6380/3");

        let bare = parse("redis://localhost");
        assert_eq!(bare.to_string(), "redis://localhost:6379");
        assert_eq!((bare.db(), bare.username()), (None, None));
        assert_eq!(
            parse("redis://:pw@h").password().unwrap().expose(),
            "pw",
            "the old form with a password alone"
        );
        assert_eq!(parse("redis://h/?db=2").db(), Some(2));

        let tls = parse("rediss://[::1]:7000/0");
        assert_eq!(tls.place(), "[::1]:7000");
        assert!(matches!(
            tls.transport(),
            Transport::Tcp { host, tls: true, .. } if host == "::1"
        ));
        assert_eq!(parse("redis://[fe80::1]").place(), "[fe80::1]:6379");

        let socket = parse("redis+unix:///run/redis%20x.sock?db=1");
        assert_eq!(socket.socket().unwrap(), Path::new("/run/redis x.sock"));
        assert_eq!(socket.db(), Some(1));
        assert_eq!(socket.to_string(), "redis+unix:///run/redis x.sock?db=1");
        let socket = parse("unix://u:p@/run/r.sock");
        assert_eq!((socket.username(), socket.db()), (Some("u"), None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        use AddressError as E;
        for (text, error) in [
            ("localhost:6379", E::NoScheme),
            ("http://localhost", E::Scheme("http".into())),
            ("redis://", E::NoHost),
            ("redis://:6379", E::NoHost),
            ("redis://h:0", E::Port),
            ("redis://h:65536", E::Port),
            ("redis://h:+1", E::Port),
            ("redis://::1", E::Ipv6),
            ("redis://[::1", E::Ipv6),
            ("redis://[nonsense]", E::Ipv6),
            ("redis://h/x", E::Database("x".into())),
            ("redis://h/-1", E::Database("-1".into())),
            ("redis://h/1?db=1", E::DatabaseTwice),
            ("redis://h?timeout=5", E::Parameter("timeout".into())),
            ("redis://u:%zz@h", E::Percent("password")),
            ("redis://u:%ff@h", E::Percent("password")),
            ("redis+unix://run/redis.sock", E::SocketPath),
            ("unix://", E::SocketPath),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }

    #[test]
    fn no_part_of_a_password_shows_in_an_address_or_an_error() {
        for text in [
            "redis://u:hunter2@h:6379/1",
            "redis://hunter2@h:6379/1",
            "unix://hunter2@/run/s",
            "redis://u:hunter2/x@h/1",
            "redis://:hunter2/x@h",
            "redis://u:x/hunter2@h",
            "redis://u:x?hunter2@h",
            "redis://u:x#hunter2@h",
            "redis://u:hunter2%@h",
            "redis://u:hunter2@h:x",
            "unix://u:x/hunter2@/run/s",
            "hunter2://x",
        ] {
            let shown = match text.parse::<Address>() {
                Ok(address) => format!("{address} {address:?} {}", address.place()),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("hunter2"), "{text}: {shown}");
        }
    }
}
