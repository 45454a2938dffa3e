//! What a bucket does beyond the contract.

use aws_sdk_s3::types::{ObjectLockLegalHold, ObjectLockLegalHoldStatus};
use bytes::Bytes;
use jiff::{Timestamp, ToSpan as _};
use rdbkeeper::failure::{Failure, Kind};
use rdbkeeper::storage::Problem;

use super::{PART, bytes, in_bucket, key, keys, read, store_of, upload};
use crate::support::data::sessions;
use crate::support::program::{Program, Ran};
use crate::support::proxy::{Fault, Proxy, Rule};
use crate::support::servers::{Server, usual};
use crate::support::weed::{self, Bucket, Options, Weed, wait};

/// How large an upload's first part is where no size is configured.
const FIRST_PART: usize = 5 << 20;

/// All versions and markers of all keys.
fn versions(bucket: &Bucket) -> usize {
    let listed = bucket.client().list_object_versions().bucket(bucket.name());
    let page = wait(listed.send()).unwrap();
    page.versions().len() + page.delete_markers().len()
}

#[test]
fn what_fits_in_one_part_is_one_request() {
    let Some(weed) = weed::shared() else { return };
    let bucket = weed.bucket();
    let proxy = Proxy::to(weed.port());
    let store = store_of(&bucket.table_at("s3", &proxy.endpoint()));
    wait(async {
        upload(store.as_ref(), &key("web/one/small"), &bytes(FIRST_PART))
            .await
            .unwrap();
        assert_eq!(proxy.log().len(), 1, "{:?}", proxy.log());
        upload(
            store.as_ref(),
            &key("web/one/large"),
            &bytes(FIRST_PART + 1),
        )
        .await
        .unwrap();
    });
    assert_eq!(proxy.count("POST", "/large"), 2, "{:?}", proxy.log());
    assert_eq!(proxy.count("PUT", "/large"), 2, "{:?}", proxy.log());
}

#[test]
fn every_part_has_the_size_that_is_configured() {
    let Some(weed) = weed::shared() else { return };
    let bucket = weed.bucket();
    let proxy = Proxy::to(weed.port());
    let table = bucket.table_at("s3", &proxy.endpoint());
    let store = store_of(&format!("{table}part_size = \"5MiB\""));
    let data = bytes(2 * PART);
    let object = key("web/one/dump.rdb");
    wait(upload(store.as_ref(), &object, &data)).unwrap();
    assert_eq!(proxy.count("PUT", "/dump.rdb"), 4, "{:?}", proxy.log());
    assert!(wait(read(store.as_ref(), &object)) == data);
}

#[test]
fn without_checksums_everything_works_too() {
    let Some(weed) = weed::shared() else { return };
    let bucket = weed.bucket();
    let store = in_bucket(&bucket, "checksums = false");
    let data = bytes(2 * PART + 1);
    wait(async {
        let store = store.as_ref();
        store
            .put_new(&key("web/one/manifest.json"), "x".into())
            .await
            .unwrap();
        upload(store, &key("web/one/dump.rdb"), &data)
            .await
            .unwrap();
        assert!(read(store, &key("web/one/dump.rdb")).await == data);
    });
}

#[test]
fn what_is_deleted_from_a_bucket_with_versions_is_gone_with_all_of_them() {
    let Some(weed) = weed::shared() else { return };
    let bucket = weed.locking_bucket();
    let store = in_bucket(&bucket, "");
    let object = key("web/one/dump.rdb");
    wait(store.put_new(&object, "first".into())).unwrap();
    bucket.put("web/one/dump.rdb", "second");
    bucket.put("web/one/dump.rdb.zst", "another object");
    bucket.delete("web/one/dump.rdb");
    bucket.put("web/one/dump.rdb", "third");
    assert_eq!(versions(&bucket), 5);
    wait(store.delete(&object)).unwrap();
    assert_eq!(versions(&bucket), 1);
    assert_eq!(bucket.keys(), ["web/one/dump.rdb.zst"]);
    // One that only has a marker before it goes as well.
    bucket.delete("web/one/dump.rdb.zst");
    wait(store.delete(&key("web/one/dump.rdb.zst"))).unwrap();
    assert_eq!(versions(&bucket), 0);
    let features = wait(store.features()).unwrap();
    assert_eq!(
        (features.versioned, features.multipart),
        (Some(true), Some(true))
    );
    assert_eq!(versions(&bucket), 0);
}

