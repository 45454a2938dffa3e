//! What is told of a configuration that is wrong.

use rdbkeeper::config::{Config, ConfigError};

use super::{parse, refused, urls, user};

/// The key of the age project's own tests.
const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

/// The mistakes as `line:column`.
fn places(text: &str) -> Vec<(usize, usize)> {
    match parse(text) {
        Err(ConfigError::Mistakes(mistakes)) => mistakes
            .list
            .iter()
            .map(|mistake| (mistake.line.unwrap_or(0), mistake.column.unwrap_or(0)))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn five_mistakes_are_told_at_once_with_their_lines() {
    let text = r#"[storage.disk]
kind = "local"
path = 7

[[database]]
name = "Sessions"
url = "http://localhost"
timeout = "soon"
compresion = "zstd"
"#;
    assert_eq!(places(text), [(3, 8), (6, 8), (7, 7), (8, 11), (9, 1)]);
    let told = refused(text);
    assert!(
        told.starts_with("there are 5 mistakes in the configuration /etc/x/rdbkeeper.toml"),
        "{told}"
    );
    for part in [
        "/etc/x/rdbkeeper.toml:3:8: `path` is a string, not an integer",
        "3 | path = 7\n  |        ^",
        "`name`: `Sessions` is not a name",
        "`url`: `http://` is not a server URL",
        "`timeout`: `soon` is not a duration: write \"90s\"",
        "unknown key `compresion` in [[database]]; did you mean `compression`?",
        "9 | compresion = …\n  | ^^^^^^^^^^",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
}

#[test]
fn each_mistake_says_what_would_be_right() {
    let mut wrong = Vec::new();
    let database = |keys: &str| format!("[[database]]\nname = \"a\"\nurl = \"redis://h\"\n{keys}");
    let rule = |keys: &str| database(&format!("[[database.sessions]]\n{keys}"));
    let bucket = |keys: &str| {
        database(&format!(
            "[storage.a]\nkind = \"s3\"\nbucket = \"backups\"\n{keys}"
        ))
    };
    for (text, part) in [
        ("", "no database is configured"),
        (
            "[database]\nname = \"a\"\nurl = \"redis://h\"",
            "written [[database]]",
        ),
        ("database = []", "`database` is empty"),
        (
            &database("fork_guard = \"on\""),
            "`on` is not a fork guard: write \"warn\", \"refuse\" or \"off\"",
        ),
        (
            &database("method = \"scan\"\ndisable_server_compression = true"),
            "`disable_server_compression` is for BGSAVE and replication, and `method` is \"scan\"",
        ),
        (
            &database("disable_server_compression = \"yes\""),
            "`disable_server_compression` is true or false",
        ),
        (
            &database("[daemon]\nnice = 20"),
            "`nice` is a whole number from 0 to 19, not 20",
        ),
        (
            &database("[daemon]\nnice = -5"),
            "`nice` is a whole number from 0 to 19, not -5",
        ),
        ("database = [1]", "a database is a table"),
        ("[[database]]\nurl = \"redis://h\"", "has no `name`"),
        ("[[database]]\nname = \"a\"", "has no `url`"),
        (
            "[[database]]\nname = \"latest\"\nurl = \"redis://h\"",
            "`latest` cannot be a name",
        ),
        (
            &database("[[databases]]\nname = \"a\""),
            "unknown key `databases` in the top level; did you mean `database`?",
        ),
        (
            &database("[deamon]"),
            "unknown key `deamon` in the top level; did you mean `daemon`?",
        ),
        (
            "storage = 1\n[[database]]\nname = \"a\"\nurl = \"redis://h\"",
            "`storage` is a table",
        ),
        (
            &database("[storage]\nkind = \"local\""),
            "belongs under [storage.NAME]",
        ),
        (&database("[storage]"), "[storage] holds no storage"),
        (&database("[storage.a]\npath = \"/x\""), "has no `kind`"),
        (&database("[storage.a]\nkind = \"local\""), "has no `path`"),
        (
            &database("[storage.a]\nkind = \"tape\""),
            "`tape` is not a kind of storage; write \"local\" or \"s3\"",
        ),
        (
            &database("[storage.a]\nkind = \"s3\"\nregion = \"x\""),
            "[storage.a] has no `bucket`",
        ),
        (&bucket("path = \"/x\""), "unknown key `path`"),
        (
            &bucket("end_point = \"https://h\""),
            "did you mean `endpoint`?",
        ),
        (
            &bucket("").replace("backups", "Backups"),
            "`Backups` is no bucket's name",
        ),
        (
            &bucket("endpoint = \"s3.example.com\""),
            "begins with https://",
        ),
        (&bucket("endpoint = \"https://h/x\""), "without a path"),
        (
            &bucket("endpoint = \"https://u:p@h\""),
            "no user and no password",
        ),
        (&bucket("region = \"eu central\""), "is no region"),
        (
            &bucket("prefix = \"a//b\""),
            "names are separated by one `/`",
        ),
        (&bucket("prefix = \"../x\""), "none is `.` or `..`"),
        (&bucket("access_key_id = \"a\""), "belong together"),
        (&bucket("secret_access_key_file = \"a\""), "belong together"),
        (
            &bucket("session_token = \"a\""),
            "`session_token` belongs to",
        ),
        (
            &bucket(
                "access_key_id = \"a\"\nsecret_access_key = \"b\"\nsecret_access_key_file = \"c\"",
            ),
            "exclude each other",
        ),
        (
            &bucket("server_side_encryption = \"aes256\""),
            "\"AES256\" or \"aws:kms\", not `aes256`",
        ),
        (
            &bucket("server_side_encryption = \"AES256\"\nkms_key_id = \"k\""),
            "`kms_key_id` needs server_side_encryption = \"aws:kms\"",
        ),
        (&bucket("storage_class = \"cold\""), "is no storage class"),
        (
            &bucket("storage_class = \"GLACIER\""),
            "cannot be read before",
        ),
        (
            &bucket("object_lock = { mode = \"GOVERNANCE\" }"),
            "`object_lock` is a table",
        ),
        (
            &bucket("object_lock = { mode = \"x\", days = 1 }"),
            "\"GOVERNANCE\" or \"COMPLIANCE\", not `x`",
        ),
        (
            &bucket("object_lock = { mode = \"GOVERNANCE\", days = 0 }"),
            "a whole number from 1",
        ),
        (
            &bucket("checksums = false\nobject_lock = { mode = \"GOVERNANCE\", days = 1 }"),
            "`object_lock` needs checksums",
        ),
        (&bucket("part_size = \"4MiB\""), "from 5MiB to 5GiB"),
        (
            &database("[storage.A]\nkind = \"local\"\npath = \"x\""),
            "is not a name",
        ),
        (
            &database("storage = [\"dsk\"]\n[storage.disk]\nkind = \"local\"\npath = \"/x\""),
            "there is no storage `dsk`; did you mean `disk`?",
        ),
        (
            &database("storage = [\"far\"]"),
            "configure it: [storage.far]",
        ),
        (&database("storage = \"disk\""), "an array of strings"),
        (&database("storage = []"), "`storage` is empty"),
        (
            &database("storage = [\"local\", \"local\"]"),
            "names `local` twice",
        ),
        (&database("databases = []"), "`databases` is empty"),
        (&database("databases = [1, 1]"), "names 1 twice"),
        (&database("databases = [-1]"), "not -1"),
        (&database("databases = [1.5]"), "an array of whole numbers"),
        (&database("databases = 1"), "not an integer"),
        (&database("method = \"dump\""), "write \"auto\""),
        (&database("compression = \"zstd:20\""), "\"zstd:19\""),
        (
            &database("shrink_guard = 1.5"),
            "a number from 0 to 1, not 1.5",
        ),
        (&database("shrink_guard = nan"), "a number from 0 to 1"),
        (&database("scan_batch = 0"), "a whole number from 1"),
        (&database("scan_max_value = \"1 lot\""), "is not a size"),
        (
            &database("max_keys_per_second = -5"),
            "a whole number from 0 on, not -5",
        ),
        (&database("timeout = 0"), "at least one second"),
        (&database("timeout = true"), "a duration like \"15m\""),
        (&database("timeout = -3"), "is not a duration"),
        (&database("shared = 1"), "true or false, not an integer"),
        (&database("rdb_path = \"dump.rdb\""), "an absolute path"),
        (&database("username = \"\""), "`username` is empty"),
        (&database("username = \"${NOT_SET}\""), "NOT_SET is not set"),
        (&database("username = \"${NOT_SET\""), "is not closed"),
        (
            &database("password = \"a\"\npassword_file = \"b\""),
            "exclude each other",
        ),
        (
            &database("tls = { ca_file = \"x\" }"),
            "write rediss:// instead",
        ),
        (
            &database("tls = { cert_file = \"x\" }").replace("redis:", "rediss:"),
            "give both or none",
        ),
        (
            &database("tls = { cafile = \"x\" }").replace("redis:", "rediss:"),
            "did you mean `ca_file`?",
        ),
        (&database("tls = true"), "`tls` is a table"),
        (
            &database("replica_url = \"redis://r/4\""),
            "another database than `url`",
        ),
        (
            &database("recipients = [\"age1x\"]"),
            "`recipients`: this is no age public key: one begins with age1",
        ),
        (
            &database("recipients = [\"AGE-SECRET-KEY-1HUNTER2\"]"),
            "`recipients`: this is a secret key, which is not shown here",
        ),
        (
            &database("recipients = [\"ssh-ed25519 AAAA me\"]"),
            "keys of SSH are not supported",
        ),
        (
            &database("recipients = [\"age1yubikey1qq\"]"),
            "keys of age plugins are not supported",
        ),
        (&database("recipients = \"age1x\""), "an array of strings"),
        (
            &database(&format!("recipients = [{RECIPIENT:?}, {RECIPIENT:?}]")),
            "names age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa twice",
        ),
        (
            &database(&format!("recipients = [{RECIPIENT:?}]\npassphrase = \"x\"")),
            "`recipients` and a passphrase exclude each other",
        ),
        (
            &database("passphrase = \"x\"\npassphrase_file = \"y\""),
            "`passphrase` and `passphrase_file` exclude each other",
        ),
        (
            &database("identity = \"x\"\nidentity_file = \"y\""),
            "`identity` and `identity_file` exclude each other",
        ),
        (
            &database("identity = \"hunter2\""),
            "`identity`: line 1 is no age identity",
        ),
        (
            &database(&format!("identity = {RECIPIENT:?}")),
            "`identity`: line 1 is a public key",
        ),
        (
            &database("keep = { last = 0, within = \"0s\" }"),
            "`keep` keeps nothing",
        ),
        (
            &database("keep = { dayly = 7 }"),
            "unknown key `dayly` in `keep`; did you mean `daily`?",
        ),
        (
            &database("keep = { last = -1 }"),
            "`last` is a whole number from 0",
        ),
        (
            &database("keep_in = { tape = { last = 1 } }"),
            "there is no storage `tape`",
        ),
        (
            &database("keep_in = { local = 3 }"),
            "`keep_in.local` is a table",
        ),
        (
            &database("schedule = \"0 0 30 2 *\""),
            "`schedule` is never due",
        ),
        (
            &database("verify_schedule = \"at noon\""),
            "`verify_schedule` is no cron expression",
        ),
        (
            &database("jitter = \"soon\""),
            "`jitter`: `soon` is not a duration",
        ),
        (
            &database("hooks = { before = [\"sync\"] }"),
            "`before` of `hooks` is a list of commands",
        ),
        (
            &database("hooks = { after = [[]] }"),
            "`after` of `hooks` is a list of commands",
        ),
        (
            &database("hooks = { afterwards = [[\"true\"]] }"),
            "unknown key `afterwards` in `hooks`; did you mean `after`?",
        ),
        (
            &database("notify = { style = \"json\" }"),
            "neither `url` nor `url_file`",
        ),
        (
            &database("notify = { url = \"ftp://x\" }"),
            "begins with https:// or http://",
        ),
        (
            &database("notify = { url = \"https://x\", url_file = \"x\" }"),
            "`url` and `url_file` exclude each other",
        ),
        (
            &database("notify = { url = \"https://x\", on = [] }"),
            "nobody would be told",
        ),
        (
            &database("notify = { url = \"https://x\", on = [\"sucess\"] }"),
            "`sucess` is not something to be told of",
        ),
        (
            &database("notify = { url = \"https://x\", style = \"slack\" }"),
            "`slack` is not a style of notices",
        ),
        (
            &database("sessions_schedule = \"every hour\""),
            "`sessions_schedule` is no cron expression",
        ),
        (&rule("store = \"pyramid\""), "has no `timeout`"),
        (&rule("timeout = 1"), "has no `store`"),
        (
            &rule("store = \"pyrmid\"\ntimeout = 1"),
            "did you mean `pyramid`?",
        ),
        (
            &rule("store = \"zope\"\ntimeout = 1"),
            "it takes pyramid, pyramid-session-redis",
        ),
        (&rule("store = \"opaque\"\ntimeout = 1"), "needs `match`"),
        (
            &rule("store = \"flask\"\ntimeout = 0"),
            "`timeout` is at least one second",
        ),
        (
            &rule("store = \"flask\"\ntimeout = \"40000d\""),
            "`timeout` is at most a hundred years",
        ),
        (
            &rule("store = \"flask\"\ntimeout = 1\ngrace = \"40000d\""),
            "`grace` is at most a hundred years",
        ),
        (
            &rule("store = \"flask\"\ntimeout = 1\nmatch = 'session:['"),
            "`match` is no regex",
        ),
        (
            &rule("store = \"flask\"\ntimeout = 1\nmatch = '.*'"),
            "`match` takes every key",
        ),
        (
            &rule("store = \"flask\"\ntimeout = 1\nmax_age = \"1d\""),
            "`flask` does not keep that",
        ),
        (
            &rule("store = \"spring\"\ntimeout = 1\nidle = true"),
            "`idle` has nothing to add",
        ),
        (
            &rule("store = \"flask\"\ntimeout = \"200d\"\nidle = true"),
            "up to 180 days",
        ),
        (
            &rule("store = \"flask\"\ntimeout = 1\nmissing_ttl = \"delete\""),
            "`delete` is not `set` or `report`",
        ),
        (
            &rule("store = \"flask\"\ntimeout = 1\nlong_ttl = \"cut\""),
            "`cut` is not `keep` or `shorten`",
        ),
        (
            &rule("store = \"flask\"\ntimeout = 1\ntime_out = 2"),
            "unknown key `time_out` in [[database.sessions]]; did you mean `timeout`?",
        ),
        (
            &database("[database.sessions]\nstore = \"flask\""),
            "written [[database.sessions]]",
        ),
        (
            &database("[daemon]\nlisten = \"localhost:1\""),
            "`listen` is an address and a port",
        ),
        (
            &database("[daemon]\ntimezone = \"Mars/Olympus\""),
            "`Mars/Olympus` is no time zone",
        ),
        (
            &database("[daemon]\nconcurrency = 0"),
            "a whole number from 1",
        ),
        (&database("[daemon]\nthreads = 0"), "a whole number from 1"),
        (
            &database("[defaults]\nname = \"x\""),
            "`name` has no default",
        ),
        (
            "[[database]]\nname = \"a\"\nurl = \"redis://h/1\"\ndatabases = [1]",
            "exclude each other",
        ),
        (
            "[[database]]\nname = \"a\"\nurl = \"redis://me:pw@h\"\nusername = \"b\"",
            "stands in `url` already",
        ),
        (
            "[[database]]\nname = \"a\"\nurl = \"redis://h\"\n[[database]]\nname = \"a\"\nurl = \"redis://i\"",
            "another database `a` already",
        ),
    ] {
        let told = refused(text);
        if !told.contains(part) || !told.starts_with("there is a mistake") {
            wrong.push(format!(
                "{text}\n-- expected --\n{part}\n-- told --\n{told}\n"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n==========\n"));
}

#[test]
fn syntax_errors_are_told_together_with_what_they_did_not_cause() {
    let text = "[[database]]\nname = \"a\nurl = \"redis://h\"\nmethod = \"dump\"\nshared = maybe\n";
    let told = refused(text);
    for part in [
        "rdbkeeper.toml:2:",
        "rdbkeeper.toml:4:10: `method`",
        "rdbkeeper.toml:5:",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    // The name is there, only broken.
    assert!(!told.contains("has no `name`"), "{told}");
}

#[test]
fn a_key_given_twice_is_a_mistake_with_its_line() {
    let text = "[[database]]\nname = \"a\"\nurl = \"redis://h\"\nshared = true\nshared = false\n";
    let told = refused(text);
    assert!(told.contains("rdbkeeper.toml:5:1: duplicate key"), "{told}");
}

#[test]
fn whatever_the_bytes_reading_ends_with_an_answer() {
    // Cut at every byte, and with every byte replaced, a file is read or refused, and never a panic.
    let text = include_str!("../../config/rdbkeeper.toml");
    let path = std::path::Path::new("/x.toml");
    for (end, _) in text.char_indices() {
        let _ = Config::parse(path, &text[..end], &user(), &urls);
    }
    for (at, c) in text.char_indices() {
        for other in ["\"", "[", "=", "ä"] {
            let changed = format!("{}{other}{}", &text[..at], &text[at + c.len_utf8()..]);
            if let Err(error) = Config::parse(path, &changed, &user(), &urls) {
                assert!(!super::told(error).is_empty());
            }
        }
    }
}
