//! The files that come with the program, and what a configuration means.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdbkeeper::config::{
    Compression, Config, Encryption, Environment, ForkGuard, Keep, KeyRegex, LongTtl, Method,
    MissingTtl, NotifyOn, NotifyStyle, SessionRule, SessionStore, StorageConfig,
};

use super::{parse, urls, user};

#[test]
fn every_file_in_config_parses() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        if let Err(error) = Config::parse(&path, &text, &user(), &urls) {
            panic!("{}: {}", path.display(), super::told(error));
        }
        // What is commented out is right too, each key alone: people uncomment it.
        for (number, line) in text.lines().enumerate() {
            let Some((key, _)) = line
                .strip_prefix("# ")
                .and_then(|rest| rest.split_once('='))
            else {
                continue;
            };
            if !key
                .trim()
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            {
                continue;
            }
            let mut lines: Vec<&str> = text.lines().collect();
            lines[number] = &line[2..];
            let mut text = lines.join("\n");
            if key.trim() == "tls" {
                text = text.replace("\"redis://", "\"rediss://");
            }
            // The keys of the age project's own tests.
            let text = text.replace(
                "age1…",
                "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa",
            );
            let environment = user()
                .with("REDIS_PASSWORD", "x")
                .with("BACKUP_PASSPHRASE", "x")
                .with(
                    "BACKUP_KEY",
                    "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33",
                );
            if let Err(error) = Config::parse(&path, &text, &environment, &urls) {
                panic!("{}: {line}: {}", path.display(), super::told(error));
            }
        }
        count += 1;
    }
    assert!(count >= 2);
}

#[test]
fn a_database_encrypts_as_it_says_itself_and_else_as_the_defaults_say() {
    let key = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    let text = format!(
        "[defaults]\nrecipients = [{key:?}]\nidentity_file = \"key\"\n\
         [[database]]\nname = \"a\"\nurl = \"redis://a\"\n\
         [[database]]\nname = \"b\"\nurl = \"redis://b\"\nrecipients = []\n\
         [[database]]\nname = \"c\"\nurl = \"redis://c\"\npassphrase = \"x\"\n"
    );
    let config = parse(&text).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| config.database(name).unwrap());
    assert_eq!(a.encryption.recipients(), [key]);
    assert!(a.encryption.is_on() && !b.encryption.is_on());
    assert!(matches!(c.encryption, Encryption::Passphrase(_)));
    // What was encrypted before is still to be read.
    assert!(a.identity.is_some() && b.identity == a.identity && c.identity == a.identity);
}

#[test]
fn the_example_and_the_reference_name_every_key_and_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rdbkeeper.toml");
    let text = fs::read_to_string(&path).unwrap();
    let example = Config::parse(&path, &text, &user(), &urls).unwrap();
    // Asking for a key that does not exist lists those that do.
    let unknown = super::refused(
        "[daemon]\nzzzz = 1\n[storage.a]\nzzzz = 1\n[[database]]\nzzzz = 1\ntls = { zzzz = 1 }\n[[database.sessions]]\nzzzz = 1",
    );
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let reference = fs::read_to_string(docs).unwrap();
    let mut keys = 0;
    for list in unknown
        .lines()
        .filter_map(|line| line.split_once("it takes "))
    {
        for key in list.1.split(", ") {
            let mentioned = text
                .lines()
                .any(|line| line.contains(&format!("{key} ")) && line.contains('='));
            assert!(mentioned, "config/rdbkeeper.toml does not show `{key}`");
            let explained =
                reference.contains(&format!("`{key}`")) || reference.contains(&format!("{key} ="));
            assert!(explained, "docs/configuration.md does not explain `{key}`");
            keys += 1;
        }
    }
    assert!(keys > 20, "{unknown}");
    // What it shows as set is what holds without it.
    let plain = parse(
        "[storage.disk]\nkind = \"local\"\npath = \"/b\"\n[[database]]\nname = \"sessions\"\nurl = \"redis://localhost:6379\"",
    );
    let mut plain = plain.unwrap().databases.remove(0);
    plain.databases = Some(vec![0, 1]);
    let pattern = KeyRegex::new("^websauna_session[0-9a-f]{64}$").unwrap();
    let year = Duration::from_secs(365 * 86_400);
    plain.sessions = vec![SessionRule::new(SessionStore::Pyramid, pattern, year)];
    assert_eq!(example.databases[0], plain);
}

