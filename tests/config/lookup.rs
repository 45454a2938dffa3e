//! Where a configuration is looked for.

use std::fs;
use std::path::{Path, PathBuf};

use rdbkeeper::config::{Config, ConfigError, Environment, StorageConfig};
use rdbkeeper::failure::{Failure, Kind};

use super::urls;

fn file(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let text = format!(
        "[[database]]\nname = \"{}\"\nurl = \"redis://h\"",
        name.trim_end_matches(".toml")
    );
    fs::write(&path, text).unwrap();
    path
}

fn loaded(named: Option<&Path>, environment: &Environment) -> String {
    let config = Config::load(named, environment, &urls).unwrap();
    config.databases[0].name.to_string()
}

#[test]
fn the_nearer_configuration_wins() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment::in_folder(folder.path()).with("HOME", "/h");
    file(folder.path(), "rdbkeeper.toml");
    assert_eq!(loaded(None, &environment), "rdbkeeper");
    let by_variable = file(folder.path(), "variable.toml");
    let environment = environment.with("RDBKEEPER_CONFIG", by_variable.to_str().unwrap());
    assert_eq!(loaded(None, &environment), "variable");
    let by_flag = file(folder.path(), "flag.toml");
    assert_eq!(loaded(Some(&by_flag), &environment), "flag");
    // A relative one is taken from the working folder.
    assert_eq!(loaded(Some(Path::new("flag.toml")), &environment), "flag");
    // An empty variable is no variable.
    let environment = environment.with("RDBKEEPER_CONFIG", "");
    assert_eq!(loaded(None, &environment), "rdbkeeper");
}

#[test]
fn a_named_configuration_that_is_missing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "rdbkeeper.toml");
    let environment = Environment::in_folder(folder.path()).with("HOME", "/h");
    let error = Config::load(Some(Path::new("nowhere.toml")), &environment, &urls).unwrap_err();
    assert!(matches!(error, ConfigError::Missing { .. }));
    let failure = Failure::from(error);
    assert_eq!(failure.kind, Kind::Config);
    assert!(failure.hint.unwrap().contains("--config"));
    let environment = environment.with("RDBKEEPER_CONFIG", "nowhere.toml");
    let error = Config::load(None, &environment, &urls).unwrap_err();
    assert!(
        Failure::from(error)
            .hint
            .unwrap()
            .contains("$RDBKEEPER_CONFIG")
    );
}

#[test]
fn a_configuration_that_cannot_be_read_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("rdbkeeper.toml")).unwrap();
    let environment = Environment::in_folder(folder.path()).with("HOME", "/h");
    let error = Config::load(None, &environment, &urls).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }));
    fs::remove_dir(folder.path().join("rdbkeeper.toml")).unwrap();
    fs::write(folder.path().join("rdbkeeper.toml"), b"\xff\xfe").unwrap();
    let error = Config::load(None, &environment, &urls).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }));
}

#[test]
fn with_no_configuration_the_local_server_is_kept_in_the_users_state_folder() {
    let path = |config: &Config| match &config.storages["local"] {
        StorageConfig::Local { path } => path.clone(),
        other => panic!("{other:?}"),
    };
    let user = Environment::in_folder("/nowhere").with("HOME", "/home/user");
    let config = Config::without_file(&user).unwrap();
    let [database] = config.databases.as_slice() else {
        panic!("one database");
    };
    assert_eq!(database.name.as_str(), "default");
    assert_eq!(database.url.expose(), "redis://127.0.0.1:6379");
    assert_eq!(database.databases, None);
    assert_eq!(config.origin, None);
    let state = PathBuf::from("/home/user/.local/state/rdbkeeper");
    assert_eq!(path(&config), state.join("backups"));
    assert_eq!(config.daemon.state_dir, state.join("state"));

    let user = user.with("XDG_STATE_HOME", "/xdg");
    let config = Config::without_file(&user).unwrap();
    assert_eq!(path(&config), PathBuf::from("/xdg/rdbkeeper/backups"));
    let user = user.with("XDG_STATE_HOME", "relative");
    let config = Config::without_file(&user).unwrap();
    assert_eq!(path(&config), state.join("backups"));
    let root = user.as_root();
    let config = Config::without_file(&root).unwrap();
    assert_eq!(path(&config), PathBuf::from("/var/lib/rdbkeeper/backups"));
    let config = Config::without_file(&root.with("XDG_STATE_HOME", "/xdg")).unwrap();
    assert_eq!(path(&config), PathBuf::from("/xdg/rdbkeeper/backups"));
    let homeless = Config::without_file(&Environment::in_folder("/"));
    assert!(matches!(homeless, Err(ConfigError::NoHome)));
}

#[test]
fn a_name_that_is_not_configured_is_told_the_nearest() {
    let config = super::parse("[[database]]\nname = \"sessions\"\nurl = \"redis://h\"").unwrap();
    let failure = Failure::from(config.database("session").unwrap_err());
    assert_eq!(failure.kind, Kind::Usage);
    assert!(failure.hint.unwrap().contains("`sessions`"));
    let failure = Failure::from(config.storage("offsite").unwrap_err());
    assert!(failure.hint.unwrap().contains("local"));
}
