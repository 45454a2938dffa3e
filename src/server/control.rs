//! The commands that steer a server, over the `redis` crate's connection.
//!
//! The stream is dialled and authenticated by [`super::Endpoint`]; the crate's driver runs as a
//! task that ends with the [`Control`]. The trap: the crate gives each command half a second by
//! default, and greets the server with CLIENT SETINFO, which a small ACL forbids; both are set here.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisConnectionInfo, RedisError, Value};
use tokio::task::AbortHandle;

use super::wire::command_name;
use super::{Error, Facts, ServerError, Wire};

/// A connection for commands that steer.
#[derive(Debug)]
pub struct Control {
    connection: MultiplexedConnection,
    driver: AbortHandle,
    local: bool,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Control {
    /// Over a connection that is authenticated; each command may take `limit`.
    pub(super) async fn over(wire: Wire, limit: Duration) -> Result<Control, Error> {
        let local = wire.is_local();
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(limit))
            .set_connection_timeout(Some(limit));
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&info, wire.into_stream()?, config)
                .await
                .map_err(|error| translate(error, "CLIENT"))?;
        Ok(Control {
            connection,
            driver: tokio::spawn(driver).abort_handle(),
            local,
        })
    }

    /// Whether the server is on this host, as far as the addresses tell.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// Any command: its words, and what its answer is.
    ///
    /// # Errors
    /// [`Error::Reply`] when the server refuses it, [`Error::Unexpected`] when the answer is not a
    /// `T`, else what broke the connection.
    pub async fn call<T: FromRedisValue>(&mut self, args: &[&str]) -> Result<T, Error> {
        let mut cmd = Cmd::new();
        for arg in args {
            cmd.arg(arg);
        }
        let words: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        let name = command_name(&words);
        let value: Value = cmd
            .query_async(&mut self.connection)
            .await
            .map_err(|error| translate(error, &name))?;
        T::from_redis_value(value).map_err(|_| Error::Unexpected { command: name })
    }

    /// INFO, all its default sections.
    ///
    /// # Errors
    /// As for [`Control::call`].
    pub async fn info(&mut self) -> Result<Facts, Error> {
        let text: String = self.call(&["INFO"]).await?;
        Ok(Facts::parse(&text))
    }

    /// One parameter of the server's configuration; `None` when it has no such one.
    ///
    /// # Errors
    /// As for [`Control::call`].
    pub async fn config_get(&mut self, name: &str) -> Result<Option<String>, Error> {
        let mut pairs: BTreeMap<String, String> = self.call(&["CONFIG", "GET", name]).await?;
        Ok(pairs.remove(name))
    }

    /// The server's clock: Unix time in microseconds.
    ///
    /// # Errors
    /// As for [`Control::call`].
    pub async fn time_us(&mut self) -> Result<i64, Error> {
        let (seconds, micros): (i64, i64) = self.call(&["TIME"]).await?;
        Ok(seconds.saturating_mul(1_000_000).saturating_add(micros))
    }

    /// BGSAVE SCHEDULE: at once, or after the AOF rewrite or other child that works. An error while
    /// another save runs.
    ///
    /// # Errors
    /// As for [`Control::call`].
    pub async fn bgsave_scheduled(&mut self) -> Result<(), Error> {
        let _started: Value = self.call(&["BGSAVE", "SCHEDULE"]).await?;
        Ok(())
    }
}

fn translate(error: RedisError, command: &str) -> Error {
    // `code` is the reply's first word; the crate knows some by kind and drops their word.
    if let Some(code) = error.code() {
        let line = format!("{code} {}", error.detail().unwrap_or_default());
        return Error::Reply {
            command: command.to_owned(),
            reply: ServerError::parse(line.as_bytes()),
        };
    }
    if error.is_timeout() {
        return Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("{command} was not answered in time"),
        ));
    }
    if error.is_connection_dropped() || error.is_io_error() || error.is_connection_refusal() {
        return Error::Closed;
    }
    Error::Unexpected {
        command: command.to_owned(),
    }
}