#[test]
fn a_backup_that_is_locked_stays_as_it_was_and_what_is_no_backup_can_go() {
    let Some(weed) = weed::shared() else { return };
    let bucket = weed.locking_bucket();
    let store = in_bucket(
        &bucket,
        "object_lock = { mode = \"COMPLIANCE\", days = 30 }",
    );
    let store = store.as_ref();
    wait(async {
        let (data, manifest) = (key("web/one/dump.rdb.zst"), key("web/one/manifest.json"));
        upload(store, &data, &bytes(PART + 1)).await.unwrap();
        store.put_new(&manifest, "{}".into()).await.unwrap();
        for object in [
            "web/one/pinned",
            "web/prune-lease/0000000001",
            "rdbkeeper-check/x",
        ] {
            store.put_new(&key(object), Bytes::new()).await.unwrap();
            store.delete(&key(object)).await.unwrap();
        }
        for object in [&data, &manifest] {
            let error = store.delete(object).await.unwrap_err();
            assert_eq!(error.problem, Problem::Locked, "{error:?}");
            let why = error.source.as_ref().unwrap().to_string();
            let until: Timestamp = why
                .strip_prefix("it is locked until ")
                .unwrap()
                .parse()
                .unwrap();
            let left = until.duration_since(Timestamp::now()).as_hours();
            assert!((30 * 24 - 1..=30 * 24).contains(&left), "{why}");
            assert_eq!(Failure::from(error).kind, Kind::Refused);
        }
        assert_eq!(
            keys(store, "").await,
            ["web/one/dump.rdb.zst", "web/one/manifest.json"]
        );
    });
    assert_eq!(versions(&bucket), 2);
}

#[test]
fn encryption_class_and_type_are_as_configured() {
    let Some(weed) = Weed::with(Options::new().kms()) else {
        return;
    };
    let bucket = weed.bucket();
    let head = |name: &str| {
        let head = bucket
            .client()
            .head_object()
            .bucket(bucket.name())
            .key(name);
        wait(head.send()).unwrap()
    };
    let lines = "server_side_encryption = \"AES256\"\nstorage_class = \"STANDARD_IA\"";
    let store = in_bucket(&bucket, lines);
    let data = bytes(PART + 1);
    wait(upload(store.as_ref(), &key("web/one/dump.rdb"), &data)).unwrap();
    wait(store.put_new(&key("web/one/manifest.json"), "{}".into())).unwrap();
    let large = head("web/one/dump.rdb");
    assert_eq!(large.content_type(), Some("application/octet-stream"));
    assert_eq!(large.server_side_encryption().unwrap().as_str(), "AES256");
    assert_eq!(large.storage_class().unwrap().as_str(), "STANDARD_IA");
    let small = head("web/one/manifest.json");
    assert_eq!(small.server_side_encryption().unwrap().as_str(), "AES256");
    assert!(
        small
            .storage_class()
            .is_none_or(|class| class.as_str() == "STANDARD")
    );
    assert!(wait(read(store.as_ref(), &key("web/one/dump.rdb"))) == data);

    let lines = "server_side_encryption = \"aws:kms\"\nkms_key_id = \"backups\"";
    let store = in_bucket(&bucket, lines);
    wait(upload(store.as_ref(), &key("web/two/dump.rdb"), &data)).unwrap();
    let large = head("web/two/dump.rdb");
    assert_eq!(large.server_side_encryption().unwrap().as_str(), "aws:kms");
    assert!(wait(read(store.as_ref(), &key("web/two/dump.rdb"))) == data);
}

#[test]
fn what_others_keep_below_the_prefix_is_left_alone() {
    let Some(weed) = weed::shared() else { return };
    let bucket = weed.bucket();
    let odd = ["redis/.hidden/x", "redis/web/", "redisx/web/y", "web/z"];
    for foreign in odd {
        bucket.put(foreign, "theirs");
    }
    let store = in_bucket(&bucket, "prefix = \"/redis/\"");
    let before = bucket.keys();
    wait(async {
        assert!(keys(store.as_ref(), "").await.is_empty());
        store.put_new(&key("web/z"), "ours".into()).await.unwrap();
        assert_eq!(keys(store.as_ref(), "").await, ["web/z"]);
        store.delete(&key("web/z")).await.unwrap();
    });
    assert_eq!(bucket.keys(), before);
    assert_eq!(store.describe(), format!("s3://{}/redis", bucket.name()));
}

