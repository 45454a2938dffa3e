//! Retention by the program itself: what goes, what stays, and that nothing else does, whatever happens meanwhile (R1, R2, R7).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::cmd;
use crate::support::data::sessions;
use crate::support::program::{Program, Ran, files_below, finish, killed_at, paused_at, signal};
use crate::support::servers::{Server, usual};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longer than a lease of prune lives.
const LEASE: Duration = Duration::from_secs(11 * 60);

fn database(server: &Server, more: &str) -> String {
    format!(
        "[[database]]\nname = \"web\"\nurl = \"{}\"\nmethod = \"scan\"\n{more}\n",
        server.url()
    )
}

/// A server with some keys, and a program that has backed it up so many times, without a policy.
fn backed_up(times: usize) -> (Server, Program) {
    let server = Server::start(usual());
    server.client().run_all(sessions(50));
    let program = Program::new(&database(&server, ""));
    for _ in 0..times {
        program.run(["backup", "now"]).expect(0);
    }
    (server, program)
}

fn keep(program: &Program, server: &Server, policy: &str) {
    program.configure(&database(server, &format!("keep = {{ {policy} }}")));
}

/// The IDs that are listed, oldest first. Each must be whole.
fn listed(program: &Program) -> Vec<String> {
    let list = program.json(["backup", "list"]).expect(0).json();
    let list = list.as_array().unwrap();
    let id = |backup: &Value| {
        backup["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{backup}"))
            .to_owned()
    };
    list.iter().map(id).collect()
}

fn all_are_whole(program: &Program) {
    program.run(["backup", "verify", "--all"]).expect(0);
}

/// Makes everything below a folder look as if it had been written so long ago.
fn age(path: &Path, by: Duration) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            age(&entry.unwrap().path(), by);
        }
    }
    let file = File::open(path).unwrap();
    file.set_modified(SystemTime::now() - by).unwrap();
}

fn lease(program: &Program) -> PathBuf {
    program.archive().join("web/prune-lease")
}

fn last_line(ran: &Ran) -> &str {
    ran.stdout.lines().last().unwrap_or_default()
}

