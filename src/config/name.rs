//! Names of databases and storages. They become folder names and object keys, so they are strict.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// The name of a database or a storage: `[a-z0-9][a-z0-9_-]{0,62}`, and not `latest`, which is a selector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Forbidden characters, empty, or too long.
    #[error(
        "`{0}` is not a name: write 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or a digit"
    )]
    Malformed(String),
    /// The word `latest`.
    #[error("`latest` cannot be a name: it means the newest backup")]
    Latest,
}

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let well_formed = text.len() <= 63
            && text.as_bytes().first().is_some_and(first)
            && text
                .bytes()
                .all(|byte| first(&byte) || byte == b'_' || byte == b'-');
        if !well_formed {
            return Err(NameError::Malformed(text.to_owned()));
        }
        if text == "latest" {
            return Err(NameError::Latest);
        }
        Ok(Name(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_strict_because_they_become_folders() {
        for good in [
            "a",
            "0",
            "sessions",
            "web-1_b",
            "latest2",
            &"x".repeat(63) as &str,
        ] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "_a",
            "A",
            "a b",
            "a/b",
            "..",
            "ä",
            "a.b",
            &"x".repeat(64) as &str,
        ] {
            assert!(
                matches!(bad.parse::<Name>(), Err(NameError::Malformed(_))),
                "{bad}"
            );
        }
        assert_eq!("latest".parse::<Name>(), Err(NameError::Latest));
    }
}
