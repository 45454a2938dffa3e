//! Secrets: where they come from, and that they do not show.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rdbkeeper::config::{Config, Environment, SecretError};

use super::{refused, told, urls};

fn config(folder: &Path, environment: &Environment, keys: &str) -> Config {
    let text = format!("[[database]]\nname = \"a\"\nurl = \"rediss://h\"\n{keys}");
    Config::parse(&folder.join("rdbkeeper.toml"), &text, environment, &urls).unwrap()
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_secret_comes_from_the_credentials_first_then_from_beside_the_configuration() {
    let beside = tempfile::tempdir().unwrap();
    let credentials = tempfile::tempdir().unwrap();
    let environment = Environment::in_folder("/").with("HOME", "/h").with(
        "CREDENTIALS_DIRECTORY",
        credentials.path().to_str().unwrap(),
    );
    let config = config(
        beside.path(),
        &environment,
        "password_file = \"redis-password\"",
    );
    let source = config.databases[0].password.clone().unwrap();

    // Both places are named when it is in neither.
    let error = source.read().unwrap_err();
    let SecretError::Missing { tried } = &error else {
        panic!("{error}");
    };
    assert_eq!(
        *tried,
        [
            credentials.path().join("redis-password"),
            beside.path().join("redis-password")
        ]
    );
    // It is read when it is needed, so what comes later is found.
    private(&beside.path().join("redis-password"), "beside\n");
    assert_eq!(source.read().unwrap().expose(), "beside");
    private(&credentials.path().join("redis-password"), "credential\r\n");
    assert_eq!(source.read().unwrap().expose(), "credential");
}

#[test]
fn an_absolute_secret_is_where_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    private(&path, " with spaces \n\n");
    let environment = Environment::in_folder("/")
        .with("HOME", "/h")
        .with("CREDENTIALS_DIRECTORY", "/nowhere");
    let keys = format!("password_file = \"{}\"", path.display());
    let config = config(Path::new("/etc"), &environment, &keys);
    let source = config.databases[0].password.clone().unwrap();
    // One newline goes, nothing else: a password may end in a space.
    assert_eq!(source.read().unwrap().expose(), " with spaces \n");
    for bad in ["", "\n"] {
        private(&path, bad);
        let error = source.read().unwrap_err();
        assert!(matches!(error, SecretError::NotASecret { .. }), "{error}");
    }
    fs::write(&path, b"\xff").unwrap();
    assert!(matches!(source.read(), Err(SecretError::NotASecret { .. })));
    fs::write(&path, vec![b'x'; 100_000]).unwrap();
    assert!(matches!(source.read(), Err(SecretError::NotASecret { .. })));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(source.read(), Err(SecretError::Unreadable { .. })));
}

#[test]
fn certificates_are_looked_for_like_secrets() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ca.pem"), "x").unwrap();
    let environment = Environment::in_folder("/").with("HOME", "/h");
    let config = config(
        folder.path(),
        &environment,
        "tls = { ca_file = \"ca.pem\" }",
    );
    let tls = &config.databases[0].tls;
    let found = tls.ca_file.as_ref().unwrap().find().unwrap();
    assert_eq!(found, folder.path().join("ca.pem"));
    assert!(!tls.is_empty());
}

#[test]
fn no_secret_shows_in_debug_or_in_a_mistake() {
    let environment = Environment::in_folder("/")
        .with("HOME", "/h")
        .with("PW", "hunter2");
    let config = config(Path::new("/"), &environment, "password = \"${PW}\"");
    assert!(!format!("{config:?}").contains("hunter2"));
    let text = "[[database]]\nname = \"a\"\nurl = \"redis://me:hunter2@h\"";
    let config = Config::parse(Path::new("/x"), text, &environment, &urls).unwrap();
    assert!(!format!("{config:#?}").contains("hunter2"));

    for wrong in [
        "url = \"redis://me:hunter2@h/x\"",
        "url = \"http://me:hunter2@h\"",
        "url = \"redis://h\"\npasword = \"hunter2\"",
        "url = \"redis://h\"\nkey = \"hunter2\"",
        "url = \"redis://h\"\npassword = hunter2",
        "url = \"redis://h\"\npassword = \"hunter2",
        "url = \"redis://h\"\npassword = [\"hunter2\"]",
        "url = \"redis://h\"\npassword = \"hunter2${\"",
        "url = \"redis://h\"\npassword = \"x${hunter2-}\"",
        "url = \"redis://h\"\npassword = \"hunter2\"\npassword = \"hunter2\"",
        "url = \"redis://h\"\npassword = \"\"\"\nhunter2${A}\n\"\"\"",
        "url = \"redis://a:hunter2@h\"\npassword = \"hunter2\"",
        "url = \"redis://a:hunter2@h/1\"\ndatabases = [1]",
        "url = \"redis://h\"\ntls = { password = \"hunter2\" }",
    ] {
        let text = format!("[[database]]\nname = \"a\"\n{wrong}");
        let told = refused(&text);
        assert!(!told.contains("hunter2"), "{wrong}\n{told}");
    }
    let wrong = "[[database]]\nname = \"a\"\nurl = \"${PW}\"";
    let error = Config::parse(Path::new("/x"), wrong, &environment, &urls).unwrap_err();
    assert!(!told(error).contains("hunter2"));
}
