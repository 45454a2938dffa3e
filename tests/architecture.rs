//! The picture in ARCHITECTURE.md stays true: imports go downward, and what only one room may do only that room does.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the top down; those on one line do not import each other.
const FLOORS: [&[&str]; 20] = [
    &["cli"],
    &["daemon"],
    &["health"],
    &["runs"],
    &["setup"],
    &["check"],
    &[
        "backup", "restore", "verify", "copy", "prune", "export", "inspect",
    ],
    &["reading"],
    &["sessions", "source", "target"],
    &["server"],
    &["catalog"],
    &["pipeline"],
    &["spool"],
    &["storage"],
    &["selection", "retention", "prefixes"],
    &["rdb"],
    &["config"],
    &["cron"],
    &["units"],
    &[
        "stage", "meter", "secret", "failure", "pool", "turns", "lossless",
    ],
];

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut todo = vec![root.clone()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                let text = fs::read_to_string(&path).unwrap();
                // What only tests need may come from anywhere.
                let code = text.split("#[cfg(test)]\nmod ").next().unwrap().to_owned();
                found.push((path.strip_prefix(&root).unwrap().to_owned(), code));
            }
        }
    }
    assert!(found.len() > 20);
    found
}

fn room(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str();
    first.to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

fn lines_of_code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate();
    numbered
        .map(|(at, line)| (at + 1, line.trim_start()))
        .filter(|(_, line)| !line.starts_with("//"))
}

#[test]
fn imports_go_downward_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = room(&path);
        if own == "main" || own == "lib" {
            continue;
        }
        let Some(own_floor) = floor(&own) else {
            panic!("{} is in no floor of tests/architecture.rs", path.display());
        };
        for (line, code) in lines_of_code(&text) {
            for after in code.split("crate::").skip(1) {
                let other: String = after
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let allowed = other == own || floor(&other).is_some_and(|other| other > own_floor);
                if !allowed {
                    wrong.push(format!("{}:{line}: {own} imports {other}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Asserts that a text stands in no code but that of the files whose path begins with one of `only`.
#[track_caller]
fn only_in(text: &str, only: &[&str]) {
    for (path, code) in sources() {
        if only.iter().any(|allowed| path.starts_with(allowed)) {
            continue;
        }
        for (line, code) in lines_of_code(&code) {
            assert!(
                !code.contains(text),
                "{}:{line} has {text:?}, which only {only:?} may have",
                path.display()
            );
        }
    }
}

#[test]
fn only_the_rooms_below_the_journeys_talk_to_redis() {
    only_in("redis::", &["server", "source", "target", "sessions/sweep"]);
}

#[test]
fn only_the_catalog_writes_into_a_store() {
    let writers = ["commit.rs", "lease.rs", "markers.rs"].map(|file| format!("catalog/{file}"));
    let [commit, lease, markers] = &writers;
    only_in(".put_new(", &[commit, lease, markers, "storage"]);
}

#[test]
fn only_the_catalog_removes_from_a_store() {
    only_in(".delete(", &["catalog", "storage"]);
}

#[test]
fn the_scheduler_is_named_in_one_file() {
    only_in("tokio_cron_scheduler", &["daemon/schedule.rs"]);
}

#[test]
fn the_library_of_aws_is_named_by_the_store_of_s3_alone() {
    only_in("aws_", &["storage/s3", "storage/s3.rs", "cli/logging.rs"]);
}

#[test]
fn age_is_named_where_keys_are_read_and_archives_are_packed() {
    let rooms = ["config/encryption.rs", "pipeline"];
    for name in ["age_core", "age::x25519", "age::Encryptor", "age::scrypt"] {
        only_in(name, &rooms);
    }
}

#[test]
fn the_format_knows_no_tokio_no_network_and_no_files() {
    for (path, text) in sources() {
        if room(&path) == "rdb" {
            for (line, code) in lines_of_code(&text) {
                for foreign in ["tokio", "std::net", "std::fs", "std::path"] {
                    assert!(
                        !code.contains(foreign),
                        "{}:{line}: {foreign}",
                        path.display()
                    );
                }
            }
        }
    }
}
