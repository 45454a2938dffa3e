//! R3: a network and a server that fail in the middle: success after a retry, or a clear error; never a listed backup
//! that is not whole, and nothing unfinished left.

use std::sync::Arc;
use std::time::Duration;

use rdbkeeper::config::StorageConfig;
use rdbkeeper::storage::{ObjectKey, Problem, Store, get};
use rdbkeeper::storage::{Patience, S3Store};
use rustix::process::Signal;

use crate::support::program::{finish, paused_at, signal};
use crate::support::proxy::{Fault, Rule};
use crate::support::weed::{self, Weed, wait};

use super::{Offsite, configuration, large, listed, says, small};

/// Where the requests of a backup in parts go, in their order.
const STEPS: [(&str, &str); 4] = [
    ("POST", "uploads"),
    ("PUT", "partNumber=7"),
    ("POST", "uploadId="),
    ("PUT", "manifest.json"),
];

/// A store of this bucket by way of the proxy, which gives up soon on what stands still.
pub(super) fn hasty(offsite: &Offsite) -> S3Store {
    let config = configuration(&offsite.program);
    let (_, storage) = config.storage("offsite").unwrap();
    let StorageConfig::S3(s3) = storage else {
        panic!("{storage:?}")
    };
    let soon = Duration::from_secs(2);
    let patience = Patience {
        sending: soon,
        waiting: soon,
        receiving: soon,
    };
    S3Store::with_patience(s3.as_ref().clone(), patience)
}

#[test]
fn bursts_of_throttling_and_of_errors_are_waited_out() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, large);
    let answers = [
        Fault::Answer(503, "SlowDown"),
        Fault::Answer(500, "InternalError"),
        Fault::Answer(429, "TooManyRequests"),
        Fault::Answer(503, "ServiceUnavailable"),
    ];
    let rules: Vec<_> = STEPS
        .iter()
        .zip(answers)
        .map(|((method, part), fault)| offsite.proxy.rule(Rule::new(method, *part, fault).times(2)))
        .collect();
    offsite.backs_up();
    for rule in &rules {
        assert_eq!(rule.hits(), 2, "{rule:?}");
    }
    let lists = Rule::new("GET", "list-type=2", Fault::Answer(503, "SlowDown")).times(2);
    let reads = Rule::new("GET", "dump.rdb", Fault::Answer(500, "InternalError")).times(1);
    let (lists, reads) = (offsite.proxy.rule(lists), offsite.proxy.rule(reads));
    offsite.must_hold(1);
    assert_eq!((lists.hits(), reads.hits()), (2, 1));
}

#[test]
fn trouble_that_does_not_end_is_told_and_leaves_nothing() {
    let Some(weed) = weed::shared() else { return };
    let cases = [
        (STEPS[1], Fault::Answer(503, "SlowDown"), "SlowDown"),
        (STEPS[1], Fault::ResetInRequest(3 << 20), "broke"),
        (
            STEPS[2],
            Fault::Answer(500, "InternalError"),
            "InternalError",
        ),
        (STEPS[3], Fault::Answer(403, "AccessDenied"), "s3:PutObject"),
    ];
    // Each waits for the most part.
    std::thread::scope(|scope| {
        for ((method, part), fault, expected) in cases {
            scope.spawn(move || {
                let offsite = Offsite::new(weed, large);
                let rule = offsite.proxy.rule(Rule::new(method, part, fault));
                offsite.fails(&[expected]);
                assert!(rule.hits() > 0);
            });
        }
    });
}

#[test]
fn a_manifest_that_never_arrives_makes_no_backup_and_what_waits_for_it_is_never_listed() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let refused = Rule::new(STEPS[3].0, STEPS[3].1, Fault::Answer(503, "SlowDown"));
    offsite.proxy.rule(refused);
    let ran = offsite.program.run(["backup", "now"]).expect(1);
    says(&ran, &["SlowDown"]);
    offsite.proxy.heal();
    // A request that was refused for want of time could still be done: the data is there for it, and for nobody else.
    let left = offsite.bucket.keys();
    assert!(left.iter().all(|key| key.contains("dump.rdb")), "{left:?}");
    offsite.must_hold(0);
    offsite.backs_up();
    offsite.must_hold(1);
}