#[test]
fn an_own_authority_is_trusted_where_it_is_named_and_not_elsewhere() {
    let Some(weed) = Weed::with(Options::new().tls()) else {
        return;
    };
    let bucket = weed.bucket();
    let table = bucket.table_at("s3", &weed.tls_endpoint());
    let ca = weed.certificates().ca.display();
    let trusting = store_of(&format!("{table}ca_file = \"{ca}\""));
    wait(trusting.put_new(&key("web/one/x"), "data".into())).unwrap();
    let error = wait(store_of(&table).list("")).unwrap_err();
    assert_eq!(error.problem, Problem::Denied);
    let failure = Failure::from(error);
    assert!(
        failure.causes[0].contains("authority that is not trusted"),
        "{failure:?}"
    );
    assert!(failure.hint.unwrap().contains("ca_file"));
    let no_ca = store_of(&format!(
        "{table}ca_file = \"{}\"",
        weed.certificates().server.1.display()
    ));
    let error = wait(no_ca.list("")).unwrap_err();
    assert!(
        format!("{:?}", error.source).contains("holds no certificate"),
        "{error:?}"
    );
}

#[test]
fn the_lock_of_a_single_object_is_over_in_the_end() {
    let Some(weed) = weed::shared() else { return };
    let bucket = weed.locking_bucket();
    let store = in_bucket(&bucket, "");
    let until = Timestamp::now().checked_add(2.seconds()).unwrap();
    let put = bucket
        .client()
        .put_object()
        .bucket(bucket.name())
        .key("web/one/manifest.json")
        .object_lock_mode(aws_sdk_s3::types::ObjectLockMode::Governance)
        .object_lock_retain_until_date(aws_sdk_s3::primitives::DateTime::from_secs(
            until.as_second() + 1,
        ))
        .body(Bytes::from_static(b"{}").into());
    wait(put.send()).unwrap();
    let object = key("web/one/manifest.json");
    let first = wait(store.delete(&object)).unwrap_err();
    assert_eq!(first.problem, Problem::Locked, "{first:?}");
    crate::support::poll::until("the lock ends", || wait(store.delete(&object)).ok());
    assert_eq!(versions(&bucket), 0);
}

#[test]
fn prune_leaves_what_is_locked_says_until_when_and_goes_on() {
    let Some(weed) = weed::shared() else { return };
    let bucket = weed.locking_bucket();
    let server = Server::start(usual());
    server.client().run_all(sessions(20));
    let program = Program::new("");
    let configure = |lines: &str| {
        program.configure(&format!(
            "{}{lines}\n[[database]]\nname = \"web\"\nurl = \"{}\"\nmethod = \"scan\"\nstorage = [\"s3\"]\n",
            bucket.table("s3"),
            server.url(),
        ));
    };
    let lock = "object_lock = { mode = \"GOVERNANCE\", days = 1 }";
    let id = |ran: Ran| ran.expect(0).json()[0]["id"].as_str().unwrap().to_owned();
    configure(lock);
    let locked = id(program.json(["backup", "now"]));
    configure("");
    let free = id(program.json(["backup", "now"]));
    let newest = id(program.json(["backup", "now"]));
    let text = std::fs::read_to_string(program.configuration()).unwrap();
    program.write_configuration(&format!("{text}keep = {{ last = 1 }}\n"));

    let pruned = program.run(["backup", "prune"]).expect(0);
    let line = pruned
        .stdout
        .lines()
        .find(|line| line.contains(&locked))
        .unwrap();
    assert!(
        line.contains("stays") && line.contains("locked until 20"),
        "{pruned:?}"
    );
    assert!(
        pruned.stdout.contains("removed 1 of 3 backups"),
        "{pruned:?}"
    );
    let listed = program.json(["backup", "list"]).expect(0).json();
    let ids: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["id"].as_str())
        .collect();
    assert_eq!(ids, [&locked, &newest]);
    program.run(["backup", "verify", "--all"]).expect(0);
    assert!(!bucket.keys().iter().any(|key| key.contains(&free)));

    let deleted = program
        .run(["backup", "delete", &locked, "--yes"])
        .expect(5);
    assert!(
        deleted.stderr.contains("it is locked until 20"),
        "{deleted:?}"
    );
    program.run(["backup", "verify", &locked]).expect(0);
    // What a person says of it can be said and taken back all the same.
    program.run(["backup", "pin", &locked]).expect(0);
    program.run(["backup", "unpin", &locked]).expect(0);
}

