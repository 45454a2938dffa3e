//! The names of the metrics, and the text format, read strictly.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::*;
use crate::config::{Config, Environment};
use crate::daemon::board::{Board, Counts, Sweeps};
use crate::failure::{Failure, Kind};
use crate::health::Held;
use crate::runs::ledger::{Attempt, Record, Told};
use crate::server::configured::judge_url;
use crate::sessions::tally::Tally;

/// Reads the text format of OpenMetrics strictly: each family's HELP and TYPE once and before its samples, samples of
/// one family together, names with the suffix of their type, no sample twice, `# EOF` last.
fn parsed(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family: Option<(String, String)> = None;
    let mut help: Option<String> = None;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert!(lines.next().is_none(), "something after # EOF");
            assert!(text.ends_with("# EOF\n"));
            return samples;
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').unwrap();
            assert!(!text.is_empty());
            help = Some(name.to_owned());
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(help.as_deref(), Some(name));
            assert!(["gauge", "counter", "info"].contains(&kind), "{kind}");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            family = Some((name.to_owned(), kind.to_owned()));
            continue;
        }
        let (name, kind) = family.as_ref().expect("a sample after its TYPE");
        let (series, value) = line.rsplit_once(' ').unwrap();
        let expected = match kind.as_str() {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.clone(),
        };
        let own = series.split('{').next().unwrap();
        assert_eq!(own, expected);
        assert!(
            own.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        );
        if let Some(labels) = series.strip_prefix(own).filter(|l| !l.is_empty()) {
            let inner = labels.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
            for label in inner.split("\",") {
                let (key, value) = label.split_once("=\"").unwrap();
                assert!(key.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
                assert!(!value.trim_end_matches('"').contains('"'));
            }
        }
        let value: f64 = value.parse().unwrap();
        assert!(value.is_finite());
        assert!(
            samples.insert(series.to_owned(), value).is_none(),
            "{series}"
        );
    }
    panic!("no # EOF");
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn config() -> Config {
    let text = "[daemon]\nstate_dir = \"/s\"\nspool_dir = \"/s\"\n[storage.disk]\nkind = \"local\"\npath = \"/a\"\n\
        [[database]]\nname = \"web\"\nurl = \"redis://:secret@h\"\nschedule = \"0 * * * *\"\n\
        [[database.sessions]]\nstore = \"django\"\ntimeout = \"1d\"\n";
    let environment = Environment::of_process();
    Config::parse("/c.toml".as_ref(), text, &environment, &judge_url).unwrap()
}

fn brief() -> Brief {
    Brief {
        id: "id".to_owned(),
        started_at: at(1000),
        snapshot_at: at(1000),
        finished_at: Timestamp::from_millisecond(1_002_500).unwrap(),
        keys: 7,
        bytes: 70,
        plain_bytes: 700,
        method: "scan".to_owned(),
        shrunk: false,
    }
}

