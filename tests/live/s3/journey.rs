//! The main job with S3 behind it: back up, list, prove, restore, prune.

use crate::support::age::Key;
use crate::support::compare::assert_same;
use crate::support::data::fill;
use crate::support::poll;
use crate::support::program::{Program, finish, signal};
use crate::support::proxy::{Fault, Rule};
use crate::support::servers::{Server, usual};
use crate::support::weed::{self, Options, Weed};

use super::{Offsite, large, listed, small};

#[test]
fn what_is_backed_up_into_a_bucket_is_listed_proven_restored_and_pruned() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, |server| fill(&mut server.client(), server.kind()));
    let program = &offsite.program;
    let checked = program.run(["check"]).expect(0);
    assert!(checked.stdout.contains("s3://"), "{}", checked.stdout);
    assert_eq!(offsite.bucket.keys(), Vec::<String>::new());

    for method in ["bgsave", "replication", "scan"] {
        let made = program.json(["backup", "now", "--method", method]);
        let id = super::id(&made.expect(0).json()[0]);
        program.run(["backup", "show", &id]).expect(0);
        let target = Server::start(usual());
        program
            .run(["restore", &id, "--to", &target.url()])
            .expect(0);
        let (mut source, mut target) = (offsite.server.client(), target.client());
        assert_same(&mut source, &mut target, method);
    }
    offsite.must_hold(3);
    let newest = listed(program).pop().unwrap();
    let folder = format!("redis/web/{newest}/");
    let ours: Vec<String> = offsite.bucket.keys();
    assert!(ours.contains(&format!("{folder}manifest.json")), "{ours:?}");
    assert!(ours.iter().all(|key| key.starts_with("redis/web/")));

    let oldest = listed(program).remove(0);
    program.run(["backup", "pin", &oldest]).expect(0);
    offsite.keep("keep = { last = 1 }");
    let pruned = program.json(["backup", "prune"]).expect(0).json();
    assert_eq!(pruned[0]["removed"], 1, "{pruned}");
    assert_eq!(listed(program), [oldest.clone(), newest.clone()]);
    program.run(["backup", "unpin", &oldest]).expect(0);
    program
        .run(["backup", "delete", &oldest, "--yes"])
        .expect(0);
    let left = offsite.bucket.keys();
    assert!(left.iter().all(|key| key.starts_with(&folder)), "{left:?}");
    offsite.must_hold(1);
}

#[test]
fn what_the_keys_in_a_bucket_add_up_to_is_shown_when_it_is_asked_for() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let id = offsite.backs_up();
    let gets = || offsite.proxy.count("GET", "dump.rdb");
    let shown = offsite.program.json(["backup", "show", &id]).expect(0);
    assert!(shown.json().get("content").is_none());
    assert_eq!(gets(), 0);
    let line = ["backup", "show", &id, "--content"];
    let content = offsite.program.json(line).expect(0).json()["content"].take();
    assert_eq!(content["types"][0]["type"], "string");
    assert_eq!(content["types"][0]["keys"], 300);
    assert_eq!(content["prefixes"][0]["prefix"], "websauna_session*");
    assert_eq!(gets(), 1);
    let text = offsite.program.run(line).expect(0).stdout;
    assert!(text.contains("LARGEST") && text.contains(&id), "{text}");

    // What breaks on its way is a failure that shows the facts all the same.
    offsite
        .proxy
        .rule(Rule::new("GET", "dump.rdb", Fault::Flip(1000)));
    let broken = offsite.program.json(line).expect(3);
    assert_eq!(broken.json()["content"]["error"]["kind"], "damaged");
    assert_eq!(broken.json()["id"], id);
    offsite.proxy.heal();
    offsite.proxy.rule(Rule::new(
        "GET",
        "dump.rdb",
        Fault::Answer(403, "AccessDenied"),
    ));
    let refused = offsite.program.json(line).expect(1);
    assert_eq!(refused.json()["content"]["error"]["kind"], "storage");
}

#[test]
fn a_large_backup_goes_in_parts_and_comes_back_the_same() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, large);
    let id = offsite.backs_up();
    assert_eq!(offsite.proxy.count("PUT", "partNumber=8"), 1);
    let target = Server::start(usual());
    offsite
        .program
        .run(["restore", &id, "--to", &target.url()])
        .expect(0);
    assert_same(
        &mut offsite.server.client(),
        &mut target.client(),
        "in parts",
    );
    offsite.must_hold(1);
}

