//! R4 over S3: every kind of damage to every object is found by verify and by restore, and the target stays untouched.
//! An encrypted backup is found damaged with its key and without.

use crate::cmd;
use crate::support::age::Key;
use crate::support::data::Random;
use crate::support::servers::{Server, usual};
use crate::support::weed;

use super::{Offsite, small};

#[test]
fn damage_to_any_object_in_the_bucket_is_found_by_verify_and_by_restore() {
    damage_is_found("", &[]);
}

#[test]
fn damage_to_an_encrypted_backup_in_the_bucket_is_found_with_its_key_and_without() {
    let key = Key::new();
    let keys = format!("recipients = [\"{}\"]\n", key.public);
    let with_identity = format!("{keys}identity = \"{}\"\n", key.secret);
    damage_is_found(&with_identity, &[&keys]);
}

/// With this configuration of the database; what each of the `others` can find by verify alone, it finds.
#[track_caller]
fn damage_is_found(more: &str, others: &[&str]) {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    offsite.keep(more);
    let others: Vec<_> = others.iter().map(|more| offsite.elsewhere(more)).collect();
    let (program, bucket) = (&offsite.program, &offsite.bucket);
    let target = Server::start(usual());
    target.client().run(cmd!["SET", "mine", "untouched"]);
    let url = target.url();
    let id = offsite.backs_up();
    offsite.server.client().run(cmd!["SET", "one", "more"]);
    let other = offsite.backs_up();
    let mut random = Random::new(4);
    let folder = format!("redis/web/{id}/");
    let objects: Vec<String> = bucket
        .keys()
        .into_iter()
        .filter(|key| key.starts_with(&folder))
        .collect();
    assert_eq!(objects.len(), 2, "{objects:?}");
    for key in &objects {
        let whole = bucket.get(key);
        let at = random.below(whole.len());
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << random.below(8);
        let damages = [
            ("flipped", Some(flipped)),
            ("cut", Some(whole[..at].to_vec())),
            ("extended", Some([&whole[..], b"\0"].concat())),
            ("emptied", Some(Vec::new())),
            ("gone", None),
            ("swapped", Some(bucket.get(&key.replace(&id, &other)))),
        ];
        for (what, damaged) in damages {
            match damaged {
                Some(damaged) => bucket.put(key, damaged),
                None => bucket.delete(key),
            }
            let verify = vec!["backup", "verify", &id];
            let elsewhere = others.iter().map(|other| (other, verify.clone()));
            let here = [
                (program, verify.clone()),
                (program, vec!["restore", &id, "--to", &url]),
                (program, vec!["restore", &id, "--to-file", "out.rdb"]),
            ];
            for (program, arguments) in here.into_iter().chain(elsewhere) {
                let ran = program.run(&arguments);
                // A backup without a manifest is none.
                let found = match (what, key.ends_with("manifest.json")) {
                    ("gone", true) => matches!(ran.code, Some(3 | 4)),
                    _ => ran.code == Some(3),
                };
                assert!(found, "{key} {what} at {at}: {arguments:?}: {ran:?}");
            }
            assert!(!program.folder().join("out.rdb").exists());
            assert_eq!(
                target.client().run(cmd!["GET", "mine"]).text(),
                "untouched",
                "{key} {what}: the target was touched"
            );
            bucket.put(key, whole.clone());
        }
    }
    offsite.must_hold(2);
}
