//! The configuration, as a person meets it: files on disk, an environment, and what is told of mistakes.
#![allow(clippy::unwrap_used)]

mod files;
mod lookup;
mod mistakes;
mod secrets;

use std::path::Path;

use rdbkeeper::config::{Config, ConfigError, Environment, UrlFacts};
use rdbkeeper::failure::Failure;

/// Judges URLs as simply as these tests need it; the real judge has its own tests.
fn urls(url: &str) -> Result<UrlFacts, String> {
    let (scheme, rest) = url.split_once("://").ok_or("not a URL")?;
    if !["redis", "rediss", "redis+unix"].contains(&scheme) {
        return Err(format!("`{scheme}` is not a scheme of Redis"));
    }
    let (login, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let db = place.split_once('/').filter(|(_, db)| !db.is_empty());
    Ok(UrlFacts {
        db: db
            .map(|(_, db)| db.parse())
            .transpose()
            .map_err(|_| "the database is not a number")?,
        username: !user.is_empty(),
        password: !password.is_empty(),
        tls: scheme == "rediss",
    })
}

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
