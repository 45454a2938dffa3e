//! Over all that real clients left in Redis: what is read from it, and what would be done with it.

use std::path::PathBuf;
use std::time::Duration;

use rdbkeeper::config::{KeyRegex, LongTtl, SessionRule, SessionStore};
use rdbkeeper::sessions::stores::{hash_fields, read_hash, read_text, role};
use rdbkeeper::sessions::{
    Action, Decision, Expiry, KeyFacts, OwnTimeout, Reason, Role, Times, Unreadable, Value,
    Verdict, decide,
};
use serde_json::Value as Json;

/// One file of the corpus.
pub struct Scenario {
    pub name: String,
    pub store: SessionStore,
    pub timeout: Duration,
    pub now_ms: i64,
    pub keys: Vec<Key>,
}

/// One key of it.
pub struct Key {
    pub name: Vec<u8>,
    pub role: String,
    pub expiry: Expiry,
    pub content: Content,
    pub decoded: Json,
    pub suggested: Json,
}

pub enum Content {
    Text(Vec<u8>),
    /// A hash, and the values of the fields that are read.
    Hash(Json, Vec<Option<Vec<u8>>>),
    Other,
}

impl Key {
    /// For messages. The corpus is made up, and its keys let nobody in.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    pub fn value(&self, store: SessionStore) -> Value {
        let read = match &self.content {
            Content::Text(value) => read_text(store, value),
            Content::Hash(_, values) => {
                let values: Vec<_> = values.iter().map(Option::as_deref).collect();
                read_hash(store, &values)
            }
            // The groups and chords of Celery.
            Content::Other if store == SessionStore::Celery => Ok(Times::default()),
            Content::Other => Err(Unreadable::WrongType),
        };
        read.map_or_else(Value::Unreadable, Value::Read)
    }

    fn facts(&self, store: SessionStore) -> KeyFacts {
        KeyFacts {
            role: role(store, &self.name),
            expiry: self.expiry,
            value: self.value(store),
            unused: None,
        }
    }
}

fn store_of(scenario: &str) -> SessionStore {
    let known = [
        ("pyramid_redis_sessions", SessionStore::Pyramid),
        ("websauna", SessionStore::Pyramid),
        ("pyramid_session_redis", SessionStore::PyramidSessionRedis),
        ("django", SessionStore::Django),
        ("flask", SessionStore::Flask),
        ("express", SessionStore::Express),
        ("php", SessionStore::Php),
        ("redis-rack", SessionStore::Rack),
        ("laravel", SessionStore::Laravel),
        ("spring", SessionStore::Spring),
        ("celery", SessionStore::Celery),
    ];
    let found = known.iter().find(|(begin, _)| scenario.starts_with(begin));
    found.unwrap().1
}

fn bytes(base64: &Json) -> Vec<u8> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in base64.as_str().unwrap().bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

fn key(store: SessionStore, row: &Json) -> Key {
    let content = match row["type"].as_str().unwrap() {
        "string" => Content::Text(bytes(&row["value_b64"])),
        "hash" if store == SessionStore::Spring => {
            let value = |name: &&[u8]| {
                let field = &row["fields"][std::str::from_utf8(name).unwrap()];
                (!field.is_null()).then(|| bytes(&field["value_b64"]))
            };
            let values = hash_fields(store).iter().map(value).collect();
            Content::Hash(row["fields"].clone(), values)
        }
        _ => Content::Other,
    };
    Key {
        name: bytes(&row["key_b64"]),
        role: row["role"].as_str().unwrap().to_owned(),
        expiry: row["expires_at_ms"]
            .as_i64()
            .map_or(Expiry::Never, Expiry::At),
        content,
        decoded: row["decoded"].clone(),
        suggested: row["suggested"].clone(),
    }
}

/// All of the corpus.
pub fn scenarios() -> Vec<Scenario> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/sessions");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let file: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let store = store_of(&name);
        let rows = file["dbs"].as_object().unwrap().values();
        found.push(Scenario {
            store,
            timeout: Duration::from_secs(file["configured_timeout_s"].as_u64().unwrap()),
            now_ms: file["dumped_at_unix_ms"].as_i64().unwrap(),
            keys: rows
                .flat_map(|rows| rows.as_array().unwrap())
                .map(|row| key(store, row))
                .collect(),
            name,
        });
    }
    assert_eq!(found.len(), 15, "the corpus is not where it should be");
    found
}