#[test]
fn a_connection_that_is_reset_in_part_seven_is_made_again() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, large);
    let reset = Rule::new("PUT", "partNumber=7", Fault::ResetInRequest(3 << 20)).times(2);
    let reset = offsite.proxy.rule(reset);
    offsite.backs_up();
    assert_eq!(reset.hits(), 2);
    offsite.must_hold(1);
}

#[test]
fn an_answer_that_is_lost_after_the_server_did_it_is_found_out() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, large);
    for (method, part) in STEPS {
        let lost = Rule::new(method, part, Fault::LoseAnswer).times(1);
        let lost = offsite.proxy.rule(lost);
        offsite.backs_up();
        assert_eq!(lost.hits(), 1, "{method} {part}");
        offsite.proxy.heal();
    }
    // An upload whose beginning was not answered nobody knows of: prune sweeps it after its day.
    let begun_twice = offsite.bucket.unfinished();
    assert!(begun_twice.len() <= 1, "{begun_twice:?}");
    assert_eq!(listed(&offsite.program).len(), STEPS.len());
    offsite.program.run(["backup", "verify", "--all"]).expect(0);
}

#[test]
fn answers_that_are_all_lost_after_the_server_did_it_are_found_out() {
    let Some(weed) = weed::shared() else { return };
    // Each waits for the most part.
    std::thread::scope(|scope| {
        for part in ["dump.rdb", "manifest.json"] {
            scope.spawn(move || {
                let offsite = Offsite::new(weed, small);
                let lost = offsite
                    .proxy
                    .rule(Rule::new("PUT", part, Fault::LoseAnswer));
                offsite.backs_up();
                assert!(lost.hits() > 1, "{part}");
                offsite.proxy.heal();
                offsite.must_hold(1);
            });
        }
    });
}

#[test]
fn a_manifest_that_was_written_makes_a_whole_backup_though_its_answer_was_lost() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let proxy = &offsite.proxy;
    proxy.rule(Rule::new("PUT", "manifest.json", Fault::LoseAnswer));
    proxy.rule(Rule::new(
        "HEAD",
        "manifest.json",
        Fault::Answer(500, "InternalError"),
    ));
    offsite.backs_up();
}

#[test]
fn an_upload_that_stalls_in_part_seven_is_sent_again() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let store = hasty(&offsite);
    let key = ObjectKey::new(["web", "stalled", "dump.rdb"]).unwrap();
    let stall = Rule::new("PUT", "partNumber=7", Fault::Stall).times(1);
    let stall = offsite.proxy.rule(stall);
    let data: Vec<u8> = (0..38_u32 << 20).map(|at| (at >> 8) as u8).collect();
    wait(async {
        let mut upload = store.upload(&key).await.unwrap();
        for part in data.chunks(8 << 20) {
            upload.part(part.to_vec().into()).await.unwrap();
        }
        upload.finish().await.unwrap();
    });
    assert_eq!(stall.hits(), 1);
    assert!(offsite.bucket.get("redis/web/stalled/dump.rdb") == data);
    assert_eq!(offsite.bucket.unfinished(), Vec::<String>::new());
}

#[test]
fn an_upload_that_goes_on_stalling_is_unavailable_and_is_aborted() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let store = hasty(&offsite);
    let key = ObjectKey::new(["web", "stalled", "dump.rdb"]).unwrap();
    offsite
        .proxy
        .rule(Rule::new("PUT", "partNumber=2", Fault::Stall));
    let error = wait(async {
        let mut upload = store.upload(&key).await.unwrap();
        let mut error = None;
        for _ in 0..3 {
            let part = upload.part(vec![1; 8 << 20].into()).await;
            error = error.or(part.err());
        }
        match upload.finish().await {
            Err(last) => error.unwrap_or(last),
            Ok(()) => panic!("it cannot be finished"),
        }
    });
    assert_eq!(error.problem, Problem::Unavailable, "{error:?}");
    assert_eq!(offsite.bucket.unfinished(), Vec::<String>::new());
    assert_eq!(offsite.bucket.keys(), Vec::<String>::new());
}

