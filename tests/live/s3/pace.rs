//! What is sent when: while the dump is still running, several parts at a time, and at the bucket's pace without holding
//! anybody else.

use rustix::process::Signal;

use crate::cmd;
use crate::support::poll;
use crate::support::program::{finish, signal};
use crate::support::proxy::{Fault, Rule};
use crate::support::weed::{self, wait};

use rdbkeeper::storage::{ObjectKey, Store as _};

use super::faults::hasty;
use super::{Offsite, large, listed, small};

#[test]
fn parts_are_sent_while_the_dump_is_still_running() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, large);
    // Thirty-eight keys of a mebibyte, of which each takes a quarter of a second.
    offsite.keep("method = \"scan\"\nscan_batch = 1\nmax_keys_per_second = 4");
    let child = offsite.program.spawn(["backup", "now"]);
    poll::until("the first part", || {
        (offsite.proxy.count("PUT", "partNumber=1&") > 0).then_some(())
    });
    let stats = offsite.server.client().run(cmd!["INFO", "commandstats"]);
    let stats = stats.text().to_owned();
    let dumped = stats.split("cmdstat_dump:calls=").nth(1).unwrap();
    let dumped: u32 = dumped.split(',').next().unwrap().parse().unwrap();
    assert!(
        dumped < 38,
        "{dumped} of 38 keys were read before a part was sent"
    );
    signal(&child, Signal::INT);
    finish(child).expect(130);
    offsite.must_hold(0);
    assert_eq!(offsite.bucket.keys(), Vec::<String>::new());
}

#[test]
fn several_parts_are_on_their_way_at_a_time() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let store = hasty(&offsite);
    let key = ObjectKey::new(["web", "at-once", "dump.rdb"]).unwrap();
    let stall = Rule::new("PUT", "partNumber=1&", Fault::Stall).times(1);
    offsite.proxy.rule(stall);
    wait(async {
        let mut upload = store.upload(&key).await.unwrap();
        for _ in 0..16 {
            upload.part(vec![7; 2 << 20].into()).await.unwrap();
        }
        upload.finish().await.unwrap();
    });
    let log = offsite.proxy.log();
    let first = |part: &str| log.iter().position(|line| line.contains(part)).unwrap();
    let again = log.iter().rposition(|line| line.contains("partNumber=1&"));
    for other in ["partNumber=2&", "partNumber=3&"] {
        assert!(
            Some(first(other)) < again,
            "{other} waited for the first:\n{log:#?}"
        );
    }
}

#[test]
fn a_slow_bucket_holds_neither_the_dump_nor_the_disk() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, large);
    let text = std::fs::read_to_string(offsite.program.configuration()).unwrap();
    let both = text.replace(
        "storage = [\"offsite\"]",
        "storage = [\"offsite\", \"disk\"]",
    );
    assert_ne!(text, both);
    offsite.program.write_configuration(&both);
    // Ten seconds and more for each part, four at a time.
    let slow = Fault::Slow(512 << 10);
    offsite.proxy.rule(Rule::new("PUT", "partNumber=", slow));
    let mut child = offsite.program.spawn(["backup", "now"]);
    let on_disk = || {
        let list = offsite
            .program
            .json(["backup", "list", "--storage", "disk"]);
        (list.expect(0).json().as_array().unwrap().len() == 1).then_some(())
    };
    poll::until("the disk has it", on_disk);
    assert_eq!(
        child.try_wait().unwrap(),
        None,
        "the bucket is not done yet"
    );
    let info = offsite.server.client().run(cmd!["INFO"]).text().to_owned();
    for idle in ["rdb_bgsave_in_progress:0", "connected_slaves:0"] {
        assert!(info.contains(idle), "the server is held:\n{info}");
    }
    offsite.proxy.heal();
    let ran = finish(child).expect(0);
    assert!(ran.stderr.contains("offsite"), "{}", ran.stderr);
    assert_eq!(listed(&offsite.program).len(), 2);
    offsite.must_hold(2);
}
