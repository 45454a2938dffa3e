//! The configuration, as a person meets it: files on disk, an environment, and what is told of mistakes.
#![allow(clippy::unwrap_used)]

mod files;
mod lookup;
mod mistakes;
mod secrets;
mod units;

use std::path::Path;

use rdbkeeper::config::{Config, ConfigError, Environment};
use rdbkeeper::failure::Failure;
use rdbkeeper::server::configured::judge_url as urls;

/// An ordinary user at home.
fn user() -> Environment {
    Environment::in_folder("/work-folder").with("HOME", "/home/user")
}

/// Reads a text as `/etc/x/rdbkeeper.toml`.
fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/x/rdbkeeper.toml"), text, &user(), &urls)
}

/// Everything that is told of a configuration that must not be accepted.
fn refused(text: &str) -> String {
    told(parse(text).unwrap_err())
}

fn told(error: ConfigError) -> String {
    let failure = Failure::from(error);
    format!("{}\n{}", failure.message, failure.causes.join("\n"))
}