#[test]
fn the_policy_is_applied_by_hand_and_after_each_backup_and_says_why() {
    let (server, program) = backed_up(4);
    let before = listed(&program);
    let ran = program.run(["backup", "prune"]).expect(0);
    assert!(
        ran.stdout.contains("nothing is ever removed"),
        "{}",
        ran.stdout
    );
    assert_eq!(last_line(&ran), "removed 0 of 4 backups, 0 B");
    assert_eq!(listed(&program), before);

    keep(&program, &server, "last = 2, within = \"0s\"");
    let files = files_below(&program.archive());
    let planned = program
        .json(["backup", "prune", "--dry-run"])
        .expect(0)
        .json();
    assert_eq!(files_below(&program.archive()), files);
    let planned = &planned[0];
    assert_eq!(
        (&planned["database"], &planned["storage"]),
        (&"web".into(), &"disk".into())
    );
    assert_eq!(planned["policy"], "last 2");
    let kept: Vec<bool> = planned["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backup| backup["kept"].as_bool().unwrap())
        .collect();
    assert_eq!(kept, [false, false, true, true]);
    assert_eq!(
        planned["backups"][3]["reasons"],
        serde_json::json!(["last 1", "newest good"])
    );
    let ran = program
        .run(["backup", "prune", "web", "--dry-run"])
        .expect(0);
    assert!(ran.stdout.contains("would go"), "{}", ran.stdout);

    let ran = program
        .run(["backup", "prune", "--storage", "disk"])
        .expect(0);
    assert!(
        last_line(&ran).starts_with("removed 2 of 4 backups"),
        "{}",
        ran.stdout
    );
    assert_eq!(listed(&program), before[2..]);
    let again = program.json(["backup", "prune"]).expect(0).json();
    assert_eq!(
        (&again[0]["removed"], &again[0]["freed_bytes"]),
        (&0.into(), &0.into())
    );
    assert!(!lease(&program).exists());

    let made = program.json(["backup", "now"]).expect(0).json();
    assert_eq!(
        listed(&program),
        [before[3].as_str(), made[0]["id"].as_str().unwrap()]
    );
    all_are_whole(&program);
    program.run(["backup", "prune", "nobody"]).expect(2);
}

#[test]
fn a_pinned_backup_stays_until_it_is_unpinned() {
    let (server, program) = backed_up(3);
    let ids = listed(&program);
    let oldest = ids[0].as_str();
    keep(&program, &server, "last = 1");
    for changed in [true, false] {
        let pinned = program.json(["backup", "pin", oldest]).expect(0).json();
        assert_eq!(
            (&pinned[0]["pinned"], &pinned[0]["changed"]),
            (&true.into(), &changed.into())
        );
    }
    program.run(["backup", "prune"]).expect(0);
    assert_eq!(listed(&program), [oldest, &ids[2]]);
    let shown = program.json(["backup", "show", oldest]).expect(0).json();
    assert_eq!(shown["pinned"], true);
    assert!(
        program
            .run(["backup", "list"])
            .expect(0)
            .stdout
            .contains("pinned")
    );
    program.run(["backup", "unpin", oldest]).expect(0);
    program.run(["backup", "unpin", oldest]).expect(0);
    program.run(["backup", "prune"]).expect(0);
    assert_eq!(listed(&program), ids[2..]);
    for command in ["pin", "unpin", "accept"] {
        program.run(["backup", command, oldest]).expect(4);
        program
            .run(["backup", command, "20200101T000000Z-000000"])
            .expect(4);
    }
    let ran = program.run(["backup", "accept", "web"]).expect(0);
    assert!(ran.stdout.contains("it was not shrunk"), "{}", ran.stdout);
}

#[test]
fn while_the_newest_backup_is_shrunk_nothing_goes_until_it_is_accepted() {
    let (server, program) = backed_up(2);
    server.client().run(cmd!["FLUSHALL"]);
    server.client().run(cmd!["SET", "alone", "1"]);
    keep(&program, &server, "last = 1");
    let made = program.json(["backup", "now"]).expect(0).json();
    assert_eq!(made[0]["shrunk"], true);
    let ids = listed(&program);
    assert_eq!(ids.len(), 3);
    let newest = ids[2].as_str();
    for arguments in [&["backup", "prune"][..], &["backup", "prune", "--dry-run"]] {
        let ran = program.run(arguments).expect(5);
        let hint = format!("rdbkeeper backup accept {newest}");
        assert!(ran.stdout.contains(&hint), "{}", ran.stdout);
    }
    let guarded = program.json(["backup", "prune"]).expect(5).json();
    assert_eq!(guarded[0]["guard"], newest);
    assert_eq!(
        guarded[0]["backups"][0]["reasons"],
        serde_json::json!(["guard"])
    );
    assert_eq!(listed(&program), ids);

    let accepted = program.json(["backup", "accept", newest]).expect(0).json();
    assert_eq!(
        (&accepted[0]["accepted"], &accepted[0]["changed"]),
        (&true.into(), &true.into())
    );
    let shown = program.json(["backup", "show", newest]).expect(0).json();
    assert_eq!(
        (&shown["accepted"], &shown["shrunk"]),
        (&true.into(), &false.into())
    );
    assert!(
        program
            .run(["backup", "list"])
            .expect(0)
            .stdout
            .contains("accepted")
    );
    program.run(["backup", "prune"]).expect(0);
    assert_eq!(listed(&program), [newest]);
}

#[test]
fn each_storage_has_its_own_policy_and_one_that_is_away_does_not_keep_the_others() {
    let server = Server::start(usual());
    server.client().run_all(sessions(50));
    let program = Program::new("");
    let offsite = program.folder().join("offsite");
    program.configure(&format!(
        "[storage.offsite]\nkind = \"local\"\npath = {offsite:?}\n{}",
        database(
            &server,
            "storage = [\"disk\", \"offsite\"]\nkeep = { last = 1 }\nkeep_in = { offsite = { last = 3 } }",
        )
    ));
    for _ in 0..5 {
        program.run(["backup", "now"]).expect(0);
    }
    let count = |storage: &str| {
        let list = program
            .json(["backup", "list", "--storage", storage])
            .expect(0);
        list.json().as_array().unwrap().len()
    };
    assert_eq!((count("disk"), count("offsite")), (1, 3));

    // Away: the backup fails, and is pruned for where it was kept.
    fs::rename(&offsite, program.folder().join("away")).unwrap();
    fs::write(&offsite, b"in the way").unwrap();
    program.run(["backup", "now"]).expect(1);
    assert_eq!(count("disk"), 1);
    let pruned = program.json(["backup", "prune"]).expect(1).json();
    let of = |storage: &str| {
        let all = pruned.as_array().unwrap();
        all.iter()
            .find(|one| one["storage"] == storage)
            .unwrap()
            .clone()
    };
    assert_eq!(of("disk")["removed"], 0);
    assert_eq!(of("offsite")["error"]["kind"], "storage");
    program
        .run(["backup", "prune", "--storage", "offsite"])
        .expect(1);
    fs::remove_file(&offsite).unwrap();
    fs::rename(program.folder().join("away"), &offsite).unwrap();
    program.run(["backup", "now"]).expect(0);
    assert_eq!((count("disk"), count("offsite")), (1, 3));
}

#[test]
fn what_a_killed_backup_leaves_is_swept_after_its_day() {
    let (server, program) = backed_up(1);
    let whole = files_below(&program.archive());
    for stage in ["part", "before-data", "before-manifest"] {
        killed_at(&program, stage, &["backup", "now"]);
    }
    assert!(files_below(&program.archive()).len() > whole.len());
    keep(&program, &server, "last = 1");
    program.run(["backup", "prune"]).expect(0);
    age(&program.archive(), DAY - Duration::from_secs(600));
    program.run(["backup", "prune"]).expect(0);
    assert!(
        files_below(&program.archive()).len() > whole.len(),
        "before its day"
    );
    age(&program.archive(), DAY + Duration::from_secs(60));
    let planned = program
        .json(["backup", "prune", "--dry-run"])
        .expect(0)
        .json();
    let swept = program.json(["backup", "prune"]).expect(0).json();
    assert_eq!(planned[0]["swept"], swept[0]["swept"]);
    assert_eq!(swept[0]["swept"]["folders"], 3);
    assert_eq!(files_below(&program.archive()), whole);
    assert_eq!(
        fs::read_dir(program.archive().join("web")).unwrap().count(),
        1
    );
    all_are_whole(&program);
}

#[test]
fn a_backup_that_stood_still_until_its_data_was_swept_is_not_listed() {
    let (_server, program) = backed_up(1);
    let whole = files_below(&program.archive());
    let paused = paused_at(&program, "before-manifest", &["backup", "now"]);
    age(&program.archive(), DAY + Duration::from_secs(60));
    let swept = program.json(["backup", "prune"]).expect(0).json();
    assert_eq!(swept[0]["swept"]["folders"], 1);
    signal(&paused, Signal::CONT);
    let ran = finish(paused).expect(1);
    assert!(ran.stderr.contains("was removed before"), "{}", ran.stderr);
    assert_eq!(files_below(&program.archive()), whole);
}

#[test]
fn a_killed_prune_leaves_whole_backups_and_the_next_one_does_the_rest() {
    let (server, program) = backed_up(1);
    for stage in [
        "prune-leased",
        "prune-before-manifest",
        "prune-manifest-gone",
        "prune-swept",
    ] {
        program.configure(&database(&server, ""));
        for _ in 0..2 {
            program.run(["backup", "now"]).expect(0);
        }
        let newest = listed(&program).pop().unwrap();
        if stage == "prune-swept" {
            killed_at(&program, "before-manifest", &["backup", "now"]);
            age(&program.archive(), DAY + Duration::from_secs(60));
        }
        keep(&program, &server, "last = 1");
        killed_at(&program, stage, &["backup", "prune"]);
        all_are_whole(&program);
        assert_eq!(listed(&program).last(), Some(&newest), "{stage}");
        if stage != "prune-swept" {
            // Its lease is not over.
            let ran = program.run(["backup", "prune"]).expect(6);
            assert!(ran.stderr.contains("is pruning web"), "{}", ran.stderr);
            // And a backup beside it does not mind.
            program.run(["backup", "now"]).expect(0);
        }
        age(&program.archive(), DAY + Duration::from_secs(60));
        program.run(["backup", "prune"]).expect(0);
        assert_eq!(listed(&program).len(), 1, "{stage}");
        // What was left of the lease goes with the next thing that does.
        assert_eq!(
            files_below(&program.archive())
                .iter()
                .filter(|file| !file.starts_with("web/prune-lease"))
                .count(),
            2,
            "{stage}: {:?}",
            files_below(&program.archive())
        );
        all_are_whole(&program);
    }
}

#[test]
fn a_killed_pin_is_a_pin_or_none() {
    let (server, program) = backed_up(2);
    let oldest = listed(&program).remove(0);
    killed_at(&program, "marked", &["backup", "pin", &oldest]);
    all_are_whole(&program);
    let shown = program.json(["backup", "show", &oldest]).expect(0).json();
    assert_eq!(shown["pinned"], true);
    program.run(["backup", "pin", &oldest]).expect(0);
    keep(&program, &server, "last = 1");
    program.run(["backup", "prune"]).expect(0);
    assert_eq!(listed(&program)[0], oldest);
}

#[test]
fn a_backup_that_goes_while_it_is_pinned_is_told_as_gone() {
    let (_server, program) = backed_up(2);
    let oldest = listed(&program).remove(0);
    let pinning = paused_at(&program, "marked", &["backup", "pin", &oldest]);
    program
        .run(["backup", "delete", &oldest, "--yes"])
        .expect(0);
    signal(&pinning, Signal::CONT);
    finish(pinning).expect(4);
    assert!(!program.archive().join("web").join(&oldest).exists());
}

#[test]
fn several_prunes_and_a_backup_at_once_do_no_harm() {
    let (server, program) = backed_up(6);
    keep(&program, &server, "last = 2");
    let mut runs: Vec<Child> = (0..4).map(|_| program.spawn(["backup", "prune"])).collect();
    runs.push(program.spawn(["backup", "now"]));
    for run in runs {
        let ran = finish(run);
        assert!(matches!(ran.code, Some(0 | 6)), "{ran:?}");
    }
    all_are_whole(&program);
    program.run(["backup", "prune"]).expect(0);
    assert_eq!(listed(&program).len(), 2);
    all_are_whole(&program);
    assert!(!lease(&program).exists());
}

#[test]
fn a_paused_prune_that_wakes_up_removes_nothing_more() {
    let (server, program) = backed_up(4);
    let ids = listed(&program);
    keep(&program, &server, "last = 1");
    let paused = paused_at(&program, "prune-before-manifest", &["backup", "prune"]);
    program.run(["backup", "prune"]).expect(6);
    age(&lease(&program), LEASE);
    // What the paused one is about to remove is wanted now.
    program.run(["backup", "pin", &ids[0]]).expect(0);
    program.run(["backup", "prune"]).expect(0);
    assert_eq!(listed(&program), [ids[0].as_str(), &ids[3]]);
    program.run(["backup", "unpin", &ids[0]]).expect(0);
    signal(&paused, Signal::CONT);
    let ran = finish(paused).expect(6);
    assert!(ran.stderr.contains("taken over"), "{}", ran.stderr);
    assert_eq!(listed(&program), [ids[0].as_str(), &ids[3]]);
    all_are_whole(&program);
}

#[test]
fn a_prune_that_is_interrupted_gives_its_lease_back() {
    let (server, program) = backed_up(3);
    keep(&program, &server, "last = 1");
    for (ended_by, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let before = listed(&program);
        let paused = paused_at(&program, "prune-leased", &["backup", "prune"]);
        signal(&paused, ended_by);
        signal(&paused, Signal::CONT);
        let ran = finish(paused);
        // On a busy machine it may be done before it has heard of the signal.
        assert!(
            matches!(ran.code, Some(ended) if ended == code || ended == 0),
            "{ran:?}"
        );
        assert!(!lease(&program).exists());
        assert_eq!(listed(&program).last(), before.last());
        all_are_whole(&program);
        program.configure(&database(&server, ""));
        program.run(["backup", "now"]).expect(0);
        keep(&program, &server, "last = 1");
    }
}

#[test]
fn a_storage_that_cannot_be_written_keeps_what_it_has_and_fails_no_backup_elsewhere() {
    let (server, program) = backed_up(1);
    let offsite = program.folder().join("offsite");
    fs::create_dir(&offsite).unwrap();
    let mount = |arguments: &[&str]| {
        let done = Command::new("mount").args(arguments).arg(&offsite).output();
        done.is_ok_and(|output| output.status.success())
    };
    if !mount(&["-t", "tmpfs", "none"]) {
        eprintln!("live tests: nothing can be mounted here: a read-only storage is not tested");
        return;
    }
    let configured = |policy: &str| {
        program.configure(&format!(
            "[storage.offsite]\nkind = \"local\"\npath = {offsite:?}\n{}",
            database(
                &server,
                &format!("storage = [\"disk\", \"offsite\"]\n{policy}")
            )
        ));
    };
    configured("");
    for _ in 0..2 {
        program.run(["backup", "now"]).expect(0);
    }
    configured("keep = { last = 1 }");
    let remounted = mount(&["-o", "remount,ro"]);
    let before = files_below(&offsite);
    let pruned = program.json(["backup", "prune"]);
    program.run(["backup", "prune", "--dry-run"]).expect(0);
    let after = files_below(&offsite);
    let _ = Command::new("umount").arg("-l").arg(&offsite).output();
    assert!(remounted);
    assert_eq!(before, after);
    let pruned = pruned.expect(1).json();
    let of = |storage: &str| {
        let all = pruned.as_array().unwrap();
        all.iter()
            .find(|one| one["storage"] == storage)
            .unwrap()
            .clone()
    };
    assert_eq!(of("disk")["removed"], 2);
    assert_eq!(
        (&of("offsite")["removed"], &of("offsite")["error"]["kind"]),
        (&0.into(), &"storage".into())
    );
}

#[test]
fn that_old_backups_cannot_be_removed_stands_in_health_until_they_can() {
    let (server, program) = backed_up(2);
    keep(&program, &server, "last = 1");
    // Nobody can take a lease in a file.
    fs::write(lease(&program), b"in the way").unwrap();
    let ran = program.run(["backup", "now"]).expect(0);
    assert!(ran.stderr.contains("cannot prune web"), "{}", ran.stderr);
    let told = |program: &Program| {
        let status = program.json(["status"]).expect(0).json();
        let reasons = status["reasons"].as_array().unwrap().clone();
        reasons
            .iter()
            .any(|reason| reason["reason"] == "prune-failed")
    };
    assert!(told(&program));
    assert_eq!(listed(&program).len(), 3);
    fs::remove_file(lease(&program)).unwrap();
    program.run(["backup", "now"]).expect(0);
    assert!(!told(&program));
    assert_eq!(listed(&program).len(), 1);
}

#[test]
fn a_backup_that_a_verification_found_damaged_takes_no_good_ones_place() {
    let (server, program) = backed_up(3);
    let ids = listed(&program);
    let data = program.archive().join("web").join(&ids[2]);
    let data = data.join("dump.rdb.zst");
    let whole = fs::read(&data).unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&data, &flipped).unwrap();
    program.run(["backup", "verify", "web"]).expect(3);

    let list = program.run(["backup", "list"]).expect(0).stdout;
    assert_eq!(list.matches("DAMAGED").count(), 1, "{list}");
    let schedule = "schedule = \"0 0 1 1 *\"\nkeep = { last = 1 }";
    program.configure(&database(&server, schedule));
    let status = program.run(["status"]).expect(1).stdout;
    assert!(status.contains("DAMAGED"), "{status}");
    program.run(["backup", "prune"]).expect(0);
    assert_eq!(listed(&program), [&ids[1][..], &ids[2]]);

    // Somebody has brought the data back from elsewhere.
    fs::write(&data, &whole).unwrap();
    program.run(["backup", "verify", "web"]).expect(0);
    program.run(["status"]).expect(0);
    program.run(["backup", "prune"]).expect(0);
    assert_eq!(listed(&program), [&ids[2][..]]);
}
