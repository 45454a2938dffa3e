//! R1 over S3: `kill -9` at any stage. What is listed is whole, the next run succeeds, and prune sweeps what was left
//! after its day.

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;

use crate::support::poll;
use crate::support::program::{finish, killed_at, signal};
use crate::support::proxy::{Fault, Rule};
use crate::support::weed;

use super::{Offsite, large, listed, small};

const STAGES: [&str; 6] = [
    "source-open",
    "part",
    "pumped",
    "before-data",
    "before-manifest",
    "after-manifest",
];

#[test]
fn a_killed_backup_is_never_listed_unless_it_is_whole_and_prune_sweeps_the_rest_after_its_day() {
    let Some(weed) = weed::shared() else { return };
    let fills: [fn(&crate::support::servers::Server); 2] = [small, large];
    for (fill, name) in fills.into_iter().zip(["small", "large"]) {
        let offsite = Offsite::new(weed, fill);
        offsite.keep("keep = { last = 9 }");
        for stage in STAGES {
            killed_at(&offsite.program, stage, &["backup", "now"]);
            let expected = usize::from(stage == "after-manifest");
            assert_eq!(
                listed(&offsite.program).len(),
                expected,
                "{name} killed at {stage}"
            );
        }
        offsite.backs_up();
        let listed = listed(&offsite.program);
        assert_eq!(listed.len(), 2);
        offsite.program.run(["backup", "verify", "--all"]).expect(0);

        // What was left is young, and stays.
        let left = |what: Vec<String>| {
            let is_listed = |key: &String| listed.iter().any(|id| key.contains(id));
            what.into_iter().filter(|key| !is_listed(key)).count()
        };
        let (objects, begun) = (
            left(offsite.bucket.keys()),
            offsite.bucket.unfinished().len(),
        );
        assert_eq!(objects, 1, "killed before its manifest");
        assert!(name == "small" || begun >= 2, "{begun}");
        offsite.program.run(["backup", "prune"]).expect(0);
        assert_eq!(left(offsite.bucket.keys()), objects);

        // Everything is three days older, but for the lease that prune takes.
        offsite
            .proxy
            .rule(Rule::new("GET", "prune-lease", Fault::Spare));
        let day = |ago: i64| {
            let then = Timestamp::now().checked_sub(SignedDuration::from_hours(24 * ago));
            then.unwrap().strftime("%Y-%m-%dT").to_string()
        };
        let older = [(1, 4), (0, 3)].map(|(from, to)| (day(from), day(to)));
        offsite
            .proxy
            .rule(Rule::new("GET", "", Fault::Replace(older.to_vec())));
        offsite.program.run(["backup", "prune"]).expect(0);
        assert_eq!(left(offsite.bucket.keys()), 0);
        offsite.proxy.heal();
        offsite.must_hold(2);
    }
}

#[test]
fn an_interrupted_backup_aborts_its_upload() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, large);
    for (ended_by, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let stall = offsite
            .proxy
            .rule(Rule::new("PUT", "partNumber=5", Fault::Stall));
        let child = offsite.program.spawn(["backup", "now"]);
        poll::until("a part that stalls", || (stall.hits() > 0).then_some(()));
        signal(&child, ended_by);
        let ran = finish(child).expect(code);
        assert!(ran.stderr.contains("error: "), "{}", ran.stderr);
        offsite.proxy.heal();
        offsite.must_hold(0);
        assert_eq!(offsite.bucket.keys(), Vec::<String>::new());
    }
}