#[test]
fn a_bucket_is_read_with_all_its_keys_and_its_secrets_do_not_show() {
    let config = parse(
        r#"
        [storage.offsite]
        kind = "s3"
        bucket = "company-backups"
        prefix = "/redis/web/"
        endpoint = "https://s3.example.com:9000/"
        access_key_id = "hunter-id"
        secret_access_key = "hunter-secret"
        session_token = "hunter-token"
        server_side_encryption = "aws:kms"
        kms_key_id = "k"
        storage_class = "STANDARD_IA"
        object_lock = { mode = "COMPLIANCE", days = 30 }
        part_size = "32MiB"
        checksums = true
        path_style = false
        [[database]]
        name = "a"
        url = "redis://h"
        "#,
    )
    .unwrap();
    let StorageConfig::S3(bucket) = &config.storages["offsite"] else {
        panic!("{:?}", config.storages);
    };
    assert_eq!(bucket.prefix, "redis/web");
    assert_eq!(
        bucket.endpoint.as_deref(),
        Some("https://s3.example.com:9000")
    );
    assert_eq!(bucket.path_style, Some(false));
    assert_eq!(bucket.part_size, Some(32 << 20));
    assert_eq!(bucket.object_lock.map(|lock| lock.days), Some(30));
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter"), "{shown}");
}

#[test]
fn rules_for_sessions_come_from_the_defaults_unless_a_database_has_its_own() {
    let config = parse(
        r#"
        [defaults]
        require_backup = "1d"
        sessions_schedule = "0 */15 * * * *"
        [[defaults.sessions]]
        store = "django"
        timeout = 1209600
        [[database]]
        name = "a"
        url = "redis://h/1"
        [[database]]
        name = "b"
        url = "redis://h/2"
        sessions_schedule = "*/5 * * * *"
        require_backup = 0
        [[database.sessions]]
        store = "flask"
        timeout = "31d"
        long_ttl = "shorten"
        [[database.sessions]]
        store = "opaque"
        match = '^job:\d+$'
        timeout = "2d"
        missing_ttl = "report"
        idle = true
        "#,
    )
    .unwrap();
    let [a, b] = config.databases.as_slice() else {
        panic!("two databases");
    };
    let day = Duration::from_secs(86_400);
    assert_eq!(a.sessions.len(), 1);
    assert_eq!(a.sessions[0].store, SessionStore::Django);
    assert_eq!(a.sessions[0].timeout, 14 * day);
    assert_eq!(
        a.sessions_schedule.as_ref().map(|cron| cron.as_str()),
        Some("0 */15 * * * *")
    );
    assert_eq!(a.require_backup, day);
    assert_eq!(b.sessions.len(), 2);
    assert_eq!(b.sessions[0].long_ttl, LongTtl::Shorten);
    assert_eq!(b.sessions[0].missing_ttl, MissingTtl::Set);
    assert!(b.sessions[1].pattern.matches(b"job:17"));
    assert!(!b.sessions[1].pattern.matches("job:\u{0663}".as_bytes()));
    assert_eq!(b.sessions[1].missing_ttl, MissingTtl::Report);
    assert!(b.sessions[1].idle);
    assert_eq!(b.require_backup, Duration::ZERO);
}

#[test]
fn the_websauna_file_keeps_sessions_and_celery_apart() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/websauna.toml");
    let text = fs::read_to_string(&path).unwrap();
    let config = Config::parse(&path, &text, &user(), &urls).unwrap();
    let databases: Vec<_> = config
        .databases
        .iter()
        .map(|database| (database.name.as_str(), database.databases.clone()))
        .collect();
    assert_eq!(
        databases,
        [("sessions", Some(vec![1])), ("celery", Some(vec![3]))]
    );
}

#[test]
fn a_database_takes_what_it_does_not_say_from_the_defaults() {
    let config = parse(
        r#"
        [storage.near]
        kind = "local"
        path = "archive"
        [storage.far]
        kind = "local"
        path = "/mnt/far"
        [defaults]
        method = "scan"
        timeout = 90
        databases = [7, 5]
        storage = ["far"]
        username = "backup"
        password = "x"
        scan_max_value = 1024
        fork_guard = "refuse"
        disable_server_compression = true
        [[database]]
        name = "a"
        url = "redis://one"
        [[database]]
        name = "b"
        url = "redis://me:pw@two/3"
        method = "replication"
        fork_guard = "off"
        disable_server_compression = false
        timeout = "1h30m"
        storage = ["near", "far"]
        compression = "gzip"
        shrink_guard = 1
        scan_batch = 10
        "#,
    )
    .unwrap();
    let [a, b] = config.databases.as_slice() else {
        panic!("two databases");
    };
    assert_eq!(a.method, Method::Scan);
    assert_eq!(a.timeout, Duration::from_secs(90));
    assert_eq!(a.databases, Some(vec![5, 7]));
    assert_eq!(a.storage.len(), 1);
    assert_eq!(a.username.as_deref(), Some("backup"));
    assert!(a.password.is_some());
    assert_eq!(a.scan_max_value, 1024);
    assert_eq!(a.compression, Compression::Zstd(3));
    // A scan has no use for it, and the defaults may say it for the others.
    assert_eq!(
        (a.fork_guard, a.disable_server_compression),
        (ForkGuard::Refuse, true)
    );
    assert_eq!(
        (b.fork_guard, b.disable_server_compression),
        (ForkGuard::Off, false)
    );
    assert_eq!(b.method, Method::Replication);
    assert_eq!(b.timeout, Duration::from_secs(5400));
    // The URL is nearer than the defaults.
    assert_eq!(b.databases, Some(vec![3]));
    assert_eq!((&b.username, &b.password), (&None, &None));
    assert_eq!(b.storage.len(), 2);
    assert_eq!(b.compression, Compression::Gzip(6));
    assert_eq!((b.shrink_guard, b.scan_batch), (1.0, 10));
    // A relative path is taken from where the configuration lies.
    assert_eq!(
        config.storages["near"],
        StorageConfig::Local {
            path: PathBuf::from("/etc/x/archive")
        }
    );
    assert_eq!(config.origin, Some(PathBuf::from("/etc/x/rdbkeeper.toml")));
}