#[test]
fn a_backup_whose_data_alone_is_held_stays_whole() {
    let Some(weed) = weed::shared() else { return };
    let bucket = weed.locking_bucket();
    let server = Server::start(usual());
    server.client().run_all(sessions(20));
    let program = Program::new("");
    program.configure(&format!(
        "{}\n[[database]]\nname = \"web\"\nurl = \"{}\"\nmethod = \"scan\"\nstorage = [\"s3\"]\nkeep = {{ last = 1 }}\n",
        bucket.table("s3"),
        server.url(),
    ));
    let back_up = || {
        let made = program.json(["backup", "now"]).expect(0).json();
        made[0]["id"].as_str().unwrap().to_owned()
    };
    let held = back_up();
    let keys = bucket.keys();
    let is_dump = |key: &&String| key.contains(&held) && key.contains("dump.rdb");
    let dump = keys.iter().find(is_dump).unwrap();
    let hold = |status: ObjectLockLegalHoldStatus| {
        let hold = ObjectLockLegalHold::builder().status(status).build();
        let client = bucket.client();
        let put = client.put_object_legal_hold().bucket(bucket.name());
        wait(put.key(dump).legal_hold(hold).send()).unwrap();
    };
    hold(ObjectLockLegalHoldStatus::On);
    // The retention policy would remove the first one after this.
    back_up();
    let pruned = program.run(["backup", "prune"]).expect(0);
    assert!(pruned.stdout.contains("legal hold"), "{pruned:?}");
    program.run(["backup", "delete", &held, "--yes"]).expect(5);
    program.run(["backup", "verify", &held]).expect(0);
    hold(ObjectLockLegalHoldStatus::Off);
    program.run(["backup", "prune"]).expect(0);
    assert!(!bucket.keys().iter().any(|key| key.contains(&held)));
}

#[test]
fn check_finds_a_bucket_that_cannot_lock_and_one_that_locks_all_that_is_written() {
    use aws_sdk_s3::types::{
        DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockRetentionMode,
        ObjectLockRule,
    };
    let Some(weed) = weed::shared() else { return };
    let server = Server::start(usual());
    let said = |bucket: &Bucket, lines: &str| {
        let program = Program::new(&format!(
            "{}{lines}\n[[database]]\nname = \"web\"\nurl = \"{}\"\nstorage = [\"s3\"]\n",
            bucket.table("s3"),
            server.url(),
        ));
        program.run(["check"]).expect(1).stderr
    };
    let bucket = weed.bucket();
    let lock = "object_lock = { mode = \"GOVERNANCE\", days = 1 }";
    let told = said(&bucket, lock);
    assert!(
        told.contains("object lock must be switched on for the bucket"),
        "{told}"
    );
    assert_eq!(bucket.keys(), Vec::<String>::new());

    let bucket = weed.locking_bucket();
    let retention = DefaultRetention::builder()
        .mode(ObjectLockRetentionMode::Governance)
        .days(1)
        .build();
    let rule = ObjectLockRule::builder()
        .default_retention(retention)
        .build();
    let configuration = ObjectLockConfiguration::builder()
        .object_lock_enabled(ObjectLockEnabled::Enabled)
        .rule(rule)
        .build();
    let put = bucket
        .client()
        .put_object_lock_configuration()
        .bucket(bucket.name())
        .object_lock_configuration(configuration);
    wait(put.send()).unwrap();
    let told = said(&bucket, "");
    assert!(told.contains("drop its default retention"), "{told}");
}

#[test]
fn check_says_what_a_storage_does_not_honour() {
    let Some(weed) = weed::shared_open() else {
        return;
    };
    let bucket = weed.bucket();
    let proxy = Proxy::to(weed.port());
    let program = Program::new("");
    let server = Server::start(usual());
    program.configure(&format!(
        "{}\n[[database]]\nname = \"web\"\nurl = \"{}\"\n",
        bucket.table_at("s3", &proxy.endpoint()),
        server.url(),
    ));
    let checked = |text: &str| {
        let ran = program.run(["check", "--storage", "s3"]).expect(0);
        assert!(ran.stdout.contains("storage s3: works"), "{ran:?}");
        assert_eq!(
            ran.stdout.contains("prune from one host only"),
            text == "one host",
            "{ran:?}"
        );
        assert_eq!(
            ran.stdout.contains("no upload in parts"),
            text == "parts",
            "{ran:?}"
        );
        assert!(bucket.keys().is_empty(), "{:?}", bucket.keys());
        assert!(bucket.unfinished().is_empty());
    };
    checked("");
    let rule = |method, part: &str| {
        proxy.rule(Rule::new(method, part, Fault::Answer(501, "NotImplemented")).times(1))
    };
    rule("PUT", "/rdbkeeper-check/");
    checked("one host");
    proxy.heal();
    rule("POST", "uploads");
    checked("parts");
    proxy.heal();
    rule("GET", "versioning");
    checked("");
    proxy.heal();
    let document = program.json(["check", "--storage", "s3"]).expect(0).json();
    let storage = &document["storages"][0];
    assert_eq!(storage["create_only"], true, "{document}");
    assert_eq!(storage["versioned"], false, "{document}");
    assert_eq!(storage["multipart"], true, "{document}");
    assert!(
        storage["clock_ahead_seconds"].as_i64().unwrap().abs() < 30,
        "{document}"
    );
}
