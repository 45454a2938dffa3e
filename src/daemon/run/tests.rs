#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;
use crate::config::Environment;
use crate::prune::Closed;
use crate::server::configured::judge_url;

async fn daemon(folder: &Path, tables: &str) -> Daemon {
    let text = format!(
        "[daemon]\nstate_dir = {:?}\n[storage.disk]\nkind = \"local\"\npath = {:?}\n{tables}",
        folder.join("state"),
        folder.join("archive")
    );
    let path = folder.join("rdbkeeper.toml");
    std::fs::write(&path, &text).unwrap();
    let environment = Environment::in_folder(folder).with("HOME", "/nowhere");
    let config = Config::parse(&path, &text, &environment, &judge_url).unwrap();
    let named = Some(path);
    let origin = Origin { named, environment };
    Daemon::start(config, origin).await.unwrap()
}

const ONE: &str = "[[database]]\nname = \"web\"\nurl = \"redis://127.0.0.1:1\"\nverify_schedule = \"* * * * * *\"\n";

#[cfg(debug_assertions)]
#[tokio::test]
async fn a_panic_in_a_job_is_an_error_of_that_job_and_of_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = daemon(folder.path(), ONE).await;
    crate::stage::at("daemon-run", || panic!("as a test wants it"));
    let id = JobId {
        database: "web".to_owned(),
        task: Task::Verify,
    };
    for round in 1..3 {
        while daemon.tasks.is_empty() {
            daemon.heartbeat.tick().await;
            daemon.tick();
        }
        assert!(daemon.board.read().jobs[&id].running.is_some());
        let done = daemon.tasks.join_next_with_id().await.unwrap();
        daemon.done(done);
        let seen = daemon.board.read().jobs[&id].clone();
        assert!(seen.running.is_none() && seen.next.is_some());
        assert_eq!(seen.counts.failed, round);
        let error = seen.record.attempt.unwrap().error.unwrap();
        assert_eq!(error.message, "the verify of web panicked");
    }
    // All places were given back.
    assert!(daemon.places.take(2, None).is_some());
}

#[tokio::test]
async fn a_state_folder_that_can_be_written_to_no_more_is_told_once_and_the_work_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = daemon(folder.path(), ONE).await;
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    let now = Timestamp::now();
    let due = daemon.agenda.due(now + jiff::SignedDuration::from_secs(2));
    assert_eq!(due.begin.len(), 1);
    daemon.remember(now);
    assert!(daemon.board.read().troubles.contains_key(&Trouble::State));
    std::fs::create_dir(folder.path().join("state")).unwrap();
    daemon.remember(now);
    assert!(daemon.board.read().troubles.is_empty());
}

#[tokio::test]
async fn what_a_reload_cannot_change_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = daemon(folder.path(), ONE).await;
    let old = daemon.config.daemon.state_dir.clone();
    let mut config = Config::clone(&daemon.config);
    config.daemon.state_dir = folder.path().join("other");
    config.daemon.concurrency = std::num::NonZeroUsize::MIN;
    daemon.take(config, Timestamp::now());
    assert_eq!(daemon.config.daemon.state_dir, old);
    let told = daemon.board.read().troubles;
    assert_eq!(
        told[&Trouble::Restart].text,
        "a new state_dir is taken at the next restart"
    );
    // And the file itself is as it was.
    daemon.reload();
    assert!(daemon.board.read().troubles.is_empty());
}

#[tokio::test]
async fn a_reload_closes_the_gate_of_what_was_begun_and_a_leap_that_of_what_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = daemon(folder.path(), ONE).await;
    let before = daemon.gate.clone();
    daemon.reload();
    assert_eq!(before.closed(), Some(Closed::Outdated));
    let after = daemon.gate.clone();
    assert_eq!(after.closed(), None);
    let leap = Timestamp::now() + jiff::SignedDuration::from_hours(48);
    daemon.watch_clock(leap);
    assert_eq!(after.closed(), Some(Closed::Clock));
    daemon.reload();
    assert_eq!(daemon.gate.closed(), Some(Closed::Clock));
    daemon.watch_clock(Timestamp::now());
    assert_eq!(daemon.gate.closed(), None);
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn the_failure_hooks_of_a_backup_that_panics_are_run() {
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let tables = format!(
        "[[database]]\nname = \"web\"\nurl = \"redis://127.0.0.1:1\"\nschedule = \"* * * * * *\"\ncatch_up = false\nhooks = {{ failure = [[\"touch\", {told:?}]] }}\n"
    );
    let mut daemon = daemon(folder.path(), &tables).await;
    crate::stage::at("daemon-run", || panic!("as a test wants it"));
    while daemon.tasks.is_empty() {
        daemon.heartbeat.tick().await;
        daemon.tick();
    }
    let done = daemon.tasks.join_next_with_id().await.unwrap();
    daemon.done(done);
    let waiting = async {
        while !told.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(waited.is_ok());
}

#[tokio::test]
async fn a_scheduler_that_stays_silent_ends_the_daemon_and_one_tick_forgives_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = daemon(folder.path(), ONE).await;
    for _ in 1..HOPELESS {
        daemon.start_scheduler_anew().await.unwrap();
    }
    let seen = daemon.board.read();
    assert!(seen.troubles.contains_key(&Trouble::Scheduler));
    daemon.tick();
    assert!(daemon.board.read().troubles.is_empty());
    for _ in 1..HOPELESS {
        daemon.start_scheduler_anew().await.unwrap();
    }
    let failure = daemon.start_scheduler_anew().await.unwrap_err();
    assert_eq!(failure.kind.exit_code(), 1);
}

#[tokio::test]
async fn a_backup_that_never_comes_is_recorded_as_a_failure_once_a_picture_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let table =
        "[[database]]\nname = \"web\"\nurl = \"redis://127.0.0.1:1\"\nschedule = \"0 * * * *\"\n";
    let mut daemon = daemon(folder.path(), table).await;
    let later = |hours| Timestamp::now() + jiff::SignedDuration::from_hours(hours);
    let look = async |daemon: &mut Daemon, now| {
        let gatherer = crate::health::Gatherer::default();
        let config = Arc::clone(&daemon.config);
        let picture = gatherer.gather(&config, &config.databases).await;
        daemon.gallery.hang(picture);
        daemon.tell_late(now);
        daemon.ledger.read("web", Task::Backup)
    };
    assert_eq!(look(&mut daemon, later(0)).await.attempt, None);
    let record = look(&mut daemon, later(3)).await;
    assert!(record.failing_since.is_some());
    let attempt = record.attempt.clone().unwrap();
    assert!(attempt.overdue);
    assert_eq!(attempt.error.unwrap().message, "the backup of web is late");
    // It is told once, and a day later again.
    assert_eq!(look(&mut daemon, later(4)).await, record);
    assert_ne!(look(&mut daemon, later(28)).await.told, record.told);
}