fn is_session(role: &str) -> bool {
    matches!(role, "session" | "celery-result" | "celery-group-or-chord")
}

/// A rule as that site would have it, which takes every key.
fn rule(scenario: &Scenario) -> SessionRule {
    let all = KeyRegex::new(".").unwrap();
    let mut rule = SessionRule::new(scenario.store, all, scenario.timeout);
    rule.grace = Duration::ZERO;
    rule
}

fn decision(rule: &SessionRule, facts: &KeyFacts, now_ms: i64) -> Decision {
    match decide(rule, facts, now_ms) {
        Verdict::Decided(decision) => decision,
        Verdict::ReadValue => panic!("asked for a value that was given"),
    }
}

#[test]
fn names_tell_sessions_from_what_stands_beside_them() {
    for scenario in scenarios() {
        for key in &scenario.keys {
            let expected = match key.role.as_str() {
                "lock" => Role::Lock,
                "session-index" | "session-expiry-marker" => Role::Other,
                // The names of a cache are the application's: the regex and the value tell them apart.
                "cache" | "rate-limit" | "health-check" => Role::Session,
                other if is_session(other) => Role::Session,
                _ => Role::Other,
            };
            let found = role(scenario.store, &key.name);
            assert_eq!(found, expected, "{}: {}", scenario.name, key.shown());
        }
    }
}

/// What the client's own language read from a value, as times.
fn expected_times(store: SessionStore, key: &Key) -> Times {
    let seconds = |value: &Json| value.as_f64().map(|seconds| (seconds * 1000.0) as i64);
    let after = |value: &Json| match value.as_f64() {
        Some(seconds) if seconds > 0.0 => OwnTimeout::After(Duration::from_secs_f64(seconds)),
        _ => OwnTimeout::Unknown,
    };
    let decoded = &key.decoded;
    let mut times = Times::default();
    match store {
        SessionStore::Pyramid => {
            times.created_ms = seconds(&decoded["created"]);
            times.timeout = after(&decoded["timeout"]);
        }
        SessionStore::PyramidSessionRedis => {
            times.created_ms = seconds(&decoded["created"]);
            times.ends_ms = seconds(&decoded["expires_at"]);
            times.timeout = match after(&decoded["timeout"]) {
                OwnTimeout::Unknown => OwnTimeout::Never,
                known => known,
            };
        }
        SessionStore::Django => match decoded["expiry_setting"].as_str() {
            Some(date) => {
                let date: jiff::Timestamp = date.parse().unwrap();
                times.ends_ms = Some(date.as_millisecond());
            }
            None => times.timeout = after(&decoded["expiry_setting"]),
        },
        SessionStore::Express => {
            if let Some(millis) = decoded["cookie_original_max_age_ms"].as_u64() {
                times.timeout = OwnTimeout::After(Duration::from_millis(millis));
            }
        }
        SessionStore::Celery => times.created_ms = seconds(&decoded["date_done"]),
        SessionStore::Spring => {
            let Content::Hash(fields, _) = &key.content else {
                panic!("a session that is no hash: {}", key.shown());
            };
            times.created_ms = fields["creationTime"]["long"].as_i64();
            times.last_access_ms = fields["lastAccessedTime"]["long"].as_i64();
            times.timeout = match fields["maxInactiveInterval"]["int"].as_i64() {
                None => OwnTimeout::Unknown,
                Some(interval) if interval < 0 => OwnTimeout::Never,
                Some(interval) => {
                    let end = times.last_access_ms.unwrap() + interval * 1000;
                    times.ends_ms = Some(end + 300_000);
                    OwnTimeout::After(Duration::from_secs(interval.unsigned_abs()))
                }
            };
        }
        _ => {}
    }
    times
}

#[test]
fn what_is_read_is_what_the_client_wrote() {
    let mut read = 0;
    for scenario in scenarios() {
        for key in scenario.keys.iter().filter(|key| is_session(&key.role)) {
            let expected = Value::Read(expected_times(scenario.store, key));
            let found = key.value(scenario.store);
            assert_eq!(found, expected, "{}: {}", scenario.name, key.shown());
            read += 1;
        }
    }
    assert!(read > 80, "{read}");
}

