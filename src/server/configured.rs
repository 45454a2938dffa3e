//! From the configuration to a server: judging the URLs that stand there, and the endpoint of a database.
//!
//! The configuration room lies below this one, so it asks for the judgement of a URL through a function:
//! [`judge_url`] is that function.

use super::address::Transport;
use super::tls::TlsFiles;
use super::{Address, Endpoint};
use crate::config::{DatabaseConfig, FileRef, SecretError, UrlFacts};
use crate::failure::{Failure, Kind};
use crate::secret::Secret;

/// What a configuration wants to know of a URL; give this to [`crate::config::Config::load`].
///
/// # Errors
/// What is wrong with the URL, without its password.
pub fn judge_url(url: &str) -> Result<UrlFacts, String> {
    let address: Address = url.parse().map_err(why)?;
    Ok(UrlFacts {
        db: address.db(),
        username: address.username().is_some(),
        password: address.password().is_some(),
        tls: matches!(address.transport(), Transport::Tcp { tls: true, .. }),
    })
}

fn why(error: super::address::AddressError) -> String {
    error.to_string()
}

impl Endpoint {
    /// The server of a configured database, with its credentials and certificates. The secrets are read now.
    ///
    /// # Errors
    /// When a file that the configuration names cannot be had.
    pub fn of_database(database: &DatabaseConfig) -> Result<Endpoint, Failure> {
        of_url(database, &database.url)
    }

    /// The replica of a configured database, where it has one. What its URL does not say is as for the
    /// database's own server.
    ///
    /// # Errors
    /// As for [`Endpoint::of_database`].
    pub fn of_replica(database: &DatabaseConfig) -> Result<Option<Endpoint>, Failure> {
        let Some(url) = &database.replica_url else {
            return Ok(None);
        };
        let mut replica = of_url(database, url)?;
        let says = |address: &Address| address.username().is_some() || address.password().is_some();
        if !says(&replica.address) {
            let own = Endpoint::of_database(database)?;
            (replica.username, replica.password) = (own.username, own.password);
        }
        Ok(Some(replica))
    }
}

fn of_url(database: &DatabaseConfig, url: &Secret) -> Result<Endpoint, Failure> {
    let in_database = |failure: Failure| {
        failure.context(format!(
            "cannot reach the server of database `{}`",
            database.name
        ))
    };
    // The configuration had it judged when it was read; one that was made by other means is told here.
    let address: Address = url
        .expose()
        .parse()
        .map_err(|error| in_database(Failure::new(Kind::Config, why(error))))?;
    let secrets = |error: SecretError| in_database(error.into());
    let found = |file: &Option<FileRef>| match file {
        Some(file) => Ok(Some(file.find()?.to_owned())),
        None => Ok(None),
    };
    let mut endpoint = Endpoint::new(address);
    // What the URL itself says is nearer.
    if endpoint.username.is_none() {
        endpoint.username = database.username.clone();
    }
    if endpoint.password.is_none()
        && let Some(source) = &database.password
    {
        endpoint.password = Some(source.read().map_err(secrets)?);
    }
    endpoint.tls = TlsFiles {
        ca_file: found(&database.tls.ca_file).map_err(secrets)?,
        cert_file: found(&database.tls.cert_file).map_err(secrets)?,
        key_file: found(&database.tls.key_file).map_err(secrets)?,
    };
    Ok(endpoint)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Environment};

    fn database(keys: &str) -> DatabaseConfig {
        let text = format!("[[database]]\nname = \"a\"\n{keys}");
        let environment = Environment::in_folder("/").with("HOME", "/h");
        let config = Config::parse(Path::new("/x.toml"), &text, &environment, &judge_url);
        config.unwrap().databases.remove(0)
    }

    #[test]
    fn what_a_url_says_is_nearer_than_the_keys() {
        let database = database(
            "url = \"redis://:url@one\"\nusername = \"key\"\nreplica_url = \"redis://two\"",
        );
        let own = Endpoint::of_database(&database).unwrap();
        assert_eq!(own.password.unwrap().expose(), "url");
        assert_eq!(own.username.as_deref(), Some("key"));
        // A replica has the users of its master, unless it says otherwise.
        let replica = Endpoint::of_replica(&database).unwrap().unwrap();
        assert_eq!(replica.username.as_deref(), Some("key"));
        assert_eq!(replica.place(), "two:6379");
    }

    #[test]
    fn a_password_file_that_is_missing_names_the_database_and_the_places() {
        let database = database("url = \"redis://one\"\npassword_file = \"nowhere/secret\"");
        let failure = Endpoint::of_database(&database).unwrap_err();
        assert_eq!(failure.kind, Kind::Config);
        assert!(failure.message.contains("`a`"));
        let causes = failure.causes.join("\n");
        assert!(causes.contains("/nowhere/secret"), "{causes}");
    }

    #[test]
    fn a_replica_without_credentials_in_its_url_has_those_of_the_master() {
        let database = database("url = \"redis://me:pw@one\"\nreplica_url = \"redis://two\"");
        let replica = Endpoint::of_replica(&database).unwrap().unwrap();
        assert_eq!(replica.username.as_deref(), Some("me"));
        assert_eq!(replica.password.unwrap().expose(), "pw");
    }
}
