//! R7 over S3: two hosts on one bucket.

use futures_util::future::join_all;
use jiff::SignedDuration;
use rdbkeeper::catalog::Error;
use rdbkeeper::catalog::lease::Lease;
use rdbkeeper::storage::{NamedStore, ObjectKey, Problem};
use rustix::process::Signal;

use crate::support::program::{Program, finish, paused_at, signal};
use crate::support::proxy::{Fault, Rule};
use crate::support::weed::{self, wait};

use super::{Offsite, configuration, date, large, listed, small};

/// The storage of a program's configuration, with a connection of its own.
fn store(program: &Program) -> NamedStore {
    let config = configuration(program);
    let mut stores = rdbkeeper::setup::stores(&config, Some("offsite")).unwrap();
    stores.remove(0)
}

/// Each makes one object under this key at the same moment; what each hears. Number N writes bytes N + 1.
fn race(
    stores: &[NamedStore],
    key: &ObjectKey,
    size: usize,
) -> Vec<Result<(), rdbkeeper::storage::Error>> {
    wait(join_all(stores.iter().zip(1_u8..).map(
        async |(storage, number)| {
            let mut upload = storage.store.upload(key).await?;
            upload.part(vec![number; size].into()).await?;
            upload.finish().await
        },
    )))
}

fn all_succeeded(done: &[Result<(), rdbkeeper::storage::Error>]) -> Vec<usize> {
    for error in done.iter().filter_map(|one| one.as_ref().err()) {
        assert_eq!(error.problem, Problem::Exists, "{error:?}");
    }
    (0..done.len()).filter(|at| done[*at].is_ok()).collect()
}

#[test]
fn of_many_who_make_one_object_one_succeeds_and_the_others_hear_that_it_exists() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let stores: Vec<_> = (0..6).map(|_| store(&offsite.program)).collect();
    for round in 0..4 {
        let key = ObjectKey::new(["web", &format!("round-{round}"), "dump.rdb"]).unwrap();
        let winners = all_succeeded(&race(&stores, &key, 1000));
        assert_eq!(winners.len(), 1, "{winners:?}");
        let there = offsite.bucket.get(&format!("redis/{key}"));
        assert!(there == vec![u8::try_from(winners[0]).unwrap() + 1; 1000]);
    }
    assert_eq!(offsite.bucket.unfinished(), Vec::<String>::new());
}

/// SeaweedFS may complete two uploads of one key that end at the same moment; the object is the later one's, whole.
#[test]
fn of_many_who_make_one_object_in_parts_it_is_one_whole_and_the_others_hear_that_it_exists() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let stores: Vec<_> = (0..6).map(|_| store(&offsite.program)).collect();
    let key = ObjectKey::new(["web", "large", "dump.rdb"]).unwrap();
    let size = 11 << 20;
    let winners = all_succeeded(&race(&stores, &key, size));
    let there = offsite.bucket.get(&format!("redis/{key}"));
    let whose = usize::from(there[0]) - 1;
    assert!(there == vec![there[0]; size]);
    assert!(winners.contains(&whose), "{whose} of {winners:?}");
    // Who comes later succeeds no more.
    assert!(all_succeeded(&race(&stores, &key, size)).is_empty());
    assert_eq!(offsite.bucket.unfinished(), Vec::<String>::new());
}

#[test]
fn of_many_hosts_that_want_the_lease_one_has_it() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let stores: Vec<_> = (0..6).map(|_| store(&offsite.program)).collect();
    for round in 0..5 {
        let taken = wait(join_all(stores.iter().zip(0..).map(
            async |(storage, number)| Lease::take(storage, "web", &format!("host{number}")).await,
        )));
        let mut held = Vec::new();
        for one in taken {
            match one {
                Ok(lease) => held.push(lease),
                Err(Error::Leased { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(held.len() <= 1, "round {round}: {held:?}");
        for lease in held {
            wait(lease.release()).unwrap();
        }
        let left = offsite.bucket.keys();
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
    // Alone each gets it.
    let lease = wait(Lease::take(&stores[0], "web", "host0")).unwrap();
    wait(lease.release()).unwrap();
}

#[test]
fn two_hosts_back_up_and_prune_at_once_and_nothing_that_is_listed_is_broken() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    offsite.backs_up();
    let keep = "keep = { last = 2 }\nmethod = \"scan\"";
    offsite.keep(keep);
    let hosts = [offsite.elsewhere(keep), offsite.elsewhere(keep)];
    for _ in 0..3 {
        let runs: Vec<_> = hosts
            .iter()
            .flat_map(|host| {
                [
                    host.spawn(["backup", "now"]),
                    host.spawn(["backup", "prune"]),
                ]
            })
            .collect();
        for (number, run) in runs.into_iter().enumerate() {
            let ran = finish(run);
            let is_prune = number % 2 == 1;
            let fine = ran.code == Some(0) || (is_prune && ran.code == Some(6));
            assert!(fine, "{ran:?}");
        }
        offsite.program.run(["backup", "verify", "--all"]).expect(0);
    }
    let left = offsite.program.run(["backup", "prune"]).expect(0);
    assert_eq!(listed(&offsite.program).len(), 2, "{left:?}");
    offsite.must_hold(2);
}

#[test]
fn a_prune_that_slept_longer_than_its_lease_removes_nothing_more() {
    // Where signatures are looked at, the program would follow the clock that the answers tell.
    let Some(weed) = weed::shared_open() else {
        return;
    };
    let offsite = Offsite::new(weed, small);
    for _ in 0..3 {
        offsite.backs_up();
    }
    offsite.keep("keep = { last = 1 }");
    let sleeper = paused_at(&offsite.program, "prune-leased", &["backup", "prune"]);
    let other = offsite.elsewhere("keep = { last = 2 }");
    let busy = other.run(["backup", "prune"]).expect(6);
    assert!(busy.stderr.contains("error: "), "{}", busy.stderr);

    // Eleven minutes on, by the server's own clock.
    let later = Fault::Dated(date(SignedDuration::from_mins(11)));
    offsite.proxy.rule(Rule::new("", "", later));
    let second = paused_at(&other, "prune-leased", &["backup", "prune"]);
    let before = listed(&offsite.program);
    signal(&sleeper, Signal::CONT);
    let ran = finish(sleeper);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert_eq!(listed(&offsite.program), before);
    offsite.proxy.heal();
    signal(&second, Signal::CONT);
    finish(second);
    offsite.program.run(["backup", "prune"]).expect(0);
    offsite.must_hold(1);
}

#[test]
fn two_hosts_may_send_large_backups_at_once() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, large);
    let other = offsite.elsewhere("");
    let runs = [
        offsite.program.spawn(["backup", "now"]),
        other.spawn(["backup", "now"]),
    ];
    for run in runs {
        finish(run).expect(0);
    }
    offsite.must_hold(2);
}
