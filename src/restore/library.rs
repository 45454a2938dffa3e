//! Function libraries of a backup.

use std::borrow::Cow;

use crate::rdb::{Damage, StringRef};
use crate::target::Error;

/// A function library in a backup.
#[derive(Clone, PartialEq, Eq)]
pub struct Library {
    /// Its name, from its first line.
    pub name: String,
    /// Its source as it stands in the file: compressed, it may be a hundredth of itself.
    packed: Vec<u8>,
}

impl Library {
    pub(super) fn new(code: &StringRef<'_>) -> Result<Library, Error> {
        let text = code.decode().map_err(Error::KeyName)?;
        Ok(Library {
            name: library_name(&text).unwrap_or_else(|| "?".to_owned()),
            packed: code.raw().to_vec(),
        })
    }

    /// Its source.
    ///
    /// # Errors
    /// It is damaged; not so when it was surveyed.
    pub fn code(&self) -> Result<Cow<'_, [u8]>, Error> {
        match StringRef::parse(&self.packed) {
            Ok(Some(code)) => code.decode().map_err(Error::KeyName),
            Ok(None) => Err(Error::KeyName(Damage::Lzf)),
            Err(damage) => Err(Error::KeyName(damage)),
        }
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Library({}, {} bytes)", self.name, self.packed.len())
    }
}

/// The name in a library's first line: `#!lua name=mylib`.
fn library_name(code: &[u8]) -> Option<String> {
    let line = code.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("#!")?;
    line.split_whitespace()
        .find_map(|word| word.strip_prefix("name="))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_named_by_its_first_line() {
        assert_eq!(
            library_name(b"#!lua name=lib\nreturn 1").as_deref(),
            Some("lib")
        );
        assert_eq!(
            library_name(b"#!lua  flags=x name=a_b \n").as_deref(),
            Some("a_b")
        );
        assert_eq!(library_name(b"return 1"), None);
    }
}
