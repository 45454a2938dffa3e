//! What the process was started with: variables, folder, user. Taken once and passed on, so that tests
//! can say what it is; and `${VARIABLE}` in strings.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The variables, the working folder and the user of a process.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    folder: PathBuf,
    root: bool,
}

impl Environment {
    /// That of this process. Variables that are not UTF-8 are left out.
    pub fn of_process() -> Environment {
        Environment {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            folder: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            root: rustix::process::geteuid().is_root(),
        }
    }

    /// An environment without variables, of an ordinary user who stands in `folder`.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Environment {
        Environment {
            folder: folder.into(),
            ..Environment::default()
        }
    }

    /// Sets a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Environment {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// Makes the user root.
    #[must_use]
    pub fn as_root(mut self) -> Environment {
        self.root = true;
        self
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// A variable that names something: an empty one counts as unset.
    pub fn get_path(&self, name: &str) -> Option<PathBuf> {
        let value = self.get(name).filter(|value| !value.is_empty())?;
        Some(PathBuf::from(value))
    }

    /// The working folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where this user's rdbkeeper keeps its things when nothing else is configured:
    /// `$XDG_STATE_HOME/rdbkeeper` where that is set, else `/var/lib/rdbkeeper` for root and
    /// `~/.local/state/rdbkeeper` for others. `None` without a home.
    pub fn home_of_state(&self) -> Option<PathBuf> {
        // The XDG specification says that a relative path is to be ignored.
        let absolute = |name| self.get_path(name).filter(|path| path.is_absolute());
        if let Some(state) = absolute("XDG_STATE_HOME") {
            return Some(state.join("rdbkeeper"));
        }
        if self.root {
            return Some(PathBuf::from("/var/lib/rdbkeeper"));
        }
        Some(absolute("HOME")?.join(".local/state/rdbkeeper"))
    }

    /// Replaces each `${NAME}` by the variable's value; `$${` stands for `${` itself.
    ///
    /// # Errors
    /// Names the first variable that is not set, or says that a `${` is not closed. Values are never told.
    pub fn expand(&self, text: &str) -> Result<String, ExpandError> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at - 1]);
                out.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            out.push_str(&rest[..at]);
            let after = &rest[at + 2..];
            let end = after.find('}').ok_or(ExpandError::NotClosed)?;
            let name = &after[..end];
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            {
                return Err(ExpandError::NotAName);
            }
            let value = self
                .get(name)
                .ok_or_else(|| ExpandError::Unset(name.to_owned()))?;
            out.push_str(value);
            rest = &after[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// Variables hold secrets, so only their number shows.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.len())
            .field("folder", &self.folder)
            .field("root", &self.root)
            .finish()
    }
}

/// Why the variables in a string cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// The variable is not set.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// `${` without `}`.
    #[error("a `${{` is not closed by `}}`; a literal `${{` is written `$${{`")]
    NotClosed,
    /// Something else than letters, digits and `_` between the braces. The text is not told: it may be a
    /// part of a secret that happens to hold `${`.
    #[error(
        "between `${{` and `}}` stands the name of an environment variable; a literal `${{` is written `$${{`"
    )]
    NotAName,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_and_a_doubled_dollar_is_literal() {
        let env = Environment::in_folder("/").with("A", "one").with("B_2", "");
        for (text, expected) in [
            ("${A}", "one"),
            ("x${A}y${B_2}z", "xoneyz"),
            ("$${A}", "${A}"),
            ("$A ${A}$", "$A one$"),
            ("$${${A}}", "${one}"),
            ("$$", "$$"),
        ] {
            assert_eq!(env.expand(text).unwrap(), expected, "{text}");
        }
        // What a variable holds is not expanded again.
        let env = env.with("C", "${A}");
        assert_eq!(env.expand("${C}").unwrap(), "${A}");
        assert_eq!(env.expand("${D}"), Err(ExpandError::Unset("D".to_owned())));
        assert_eq!(env.expand("${A"), Err(ExpandError::NotClosed));
        assert_eq!(env.expand("${a b}"), Err(ExpandError::NotAName));
        assert_eq!(env.expand("${}"), Err(ExpandError::NotAName));
    }

    #[test]
    fn an_environment_does_not_show_its_values() {
        let env = Environment::in_folder("/").with("PASSWORD", "hunter2");
        assert!(!format!("{env:?}").contains("hunter2"));
    }
}
