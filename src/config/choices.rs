//! The values that a key may choose from: how a dump is taken, how it is compressed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a dump is taken (`method`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// The best that works, with the reason told.
    #[default]
    Auto,
    /// BGSAVE, and the file it leaves on this host.
    Bgsave,
    /// A full synchronisation, as a replica asks for it.
    Replication,
    /// Key by key, with SCAN and DUMP.
    Scan,
}

impl Method {
    /// Every method, in the order in which they are documented.
    pub const ALL: [Method; 4] = [
        Method::Auto,
        Method::Bgsave,
        Method::Replication,
        Method::Scan,
    ];

    /// The word in the configuration, on the command line and in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Auto => "auto",
            Method::Bgsave => "bgsave",
            Method::Replication => "replication",
            Method::Scan => "scan",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Method {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Method, ChoiceError> {
        let found = Method::ALL
            .into_iter()
            .find(|method| method.as_str() == text);
        found.ok_or_else(|| ChoiceError::Method(text.to_owned()))
    }
}

/// What is done when a fork of the server looks dangerous (`fork_guard`). The later one is the stricter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ForkGuard {
    /// Nobody looks.
    Off,
    /// It is told, and the dump goes on.
    #[default]
    Warn,
    /// No dump is taken that makes the server fork.
    Refuse,
}

impl FromStr for ForkGuard {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<ForkGuard, ChoiceError> {
        match text {
            "off" => Ok(ForkGuard::Off),
            "warn" => Ok(ForkGuard::Warn),
            "refuse" => Ok(ForkGuard::Refuse),
            _ => Err(ChoiceError::OneOf {
                text: text.to_owned(),
                known: "a fork guard: write \"warn\", \"refuse\" or \"off\"",
            }),
        }
    }
}

/// How the stored bytes are compressed (`compression`). Levels are always within their range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Compression {
    /// Not at all: the object is the RDB file itself.
    None,
    /// gzip, level 1 to 9.
    Gzip(u8),
    /// Zstandard, level 1 to 19.
    Zstd(u8),
}

impl Default for Compression {
    fn default() -> Compression {
        Compression::Zstd(3)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::None => f.pad("none"),
            Compression::Gzip(level) => f.pad(&format!("gzip:{level}")),
            Compression::Zstd(level) => f.pad(&format!("zstd:{level}")),
        }
    }
}

impl FromStr for Compression {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Compression, ChoiceError> {
        let not = || ChoiceError::Compression(text.to_owned());
        let (kind, level) = match text.split_once(':') {
            Some((kind, level)) => (kind, Some(level)),
            None => (text, None),
        };
        let within = |default: u8, highest: u8| match level {
            None => Ok(default),
            Some(level) => {
                // Only plain digits: `+3` parses as a number too.
                let plain = level.bytes().all(|byte| byte.is_ascii_digit());
                match level.parse() {
                    Ok(level) if plain && (1..=highest).contains(&level) => Ok(level),
                    _ => Err(not()),
                }
            }
        };
        match kind {
            "none" if level.is_none() => Ok(Compression::None),
            "gzip" => Ok(Compression::Gzip(within(6, 9)?)),
            "zstd" => Ok(Compression::Zstd(within(3, 19)?)),
            _ => Err(not()),
        }
    }
}

impl TryFrom<String> for Compression {
    type Error = ChoiceError;

    fn try_from(text: String) -> Result<Compression, ChoiceError> {
        text.parse()
    }
}

impl From<Compression> for String {
    fn from(compression: Compression) -> String {
        compression.to_string()
    }
}

/// A value that is none of those that a key takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// Not a method.
    #[error("`{0}` is not a method: write \"auto\", \"bgsave\", \"replication\" or \"scan\"")]
    Method(String),
    /// Not a compression, or a level out of its range.
    #[error(
        "`{0}` is not a compression: write \"zstd\" or \"zstd:1\" to \"zstd:19\", \"gzip\" or \"gzip:1\" to \"gzip:9\", or \"none\""
    )]
    Compression(String),
    /// Not a store of sessions.
    #[error("`{text}` is not a store of sessions{}", suggested(near.as_deref(), known))]
    SessionStore {
        /// What was written.
        text: String,
        /// The known one that is nearest.
        near: Option<String>,
        /// All of them.
        known: String,
    },
    /// Not one of a few words.
    #[error("`{text}` is not {known}")]
    OneOf {
        /// What was written.
        text: String,
        /// The words.
        known: &'static str,
    },
}

fn suggested(near: Option<&str>, known: &str) -> String {
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!("; it takes {known}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_choice_reads_back() {
        for text in ["none", "gzip:1", "gzip:9", "zstd:1", "zstd:19"] {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), text);
        }
        for method in Method::ALL {
            assert_eq!(method.as_str().parse(), Ok(method));
        }
        assert_eq!("zstd".parse(), Ok(Compression::Zstd(3)));
        assert_eq!("gzip".parse(), Ok(Compression::Gzip(6)));
    }

    #[test]
    fn a_level_out_of_range_is_refused() {
        for text in [
            "", "zstd:0", "zstd:20", "zstd:", "zstd:+3", "gzip:10", "none:1", "lz4", "ZSTD",
        ] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
    }
}