#[test]
fn the_metrics_have_their_names_and_can_be_read_strictly() {
    let config = Arc::new(config());
    let board = Board::new(Arc::clone(&config), at(500));
    let failed = Attempt::new(at(2000), at(2001), None);
    let record = Record::default().after(failed);
    let id = |task| JobId {
        database: "web".to_owned(),
        task,
    };
    let mut seen = board.read();
    seen.jobs.insert(
        id(Task::Backup),
        JobSeen {
            next: Some(at(3600)),
            counts: Counts {
                succeeded: 3,
                failed: 1,
            },
            record: record.clone(),
            ..JobSeen::default()
        },
    );
    let rules = &config.databases[0].sessions;
    let mut sweeps = Sweeps {
        last: Tally::new(rules).counts(),
        ..Sweeps::default()
    };
    sweeps.done.insert((0, "set"), 5);
    seen.jobs.insert(
        id(Task::Sessions),
        JobSeen {
            sweeps: Some(sweeps),
            ..JobSeen::default()
        },
    );
    let held = Held {
        kept: 4,
        bytes: 280,
        newest: Some(brief()),
        newest_good: Some(brief()),
        ..Held::default()
    };
    let cron = "0 * * * *";
    let picture = Picture {
        taken_at: at(2500),
        zone: TimeZone::UTC,
        databases: vec![DatabaseState {
            name: "web".to_owned(),
            schedules: Task::ALL.map(|task| (task, cron.parse().unwrap())).into(),
            jitter: Duration::ZERO,
            timeout: Duration::from_secs(3600),
            storages: vec![StorageState {
                name: "disk".to_owned(),
                held: Ok(held),
            }],
            records: Task::ALL.map(|task| (task, record.clone())).into(),
        }],
    };
    let text = text(&seen, Some(&picture), at(2600)).unwrap();
    assert!(!text.contains("secret"));
    let samples = parsed(&text);
    let version = format!(
        "rdbkeeper_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    let web = |name: &str| format!("rdbkeeper_{name}{{database=\"web\"}}");
    let more = |name: &str, labels: &str| format!("rdbkeeper_{name}{{database=\"web\",{labels}}}");
    for (series, value) in [
        (web("backup_last_success_timestamp_seconds"), 2001.0),
        (web("backup_last_attempt_timestamp_seconds"), 2000.0),
        (web("backup_last_duration_seconds"), 2.5),
        (web("backup_last_stored_bytes"), 70.0),
        (web("backup_last_plain_bytes"), 700.0),
        (web("backup_last_keys"), 7.0),
        (more("backups_total", "result=\"success\""), 3.0),
        (more("backups_total", "result=\"failure\""), 1.0),
        (web("backups_kept"), 4.0),
        (web("backup_next_timestamp_seconds"), 3600.0),
        (web("verify_last_success_timestamp_seconds"), 2001.0),
        (web("sessions_last_run_timestamp_seconds"), 2001.0),
        (
            more("sessions_keys", "rule=\"0\",state=\"without_ttl\""),
            0.0,
        ),
        (
            more("sessions_expired_total", "rule=\"0\",action=\"set\""),
            5.0,
        ),
        (version, 1.0),
        ("rdbkeeper_healthy".to_owned(), 1.0),
    ] {
        assert_eq!(samples.get(&series), Some(&value), "{series}\n{text}");
    }
}

#[test]
fn before_anything_is_known_there_is_something_to_scrape() {
    let board = Board::new(Arc::new(config()), at(500));
    let samples = parsed(&text(&board.read(), None, at(600)).unwrap());
    assert_eq!(samples.get("rdbkeeper_healthy"), Some(&0.0));
}

#[test]
fn a_storage_that_does_not_answer_proves_no_success_of_the_others() {
    let storage = |name: &str, held| StorageState {
        name: name.to_owned(),
        held,
    };
    let with = |newest: Option<Brief>| Held {
        newest,
        ..Held::default()
    };
    let older = || Brief {
        finished_at: at(900),
        ..brief()
    };
    let silent = || Told::of(&Failure::new(Kind::Storage, "it hangs"));
    let mut state = DatabaseState {
        name: "web".to_owned(),
        schedules: BTreeMap::new(),
        jitter: Duration::ZERO,
        timeout: Duration::from_secs(3600),
        storages: Vec::new(),
        records: BTreeMap::new(),
    };
    for (other, expected) in [
        (Ok(with(Some(older()))), Some(at(900))),
        (Ok(with(None)), None),
        (Err(silent()), None),
    ] {
        state.storages = vec![
            storage("disk", Ok(with(Some(brief())))),
            storage("offsite", other),
        ];
        assert_eq!(everywhere(&state), expected);
    }
    // What this host has seen itself stands.
    let success = Attempt::new(at(700), at(800), None);
    state.records = BTreeMap::from([(Task::Backup, Record::default().after(success))]);
    let picture = Picture {
        taken_at: at(2500),
        zone: TimeZone::UTC,
        databases: vec![state],
    };
    let board = Board::new(Arc::new(config()), at(500));
    let samples = parsed(&text(&board.read(), Some(&picture), at(2600)).unwrap());
    let last = "rdbkeeper_backup_last_success_timestamp_seconds{database=\"web\"}";
    assert_eq!(samples.get(last), Some(&800.0));
}