#[test]
fn without_a_storage_backups_lie_in_the_users_state_folder() {
    let config = parse("[[database]]\nname = \"a\"\nurl = \"redis://h\"").unwrap();
    let path = PathBuf::from("/home/user/.local/state/rdbkeeper/backups");
    assert_eq!(config.storages["local"], StorageConfig::Local { path });
    assert_eq!(
        config.databases[0].storage,
        [config.storage("local").unwrap().0.clone()]
    );
    let path = Path::new("/etc/x.toml");
    let homeless = Environment::in_folder("/");
    let error = Config::parse(
        path,
        "[[database]]\nname = \"a\"\nurl = \"redis://h\"",
        &homeless,
        &urls,
    );
    assert!(super::told(error.unwrap_err()).contains("HOME"));
}

#[test]
fn variables_are_expanded_in_every_string() {
    let environment = user()
        .with("NAME", "web")
        .with("WHERE", "/srv")
        .with("HOW", "scan")
        .with("LONG", "2m");
    let text = r#"
        [storage.disk]
        kind = "local"
        path = "${WHERE}/backups"
        [[database]]
        name = "${NAME}"
        url = "redis://${NAME}.internal"
        method = "${HOW}"
        timeout = "${LONG}"
        storage = ["disk"]
        username = "$${NAME}"
    "#;
    let config = Config::parse(Path::new("/x.toml"), text, &environment, &urls).unwrap();
    let database = &config.databases[0];
    assert_eq!(database.name.as_str(), "web");
    assert_eq!(database.url.expose(), "redis://web.internal");
    assert_eq!(database.method, Method::Scan);
    assert_eq!(database.timeout, Duration::from_secs(120));
    assert_eq!(database.username.as_deref(), Some("${NAME}"));
    let path = PathBuf::from("/srv/backups");
    assert_eq!(config.storages["disk"], StorageConfig::Local { path });
}

#[test]
fn policies_hooks_and_notices_come_from_the_defaults_too() {
    let config = parse(
        r#"
        [daemon]
        timezone = "Europe/Berlin"
        listen = "127.0.0.1:9187"
        [defaults]
        schedule = "0 2 * * *"
        keep = { last = 2, daily = 7 }
        keep_in = { local = { within = "30d" } }
        hooks = { before = [["sync", "-f", "${HOME}/x"]] }
        notify = { url_file = "webhook", style = "healthchecks" }
        [[database]]
        name = "a"
        url = "redis://h/1"
        [[database]]
        name = "b"
        url = "redis://h/2"
        keep = { monthly = 1 }
        keep_in = {}
        hooks = {}
        notify = { url = "https://example.com/x", on = ["failure"] }
        catch_up = false
        jitter = "5m"
        "#,
    )
    .unwrap();
    assert_eq!(
        config.daemon.timezone.iana_name(),
        Some("Europe/Berlin"),
        "{:?}",
        config.daemon
    );
    assert_eq!(config.daemon.listen.unwrap().port(), 9187);
    let [a, b] = config.databases.as_slice() else {
        panic!("two databases");
    };
    let daily = Keep {
        last: 2,
        daily: 7,
        ..Keep::default()
    };
    assert_eq!(a.policies.of("offsite"), Some(&daily));
    let within = Duration::from_secs(30 * 86_400);
    assert_eq!(a.policies.of("local").unwrap().within, within);
    assert_eq!(b.policies.of("local").unwrap().monthly, 1);
    assert!(a.hooks.before[0][2].ends_with("/x") && !a.hooks.before[0][2].contains('$'));
    assert!(b.hooks.is_empty());
    let (of_a, of_b) = (a.notify.as_ref().unwrap(), b.notify.as_ref().unwrap());
    assert_eq!(of_a.style, NotifyStyle::Healthchecks);
    assert_eq!(of_a.on, NotifyOn::ALL);
    assert_eq!(of_b.on, [NotifyOn::Failure]);
    assert!(!format!("{of_b:?}").contains("example.com"));
    assert!(a.catch_up && !b.catch_up);
    assert_eq!(b.schedule.as_ref().unwrap().as_str(), "0 2 * * *");
}
