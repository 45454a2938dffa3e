//! The judge against a table.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;
use crate::failure::Failure;
use crate::health::Broken;
use crate::runs::ledger::Record;

fn at(text: &str) -> Timestamp {
    format!("2026-11-22T{text}Z").parse().unwrap()
}

fn brief(began: &str) -> Brief {
    Brief {
        id: format!("backup-{began}"),
        started_at: at(began),
        snapshot_at: at(began),
        finished_at: at(began),
        keys: 1000,
        bytes: 10,
        plain_bytes: 20,
        method: "bgsave".to_owned(),
        shrunk: false,
    }
}

fn held(newest: Option<Brief>) -> Held {
    let good = newest.clone().filter(|newest| !newest.shrunk);
    Held {
        kept: 1,
        bytes: 10,
        newest_good: good,
        newest,
        ..Held::default()
    }
}

fn storage(name: &str, newest: Option<Brief>) -> StorageState {
    StorageState {
        name: name.to_owned(),
        held: Ok(held(newest)),
    }
}

/// Backed up every six hours, with ten minutes of jitter and a timeout of an hour.
fn state(storages: Vec<StorageState>) -> DatabaseState {
    DatabaseState {
        name: "web".to_owned(),
        schedules: BTreeMap::from([(Task::Backup, "0 */6 * * *".parse().unwrap())]),
        jitter: Duration::from_secs(600),
        timeout: Duration::from_secs(3600),
        storages,
        records: BTreeMap::new(),
    }
}

fn reasons(state: &DatabaseState, now: &str) -> Vec<(What, Severity)> {
    let picture = Picture {
        taken_at: at(now),
        zone: TimeZone::UTC,
        databases: vec![state.clone()],
    };
    let reasons = judge(&picture, at(now));
    let short = |reason: &Reason| (reason.what, reason.severity);
    reasons.iter().map(short).collect()
}

fn failed(task: Task, kind: Kind, ended: &str) -> BTreeMap<Task, Record> {
    let failure = Failure::new(kind, "cannot").cause("because");
    let attempt = Attempt::new(at(ended), at(ended), Some(&failure));
    BTreeMap::from([(task, Record::default().after(attempt))])
}

use Severity::{Unhealthy, Warning};

#[test]
fn a_backup_is_fresh_until_the_next_due_time_with_jitter_and_timeout_has_passed() {
    let state = state(vec![storage("disk", Some(brief("06:03:00")))]);
    for (now, late) in [
        ("06:04:00", false),
        ("12:00:00", false),
        ("13:10:00", false),
        ("13:10:01", true),
        ("23:00:00", true),
    ] {
        let expected = match late {
            true => vec![(What::Late, Unhealthy)],
            false => vec![],
        };
        assert_eq!(reasons(&state, now), expected, "{now}");
    }
}

#[test]
fn what_has_never_run_is_not_healthy() {
    let state = state(vec![storage("disk", None)]);
    assert_eq!(
        reasons(&state, "06:00:00"),
        [(What::NeverBackedUp, Unhealthy)]
    );
}

#[test]
fn every_storage_must_have_it() {
    let fresh = || Some(brief("06:00:00"));
    let one = state(vec![storage("disk", fresh()), storage("offsite", None)]);
    let picture = Picture {
        taken_at: at("06:30:00"),
        zone: TimeZone::UTC,
        databases: vec![one],
    };
    let reasons_found = judge(&picture, at("06:30:00"));
    assert_eq!(reasons_found.len(), 1);
    assert_eq!(reasons_found[0].storage.as_deref(), Some("offsite"));
    assert_eq!(
        reasons_found[0].message,
        "storage offsite has no backup of web"
    );
    let old = state(vec![
        storage("disk", fresh()),
        storage("offsite", Some(brief("00:00:00"))),
    ]);
    assert_eq!(reasons(&old, "08:00:00"), [(What::Late, Unhealthy)]);
    let silent = StorageState {
        name: "offsite".to_owned(),
        held: Err(Told::of(&Failure::new(Kind::Storage, "it hangs"))),
    };
    let silent = state(vec![storage("disk", fresh()), silent]);
    assert_eq!(
        reasons(&silent, "06:30:00"),
        [(What::StorageSilent, Unhealthy)]
    );
}