#[test]
fn a_site_that_is_configured_as_usual_gets_what_a_cautious_person_would_do() {
    for scenario in scenarios() {
        let rule = rule(&scenario);
        for key in &scenario.keys {
            // Here the names of the rule's regex protect: this one takes every key.
            if key.role == "cache" {
                continue;
            }
            let context = format!("{}: {}", scenario.name, key.shown());
            let facts = key.facts(scenario.store);
            let found = decision(&rule, &facts, scenario.now_ms);
            let suggested = &key.suggested;
            let in_ms = |seconds: f64| (seconds * 1000.0).round() as i64;
            match suggested["action"].as_str().unwrap() {
                "leave" => assert_eq!(found.action, Action::Leave, "{context}"),
                "report" => assert_eq!(found.action, Action::Report, "{context}"),
                "set_ttl_if_none" => {
                    let at_ms = match suggested["expire_at_unix"].as_f64() {
                        Some(seconds) => in_ms(seconds),
                        None => scenario.now_ms + in_ms(suggested["ttl_s"].as_f64().unwrap()),
                    };
                    // To set a TTL that is past is to delete, and is called so.
                    let expected = if at_ms <= scenario.now_ms {
                        Action::Delete
                    } else {
                        Action::SetTtl { at_ms }
                    };
                    assert_eq!(found.action, expected, "{context}");
                }
                "idle_only" => {
                    let never = (Action::Report, Reason::NeverRenewed);
                    assert_eq!((found.action, found.reason), never, "{context}");
                    let idle_s = suggested["idle_s"].as_u64().unwrap();
                    let mut rule = rule.clone();
                    rule.idle = true;
                    let unused = |seconds| KeyFacts {
                        unused: Some(Duration::from_secs(seconds)),
                        ..facts
                    };
                    let idle = decision(&rule, &unused(idle_s + 1), scenario.now_ms);
                    assert_eq!(idle.action, Action::Delete, "{context}");
                    let used = decision(&rule, &unused(idle_s), scenario.now_ms);
                    assert_eq!(used.action, Action::Report, "{context}");
                }
                other => panic!("{context}: {other}"),
            }
        }
    }
}

#[test]
fn a_timeout_or_an_end_of_its_own_is_never_cut_short() {
    for scenario in scenarios() {
        let mut rule = rule(&scenario);
        rule.long_ttl = LongTtl::Shorten;
        let sessions = scenario.keys.iter().filter(|key| is_session(&key.role));
        // Another application with another timeout, which no value tells.
        for key in sessions.filter(|key| !key.name.starts_with(b"myapp:")) {
            let found = decision(&rule, &key.facts(scenario.store), scenario.now_ms);
            let cut = matches!(found.action, Action::ShortenTtl { .. });
            assert!(!cut, "{}: {} {found:?}", scenario.name, key.shown());
        }
    }
}

#[test]
fn nothing_is_done_to_a_key_whose_value_was_not_looked_at() {
    for scenario in scenarios() {
        let mut rule = rule(&scenario);
        for (long_ttl, idle) in [(LongTtl::Keep, false), (LongTtl::Shorten, true)] {
            (rule.long_ttl, rule.idle) = (long_ttl, idle);
            for key in &scenario.keys {
                let facts = KeyFacts {
                    value: Value::NotRead,
                    unused: Some(Duration::from_secs(400 * 86_400)),
                    ..key.facts(scenario.store)
                };
                if let Verdict::Decided(found) = decide(&rule, &facts, scenario.now_ms) {
                    let harmless = !found.action.writes();
                    assert!(harmless, "{}: {}", scenario.name, key.shown());
                }
            }
        }
    }
}