#[test]
fn a_reading_that_breaks_or_stalls_goes_on_where_it_was() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, large);
    offsite.backs_up();
    let proxy = &offsite.proxy;
    let cut = proxy.rule(Rule::new("GET", "dump.rdb", Fault::ResetInAnswer(3 << 20)).times(3));
    offsite.must_hold(1);
    assert_eq!(cut.hits(), 3);
    proxy.heal();

    let store: Arc<dyn Store> = Arc::new(hasty(&offsite));
    let found = wait(store.list("web")).unwrap();
    let data = found.iter().find(|object| object.bytes > 1 << 20).unwrap();
    let stalls = proxy.rule(Rule::new("GET", "dump.rdb", Fault::StallInAnswer(5 << 20)).times(2));
    let read = wait(get(store.as_ref(), &data.key, 100 << 20)).unwrap();
    assert_eq!(stalls.hits(), 2);
    assert!(read == offsite.bucket.get(&format!("redis/{}", data.key)));

    proxy.rule(Rule::new("GET", "dump.rdb", Fault::ResetInAnswer(0)));
    let ran = offsite.program.run(["backup", "verify"]).expect(1);
    says(&ran, &["broke"]);
}

#[test]
fn a_bit_that_flips_on_the_way_back_is_found() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    offsite.backs_up();
    for (part, byte) in [("dump.rdb", 3000), ("manifest.json", 200)] {
        let flip = offsite
            .proxy
            .rule(Rule::new("GET", part, Fault::Flip(byte)));
        offsite.program.run(["backup", "verify"]).expect(3);
        assert!(flip.hits() > 0);
        offsite.proxy.heal();
    }
    offsite.must_hold(1);
}

#[test]
fn a_bit_that_flips_on_the_way_there_is_found_and_sent_again() {
    // No signature covers what is sent, and the checksum alone does.
    let Some(weed) = weed::shared_open() else {
        return;
    };
    let offsite = Offsite::new(weed, large);
    let rules: Vec<_> = [("PUT", "partNumber=7"), ("PUT", "manifest.json")]
        .into_iter()
        .map(|(method, part)| {
            let flip = Rule::new(method, part, Fault::FlipInRequest(1000));
            offsite.proxy.rule(flip.times(1))
        })
        .collect();
    offsite.backs_up();
    for rule in rules {
        assert_eq!(rule.hits(), 1, "{rule:?}");
    }
    offsite.must_hold(1);

    // One that goes on is told.
    let flip = Rule::new("PUT", "dump.rdb", Fault::FlipInRequest(1000));
    offsite.proxy.rule(flip);
    let ran = offsite.program.run(["backup", "now"]).expect(1);
    says(&ran, &["is not what was sent", "failing hardware"]);
    offsite.proxy.heal();
    offsite.must_hold(1);
}

#[test]
fn a_bucket_that_vanishes_in_mid_upload_is_told() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, large);
    let paused = paused_at(&offsite.program, "pumped", &["backup", "now"]);
    offsite.bucket.vanish();
    signal(&paused, Signal::CONT);
    let ran = finish(paused).expect(1);
    // The part that is on its way meanwhile may find the upload gone before the bucket is.
    let told = ["there is no bucket", "was the bucket itself removed?"];
    assert!(told.iter().any(|one| ran.stderr.contains(one)), "{ran:?}");
}

#[test]
fn a_server_that_is_killed_in_mid_upload_and_comes_back_is_made_up_for() {
    let Some(mut weed) = Weed::start() else {
        return;
    };
    let offsite = Offsite::new(&weed, large);
    let paused = paused_at(&offsite.program, "pumped", &["backup", "now"]);
    weed.kill();
    signal(&paused, Signal::CONT);
    weed.restart();
    let ran = finish(paused);
    // What it had stored before it was killed may be lost: then the run fails.
    let made = usize::from(ran.code == Some(0));
    assert!(made == 1 || ran.code == Some(1), "{ran:?}");
    assert_eq!(listed(&offsite.program).len(), made);
    offsite.backs_up();
    offsite.program.run(["backup", "verify", "--all"]).expect(0);
    assert_eq!(listed(&offsite.program).len(), made + 1);
}
