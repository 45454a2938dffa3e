//! What an RDB file says of itself in its first fields: when it was made, and by whom.

use crate::rdb::{self, Event, Scanner};

/// The fields in front of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Unix time of the snapshot, in seconds.
    pub(super) ctime_s: Option<i64>,
    /// `redis-ver` or `valkey-ver`.
    pub(super) version: Option<String>,
    /// The replication ID, of a server that has one to tell.
    pub(super) replid: Option<String>,
    /// The replication offset.
    pub(super) offset: Option<i64>,
}

impl Head {
    /// Reads the first bytes of a file; a few hundred are enough.
    ///
    /// # Errors
    /// When they are not the beginning of an RDB file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Head, String> {
        let mut head = Head::default();
        let mut header = false;
        let mut handler = rdb::from_fn(|event: Event<'_>| {
            match event {
                Event::Header { .. } => header = true,
                Event::Aux { key, value, .. } => {
                    if let (Ok(key), Ok(value)) = (key.decode(), value.decode()) {
                        let value = String::from_utf8_lossy(&value).into_owned();
                        match key.as_ref() {
                            b"ctime" => head.ctime_s = value.parse().ok(),
                            b"redis-ver" | b"valkey-ver" => head.version = Some(value),
                            b"repl-id" => head.replid = Some(value),
                            b"repl-offset" => head.offset = value.parse().ok(),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
            Ok::<(), std::convert::Infallible>(())
        });
        Scanner::new()
            .feed(bytes, &mut handler)
            .map_err(|error| error.to_string())?;
        if header {
            Ok(head)
        } else {
            Err("it has no RDB header".to_owned())
        }
    }
}