#[test]
fn the_regexes_that_stores_bring_take_their_sessions_and_no_look_alike() {
    let stores = SessionStore::ALL;
    let brought: Vec<_> = stores
        .into_iter()
        .filter_map(|store| Some((store, KeyRegex::new(store.default_match()?).unwrap())))
        .collect();
    for scenario in scenarios() {
        let own = &brought
            .iter()
            .find(|(store, _)| *store == scenario.store)
            .unwrap()
            .1;
        for key in &scenario.keys {
            let context = format!("{}: {}", scenario.name, key.shown());
            // Prefixes that somebody chose there: such a site gives its own `match`.
            let begin = match scenario.store {
                SessionStore::Flask => "session:",
                SessionStore::Express => "sess:",
                SessionStore::Php => "PHPREDIS_SESSION:",
                _ => "",
            };
            let session = is_session(&key.role) || key.role == "lock";
            let expected = session && key.name.starts_with(begin.as_bytes());
            assert_eq!(own.matches(&key.name), expected, "{context}");
            for (store, regex) in &brought {
                let taken = !session && regex.matches(&key.name);
                assert!(!taken, "the regex of {store} takes {context}");
            }
        }
    }
    let laravel = KeyRegex::new(SessionStore::Laravel.default_match().unwrap()).unwrap();
    let id = "a1B2".repeat(10);
    for prefix in [
        "laravel_database_laravel_cache:",
        "laravel_database_laravel_cache_:",
        "laravel_database_laravel_cache_",
        "laravel-database-laravel-cache-",
    ] {
        assert!(laravel.matches(format!("{prefix}{id}").as_bytes()));
        assert!(!laravel.matches(format!("{prefix}{id}:timer").as_bytes()));
    }
}

#[test]
fn what_an_application_keeps_beside_its_sessions_is_not_taken_by_default() {
    let hex = "0123456789abcdef".repeat(4);
    let sha1 = &hex[..40];
    let uuid = "07d567b5-7df7-35e2-adb6-69518b6a59fa";
    let names = [
        (
            SessionStore::Flask,
            vec![
                "session:config".to_owned(),
                "session:".to_owned(),
                "session:1".to_owned(),
                format!("session:{uuid}:cart"),
                format!("session:{sha1}"),
                format!("session:{uuid}\n"),
                format!("user:session:{uuid}"),
                format!("my_session:{uuid}"),
            ],
        ),
        (
            SessionStore::Express,
            vec![
                "sess:config".to_owned(),
                format!("sess:{uuid}"),
                format!("sess:{sha1}"),
                format!("app:sess:{}", &hex[..32]),
            ],
        ),
        (
            SessionStore::Php,
            vec![
                "PHPREDIS_SESSION:config".to_owned(),
                "PHPREDIS_SESSION:".to_owned(),
                format!("PHPREDIS_SESSION:{sha1}:cart"),
                format!("PHPREDIS_SESSION:{sha1}_LOCK_"),
                format!("cache:PHPREDIS_SESSION:{sha1}"),
                format!("PHPREDIS_SESSIONS:{sha1}"),
                sha1.to_owned(),
            ],
        ),
        (
            SessionStore::Rack,
            vec![
                hex.clone(),
                format!("cache:{hex}"),
                format!("2:{hex}"),
                format!("12::{hex}"),
                format!("cache:v2::{hex}"),
                format!("2::{hex}/page"),
                format!("2::{}", &hex[..40]),
                "rack::session:config".to_owned(),
            ],
        ),
        (
            SessionStore::Laravel,
            vec![
                "laravel_database_laravel_cache_settings".to_owned(),
                format!("laravel_database_laravel_cache_{sha1}:timer"),
                format!("laravel_database_laravel_cache_page_{sha1}"),
                format!("laravel_database_laravel_cache_{hex}"),
                format!("laravel_database_{sha1}"),
                format!("laravel_database_queues:{sha1}"),
                sha1.to_owned(),
            ],
        ),
    ];
    for (store, names) in names {
        let regex = KeyRegex::new(store.default_match().unwrap()).unwrap();
        for name in names {
            assert!(!regex.matches(name.as_bytes()), "{store} takes {name:?}");
        }
    }
    // Of this shape are the names of Laravel's rate limiter too: there the value tells.
    let laravel = KeyRegex::new(SessionStore::Laravel.default_match().unwrap()).unwrap();
    let limiter = format!("laravel_database_laravel_cache_{sha1}");
    assert!(laravel.matches(limiter.as_bytes()));
    assert!(read_text(SessionStore::Laravel, b"5").is_err());
}
