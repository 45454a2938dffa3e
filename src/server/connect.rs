//! From an address to an authenticated connection: dialling, TLS, AUTH, and errors that say
//! which of these failed.
//!
//! Every new connection asks PING once, so that a server that turns
//! connections away (too many clients, protected mode), or a TLS server that misses our
//! certificate, is found here and not in the middle of a dump. A server that is loading, or a
//! user that may not PING, is let through: what they can do is the caller's question.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::Transport;
use super::error::TlsProblem;
use super::tls::{self, TlsFiles};
use super::{Address, Code, Control, Error, Reply, Secret, Stream, Wire};

/// A server, and how to get in.
#[derive(Clone)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// The ACL user; without one, the default user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// TLS files, for `rediss://`.
    pub tls: TlsFiles,
    /// The limit for each of name resolution and connecting, TLS handshake, and the first answer.
    pub connect_timeout: Duration,
    /// How long a server may be silent before it is given up.
    pub idle_timeout: Duration,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .field("username", &self.shown_username())
            .field("password", &self.password)
            .field("tls", &self.tls)
            .field("connect_timeout", &self.connect_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .finish()
    }
}

impl Endpoint {
    /// With the user and password of the address itself, no TLS files, 10 s to connect and 60 s
    /// of silence (a master that feeds a replica says something every 10 s).
    pub fn new(address: Address) -> Endpoint {
        Endpoint {
            username: address.username().map(str::to_owned),
            password: address.password().cloned(),
            address,
            tls: TlsFiles::default(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
        }
    }

    /// The server alone, as errors and manifests name it.
    pub fn place(&self) -> String {
        self.address.place()
    }

    /// The user as messages may show it: without a password from anywhere it may be one itself,
    /// and a replica has its user from another URL than its own.
    fn shown_username(&self) -> Option<&str> {
        let username = self.username.as_deref()?;
        Some(match self.password {
            Some(_) => username,
            None => "***",
        })
    }

    /// A raw connection, authenticated, in database 0 whatever the address says.
    ///
    /// # Errors
    /// Each way in which a connection can fail has its own [`Error`].
    pub async fn wire(&self) -> Result<Wire, Error> {
        let stream = self.dial().await?;
        let mut wire = Wire::new(stream, self.connect_timeout);
        self.log_in(&mut wire).await?;
        wire.set_idle(self.idle_timeout);
        Ok(wire)
    }

    /// A connection for commands that steer the server, over a stream that is made in the same way.
    ///
    /// # Errors
    /// As for [`Endpoint::wire`].
    pub async fn control(&self) -> Result<Control, Error> {
        let wire = self.wire().await?;
        Control::over(wire, self.idle_timeout).await
    }

    async fn dial(&self) -> Result<Stream, Error> {
        match self.address.transport() {
            Transport::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Stream::Unix(stream)),
                Err(source) => Err(match source.kind() {
                    std::io::ErrorKind::NotFound => Error::NoSocket { path: path.clone() },
                    std::io::ErrorKind::PermissionDenied => {
                        Error::SocketForbidden { path: path.clone() }
                    }
                    std::io::ErrorKind::ConnectionRefused => Error::Refused {
                        place: self.place(),
                    },
                    _ => Error::Connect {
                        place: self.place(),
                        source,
                    },
                }),
            },
            Transport::Tcp { host, port, tls } => {
                let tcp = self.dial_tcp(host, *port).await?;
                if *tls {
                    self.handshake(tcp, host, *port).await
                } else {
                    Ok(Stream::Tcp(tcp))
                }
            }
        }
    }

    async fn dial_tcp(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        match timeout(self.connect_timeout, self.dial_any(host, port)).await {
            Ok(result) => result,
            Err(_) => Err(self.timed_out("connecting")),
        }
    }

    async fn dial_any(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        let dns = |source| Error::Dns {
            host: host.to_owned(),
            source,
        };
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
            .await
            .map_err(dns)?
            .collect();
        let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "no address");
        if addresses.is_empty() {
            return Err(dns(last));
        }
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(tune(stream)),
                Err(error) => last = error,
            }
        }
        Err(if last.kind() == std::io::ErrorKind::ConnectionRefused {
            Error::Refused {
                place: self.place(),
            }
        } else {
            Error::Connect {
                place: self.place(),
                source: last,
            }
        })
    }

    async fn handshake(&self, tcp: TcpStream, host: &str, port: u16) -> Result<Stream, Error> {
        let config = self.tls.client_config()?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| self.tls_error(TlsProblem::WrongName(host.to_owned())))?;
        let connecting = TlsConnector::from(config).connect(name, tcp);
        match timeout(self.connect_timeout, connecting).await {
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
            Ok(Err(source)) => match tls::problem(&source, host) {
                Some(problem) => Err(self.tls_error(problem)),
                None if self.speaks_plain_text(host, port).await => {
                    Err(self.tls_error(TlsProblem::PlainText))
                }
                None => Err(Error::Connect {
                    place: self.place(),
                    source,
                }),
            },
            // A plain server takes our hello for an unfinished line, and waits for its end.
            Err(_) if self.speaks_plain_text(host, port).await => {
                Err(self.tls_error(TlsProblem::PlainText))
            }
            Err(_) => Err(self.timed_out("TLS handshake")),
        }
    }

    /// After a handshake that failed: does a plain PING get a RESP answer?
    async fn speaks_plain_text(&self, host: &str, port: u16) -> bool {
        let ask = async {
            let mut tcp = self.dial_any(host, port).await.ok()?;
            tcp.write_all(b"PING\r\n").await.ok()?;
            let first = tcp.read_u8().await.ok()?;
            Some(first == b'+' || first == b'-')
        };
        let limit = self.connect_timeout.min(Duration::from_secs(2));
        matches!(timeout(limit, ask).await, Ok(Some(true)))
    }

    /// AUTH, then PING, one after the other: since 2025 servers keep one answer at a time for
    /// a client that is not authenticated, and drop the rest.
    async fn log_in(&self, wire: &mut Wire) -> Result<(), Error> {
        let password = self.password.as_ref().map(Secret::expose);
        let auth = match (&self.username, password) {
            (Some(user), password) => {
                let password = password.unwrap_or_default().as_bytes();
                Some(
                    self.ask(wire, &[b"AUTH", user.as_bytes(), password])
                        .await?,
                )
            }
            (None, Some(password)) => Some(self.ask(wire, &[b"AUTH", password.as_bytes()]).await?),
            (None, None) => None,
        };
        let login_error = |reply| Error::Login {
            place: self.place(),
            user_alone: self.username.is_some() && password.is_none(),
            who: match (self.shown_username(), password) {
                (Some(user), _) => format!("the user `{user}`"),
                (None, Some(_)) => "the default user".to_owned(),
                (None, None) => "a client without password".to_owned(),
            },
            reply,
        };
        let turned_away = |reply| Error::TurnedAway {
            place: self.place(),
            reply,
        };
        if let Some(reply) = auth.as_ref().and_then(Reply::as_error) {
            return Err(match reply.code {
                Code::Denied => turned_away(reply),
                // Said to AUTH, or to the connection? Who is turned away is also hung up on.
                Code::Err if self.ask(wire, &[b"PING"]).await.is_err() => turned_away(reply),
                _ => login_error(reply),
            });
        }
        let ping = self.ask(wire, &[b"PING"]).await?;
        match ping.as_error() {
            None if matches!(ping, Reply::Simple(_)) => Ok(()),
            None => Err(Error::Unexpected {
                command: "PING".to_owned(),
            }),
            Some(reply) => match reply.code {
                Code::NoAuth => Err(login_error(reply)),
                // PING itself has no such answers: they are to the connection.
                Code::Err | Code::Denied => Err(turned_away(reply)),
                _ => Ok(()),
            },
        }
    }

    async fn ask(&self, wire: &mut Wire, args: &[&[u8]]) -> Result<Reply, Error> {
        wire.queue(args);
        // A server that turns us away has hung up already: what it said is still to be read.
        let sent = wire.flush().await;
        wire.reply()
            .await
            .map_err(|error| self.first_answer(sent.err().unwrap_or(error)))
    }

    /// Makes the most of a connection that ends before it has said anything.
    fn first_answer(&self, error: Error) -> Error {
        match error {
            Error::Io(source) => match tls::problem(&source, &self.place()) {
                Some(problem) => self.tls_error(problem),
                None => Error::Io(source),
            },
            Error::Idle(_) => self.timed_out("first answer"),
            other => other,
        }
    }

    fn tls_error(&self, problem: TlsProblem) -> Error {
        Error::Tls {
            place: self.place(),
            problem,
        }
    }

    fn timed_out(&self, stage: &'static str) -> Error {
        Error::ConnectTimeout {
            place: self.place(),
            after: self.connect_timeout,
            stage,
        }
    }
}

/// Small writes at once, and a dead peer noticed within a few minutes even where nothing is read.
fn tune(stream: TcpStream) -> TcpStream {
    let tuned = stream.set_nodelay(true).and_then(|()| {
        rustix::net::sockopt::set_socket_keepalive(&stream, true)
            .and_then(|()| rustix::net::sockopt::set_tcp_keepidle(&stream, Duration::from_secs(60)))
            .map_err(std::io::Error::from)
    });
    if let Err(error) = tuned {
        tracing::debug!(%error, "socket options could not be set");
    }
    stream
}