#[test]
fn an_encrypted_backup_goes_in_parts_is_copied_without_the_key_and_comes_back_with_it() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, large);
    let program = &offsite.program;
    let warned = |program: &Program| {
        let said = program.run(["check"]).expect(0).stdout;
        said.contains("backups go to storage offsite unencrypted: set `recipients`")
    };
    assert!(warned(program));
    let key = Key::new();
    offsite.keep(&format!("recipients = [\"{}\"]", key.public));
    assert!(!warned(program));
    let id = offsite.backs_up();
    assert_eq!(offsite.proxy.count("PUT", "partNumber=8"), 1);

    program
        .run(["backup", "copy", &id, "--to", "disk"])
        .expect(0);
    std::fs::write(program.folder().join("key"), key.file()).unwrap();
    for storage in ["offsite", "disk"] {
        let target = Server::start(usual());
        let (to, from) = (target.url(), ["--storage", storage]);
        let restore = ["restore", &id, "--to", &to];
        let refused = program.run(restore.into_iter().chain(from)).expect(1);
        assert!(refused.stderr.contains("--identity"), "{}", refused.stderr);
        let with_key = ["--identity", "key"];
        program
            .run(restore.into_iter().chain(from).chain(with_key))
            .expect(0);
        assert_same(&mut offsite.server.client(), &mut target.client(), storage);
    }
}

#[test]
fn a_small_backup_is_one_request_for_its_data_and_one_for_its_manifest() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    offsite.backs_up();
    assert_eq!(
        offsite.proxy.count("PUT", ""),
        2,
        "{:?}",
        offsite.proxy.log()
    );
    assert_eq!(offsite.proxy.count("POST", ""), 0);
}

#[test]
fn a_configuration_that_is_lost_loses_no_backup() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let id = offsite.backs_up();
    let elsewhere = offsite.elsewhere("");
    assert_eq!(listed(&elsewhere), [id]);
    elsewhere.run(["backup", "verify", "--all"]).expect(0);
    elsewhere
        .run(["restore", "web", "--to-file", "out.rdb"])
        .expect(0);
    assert!(elsewhere.folder().join("out.rdb").exists());
}

#[test]
fn the_daemon_backs_up_into_a_bucket_and_is_healthy() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    offsite.keep("schedule = \"0 0 1 1 *\"");
    let program = &offsite.program;
    let daemon = program.spawn(["run"]);
    poll::until("a backup of the daemon's", || {
        (listed(program).len() == 1).then_some(())
    });
    poll::until("it is healthy", || {
        (program.run(["status"]).code == Some(0)).then_some(())
    });
    signal(&daemon, rustix::process::Signal::TERM);
    finish(daemon).expect(0);
    offsite.must_hold(1);
}

#[test]
fn a_server_with_tls_and_its_own_authority_works_by_ca_file() {
    let Some(weed) = Weed::with(Options::new().tls()) else {
        return;
    };
    let server = Server::start(usual());
    small(&server);
    let bucket = weed.bucket();
    let table = bucket.table_at("offsite", &weed.tls_endpoint());
    let program = Program::new(&format!(
        "{table}ca_file = {:?}\n\n[[database]]\nname = \"web\"\nurl = \"{}\"\nstorage = [\"offsite\"]\n",
        weed.certificates().ca,
        server.url(),
    ));
    program.run(["backup", "now"]).expect(0);
    program.run(["backup", "verify"]).expect(0);
}

#[test]
fn a_thousand_foreign_objects_under_the_prefix_are_in_nobodys_way() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let client = offsite.bucket.client();
    let foreign: Vec<String> = (0..1200)
        .map(|number| match number % 4 {
            0 => format!("redis/web/notes-{number}"),
            1 => format!("redis/web/folder {number}/manifest.json"),
            2 => format!("redis/other//{number}/.hidden"),
            _ => format!("redis-too/web/{number}"),
        })
        .collect();
    weed::wait(async {
        for some in foreign.chunks(32) {
            let puts = some.iter().map(|key| {
                let put = client.put_object().bucket(offsite.bucket.name()).key(key);
                put.body(b"{}".to_vec().into()).send()
            });
            for done in futures_util::future::join_all(puts).await {
                done.unwrap();
            }
        }
    });
    let before = offsite.bucket.keys().len();
    let first = offsite.backs_up();
    offsite.backs_up();
    offsite.must_hold(2);
    offsite.keep("keep = { last = 1 }");
    offsite.program.run(["backup", "prune"]).expect(0);
    assert!(!listed(&offsite.program).contains(&first));
    offsite.must_hold(1);
    assert_eq!(offsite.bucket.keys().len(), before + 2);
}

#[test]
fn a_server_that_knows_no_create_only_requests_is_served_and_told_of() {
    let Some(weed) = weed::shared_open() else {
        return;
    };
    let offsite = Offsite::new(weed, small);
    // One that ignores the header.
    offsite
        .proxy
        .rule(Rule::new("", "", Fault::Strip("if-none-match")));
    let checked = offsite.program.run(["check"]);
    let told = format!("{}{}", checked.stdout, checked.stderr);
    assert!(told.contains("prune from one host"), "{told}");
    offsite.backs_up();
    offsite.must_hold(1);

    // One that refuses it.
    offsite.proxy.heal();
    let refused = offsite
        .proxy
        .rule(Rule::new("PUT", "/redis/web/", Fault::Answer(501, "NotImplemented")).times(1));
    offsite.backs_up();
    assert_eq!(refused.hits(), 1);
    offsite.must_hold(2);
}
