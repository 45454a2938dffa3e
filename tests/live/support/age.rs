//! The age tools of others, and keys.

use std::path::PathBuf;

use age::secrecy::ExposeSecret as _;

use super::servers::{announce, test_folder};

/// A key pair.
pub struct Key {
    /// `age1…`.
    pub public: String,
    /// `AGE-SECRET-KEY-1…`.
    pub secret: String,
}

impl Key {
    /// A new one.
    pub fn new() -> Key {
        let identity = age::x25519::Identity::generate();
        Key {
            public: identity.to_public().to_string(),
            secret: identity.to_string().expose_secret().to_owned(),
        }
    }

    /// What age-keygen writes.
    pub fn file(&self) -> String {
        format!(
            "# created: 2026-11-23T00:00:00Z\n# public key: {}\n{}\n",
            self.public, self.secret
        )
    }
}

/// A program of the age tool: `age`, `age-keygen`. `None` after a visible line that says what is skipped.
pub fn tool(name: &str) -> Option<PathBuf> {
    let brought = test_folder().map(|folder| folder.join("age/bin").join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join(name));
    let found = installed.chain(brought).find(|path| path.is_file());
    if found.is_none() {
        skipped(name);
    }
    found
}

/// The folder for PYTHONPATH with pyrage, which is rage's library. `None` after a visible line.
pub fn pyrage() -> Option<PathBuf> {
    let found = test_folder()
        .map(|folder| folder.join("pyrage/tree"))
        .filter(|tree| tree.join("pyrage").is_dir());
    if found.is_none() {
        skipped("pyrage");
    }
    found
}

fn skipped(what: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    announce(&format!(
        "{test}: {what} was not found, what needs it is skipped (tests/servers/fetch.sh brings it)"
    ));
}