#[test]
fn a_failed_run_is_unhealthy_until_a_backup_was_made_after_it() {
    let mut state = state(vec![storage("disk", Some(brief("00:00:00")))]);
    state.records = failed(Task::Backup, Kind::Unreachable, "06:01:00");
    assert_eq!(
        reasons(&state, "06:02:00"),
        [(What::BackupFailed, Unhealthy)]
    );
    // Somebody made one by hand, with another state folder.
    state.storages = vec![storage("disk", Some(brief("06:10:00")))];
    assert_eq!(reasons(&state, "06:20:00"), []);
    // A run that failed for one of two storages began before it failed.
    state.storages = vec![storage("disk", Some(brief("06:00:30"))), storage("b", None)];
    assert_eq!(
        reasons(&state, "06:20:00"),
        [
            (What::BackupFailed, Unhealthy),
            (What::NeverBackedUp, Unhealthy)
        ]
    );
}

#[test]
fn a_shrunk_backup_is_unhealthy_though_it_is_fresh() {
    let mut small = brief("06:00:00");
    small.shrunk = true;
    let mut state = state(vec![storage("disk", Some(small))]);
    assert_eq!(reasons(&state, "06:30:00"), [(What::Shrunk, Unhealthy)]);
    state.schedules.clear();
    assert_eq!(reasons(&state, "06:30:00"), [(What::Shrunk, Warning)]);
}

#[test]
fn that_old_backups_stay_is_worth_a_look() {
    let mut state = state(vec![storage("disk", Some(brief("06:00:00")))]);
    let record = Record::default().after_prune(Some("denied".to_owned()), at("06:01:00"));
    state.records.insert(Task::Backup, record);
    assert_eq!(reasons(&state, "06:30:00"), [(What::PruneFailed, Warning)]);
}

#[test]
fn damage_is_unhealthy_and_what_is_only_not_verified_is_worth_a_look() {
    let mut state = state(vec![storage("disk", Some(brief("06:00:00")))]);
    for (task, kind, expected) in [
        (Task::Verify, Kind::Damaged, (What::Damaged, Unhealthy)),
        (Task::Verify, Kind::Storage, (What::VerifyFailed, Warning)),
        (
            Task::Sessions,
            Kind::Refused,
            (What::SessionsFailed, Warning),
        ),
    ] {
        state.records = failed(task, kind, "06:10:00");
        assert_eq!(reasons(&state, "06:30:00"), [expected]);
    }
    state.records.clear();
    let mut broken = held(Some(brief("06:00:00")));
    let damaged = |began: &str| Broken {
        id: "x".to_owned(),
        began_at: at(began),
        message: "cut".to_owned(),
        damaged: true,
    };
    broken.broken = vec![damaged("00:00:00"), damaged("06:20:00")];
    state.storages[0].held = Ok(broken);
    assert_eq!(
        reasons(&state, "06:30:00"),
        [(What::Damaged, Warning), (What::Damaged, Unhealthy)]
    );
}

#[test]
fn a_backup_from_the_future_counts_for_nothing_and_is_told() {
    let mut future = held(None);
    future.from_future = Some(brief("23:00:00"));
    let mut state = state(vec![]);
    state.storages = vec![StorageState {
        name: "disk".to_owned(),
        held: Ok(future),
    }];
    assert_eq!(
        reasons(&state, "06:30:00"),
        [
            (What::NeverBackedUp, Unhealthy),
            (What::FromFuture, Warning)
        ]
    );
}

#[test]
fn a_storage_that_was_emptied_is_told() {
    let mut emptied = held(None);
    emptied.emptied = Some(at("06:00:00"));
    let mut state = state(vec![storage("disk", Some(brief("06:00:00")))]);
    state.storages[0].held = Ok(emptied);
    assert_eq!(
        reasons(&state, "06:30:00"),
        [(What::NeverBackedUp, Unhealthy), (What::Emptied, Warning)]
    );
    state.schedules.clear();
    assert_eq!(reasons(&state, "06:30:00"), [(What::Emptied, Warning)]);
}

#[test]
fn without_a_schedule_nothing_is_late_or_missing() {
    let mut state = state(vec![
        storage("disk", None),
        storage("b", Some(brief("00:00:00"))),
    ]);
    state.schedules.clear();
    assert_eq!(reasons(&state, "23:00:00"), []);
}
