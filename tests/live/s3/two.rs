//! A disk and a bucket: what one of them missed comes from the other, and the disk is read first.

use std::fs;

use serde_json::json;

use crate::support::compare::assert_same;
use crate::support::proxy::{Fault, Rule};
use crate::support::servers::{Server, usual};
use crate::support::weed;

use super::{Offsite, says, small};

#[test]
fn what_the_bucket_missed_is_copied_there_and_the_disk_is_read_first() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let program = &offsite.program;
    let text = fs::read_to_string(program.configuration()).unwrap();
    // The bucket is named first, and the disk is nearer all the same.
    let both = text.replace(
        "storage = [\"offsite\"]",
        "storage = [\"offsite\", \"disk\"]",
    );
    assert_ne!(text, both);
    program.write_configuration(&both);
    let denied = Rule::new("PUT", "", Fault::Answer(403, "AccessDenied"));
    offsite.proxy.rule(denied);
    let ran = program.run(["backup", "now"]).expect(1);
    says(&ran, &["storage offsite does not have it", "--to offsite`"]);
    offsite.proxy.heal();
    assert_eq!(offsite.bucket.keys(), Vec::<String>::new());
    let list = program.json(["backup", "list"]).expect(0).json();
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list[0]["storage"], "disk");
    assert_eq!(list[0]["lacks"], json!(["offsite"]));

    let id = super::id(&list[0]);
    let copy = ["backup", "copy", "--all", "--to", "offsite"];
    let copied = program.json(copy).expect(0).json();
    assert_eq!(copied[0]["id"], id.as_str(), "{copied}");
    let again = program.json(copy).expect(0).json();
    assert_eq!(again, json!([]));
    offsite.must_hold(2);
    let at = |name: &str| program.archive().join("web").join(&id).join(name);
    for name in ["manifest.json", "dump.rdb.zst"] {
        let stored = offsite.bucket.get(&format!("redis/web/{id}/{name}"));
        assert!(stored == fs::read(at(name)).unwrap(), "{name} differs");
    }

    // The disk is read, and nothing but manifests of the bucket.
    let reads = || offsite.proxy.count("GET", "dump.rdb");
    let before = reads();
    let restored = |what: &str| {
        let target = Server::start(usual());
        let ran = program.run(["restore", "web", "--to", &target.url()]);
        let ran = ran.expect(0);
        let (mut source, mut target) = (offsite.server.client(), target.client());
        assert_same(&mut source, &mut target, what);
        ran
    };
    restored("from the disk");
    assert_eq!(reads(), before);
    // Once that copy is damaged it comes from the bucket.
    let mut bytes = fs::read(at("dump.rdb.zst")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(at("dump.rdb.zst"), bytes).unwrap();
    let ran = restored("from the bucket");
    assert!(ran.stderr.contains("another copy is taken"), "{ran:?}");
    assert!(reads() > before);
    // Which of the two copies it is, is told.
    let ran = program.run(["backup", "verify", "--all"]).expect(3);
    assert!(ran.stderr.contains("it lies in storage disk"), "{ran:?}");

    // A bucket that is passed over is told with what is wrong with it.
    let denied = Rule::new("", "", Fault::Answer(403, "AccessDenied"));
    offsite.proxy.rule(denied);
    let ran = program.run(["backup", "show", "web"]);
    assert!(
        ran.stderr.contains("passed over") && ran.stderr.contains("AccessDenied"),
        "{ran:?}"
    );
}
