//! A secret in memory: what it holds never shows, neither in `Debug` nor in a log.
//!
//! There is no `Display` on purpose: whoever needs the text says so with [`Secret::expose`],
//! and a reviewer finds every such place by searching for that word.

use std::fmt;

/// A password or another text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the one who sends it to a server.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The text with the passwords of `scheme://user:password@host` in it replaced by `…`: for texts that
/// quote what a person wrote. An unescaped password may hold anything, quotation marks too, so all
/// between the first URL's colon and the last `@` of a line goes.
pub fn without_passwords(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(line_without_passwords).collect();
    lines.join("\n")
}

fn line_without_passwords(line: &str) -> String {
    let (Some(scheme), Some(at)) = (line.find("://"), line.rfind('@')) else {
        return line.to_owned();
    };
    let start = scheme + 3;
    if at < start {
        return line.to_owned();
    }
    let shown = match line[start..at].find(':') {
        Some(colon) => start + colon + 1,
        None => start,
    };
    format!("{}…{}", &line[..shown], &line[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_quoted_without_its_password() {
        for (text, expected) in [
            ("no", "no"),
            ("'redis://h/1' is right", "'redis://h/1' is right"),
            (
                "'redis://u:p'w@h/1'\nredis://v:x@h",
                "'redis://u:…@h/1'\nredis://v:…@h",
            ),
            ("'redis://u:p@h' or 'redis://v:q@i'", "'redis://u:…@i'"),
            ("me@home redis://h", "me@home redis://h"),
            ("redis://:p@w/x@h", "redis://:…@h"),
            ("redis://token@h", "redis://…@h"),
        ] {
            assert_eq!(without_passwords(text), expected);
        }
    }

    #[test]
    fn a_secret_does_not_show_in_debug() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert!(!format!("{:#?}", Some(secret)).contains("hunter2"));
    }
}
