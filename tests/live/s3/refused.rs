//! R3: a server that says no, or cannot be reached: one clear error with a hint, and nothing left.

use std::net::Ipv4Addr;

use jiff::SignedDuration;

use crate::support::program::Program;
use crate::support::proxy::{Fault, Rule, relay};
use crate::support::servers::{NOBODY, Server, usual};
use crate::support::tls::Certificates;
use crate::support::weed::{self, Options, READER, SECRET, Weed};

use super::{Offsite, listed, says, small};

/// The program with this table for its storage: these are the words in its error.
#[track_caller]
fn refused_once(server: &Server, table: &str, expected: &[&str]) -> Program {
    let program = Program::new(&format!(
        "{table}\n[[database]]\nname = \"web\"\nurl = \"{}\"\nstorage = [\"offsite\"]\n",
        server.url()
    ));
    says(&program.run(["backup", "now"]).expect(1), expected);
    program
}

/// The same, as JSON and by `check`, too.
#[track_caller]
fn refused(server: &Server, table: &str, expected: &[&str]) {
    let program = refused_once(server, table, expected);
    let json = program.json(["backup", "now"]).expect(1).json();
    assert!(json.to_string().contains("\"hint\":\""), "{json}");
    let checked = program.run(["check"]).expect(1);
    let told = format!("{}{}", checked.stdout, checked.stderr);
    assert!(told.contains(expected[0]), "check says:\n{told}");
}

#[test]
fn a_bucket_or_a_key_that_the_server_does_not_know_is_named() {
    let Some(weed) = weed::shared() else { return };
    let server = Server::start(usual());
    small(&server);
    let bucket = weed.bucket();
    let table = bucket.table("offsite");
    let missing = table.replace(bucket.name(), "no-such-bucket");
    refused(&server, &missing, &["there is no bucket `no-such-bucket`"]);
    let key = table.replace("test-admin", "test-nobody");
    refused(&server, &key, &["does not know the access key"]);
    let secret = table.replace(SECRET, "another-secret");
    refused(&server, &secret, &["the secret key does not fit"]);
    assert_eq!(bucket.keys(), Vec::<String>::new());
}

#[test]
fn a_key_that_may_only_read_restores_and_is_told_what_it_lacks() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let id = offsite.backs_up();
    let table = offsite
        .bucket
        .table_as("offsite", &offsite.proxy.endpoint(), READER);
    let reader = Program::new(&format!(
        "{table}prefix = \"redis\"\n\n{}",
        offsite.database("keep = { last = 1 }")
    ));
    let ran = reader.run(["backup", "now"]).expect(1);
    says(&ran, &["s3:PutObject"]);
    assert_eq!(listed(&reader), [id.clone()]);
    reader.run(["backup", "verify"]).expect(0);
    reader
        .run(["restore", "web", "--to-file", "out.rdb"])
        .expect(0);
    let ran = reader.run(["backup", "delete", &id, "--yes"]).expect(1);
    says(&ran, &["s3:DeleteObject"]);
    offsite.must_hold(1);
}

#[test]
fn what_a_server_answers_is_told_in_plain_words() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let header = "x-amz-bucket-region: eu-west-3".to_owned();
    let denied = Fault::Answer(403, "AccessDenied");
    let rule = offsite.proxy.rule(Rule::new("PUT", "", denied));
    offsite.fails(&["s3:PutObject", "`bucket-"]);
    assert!(rule.hits() > 0);
    for (fault, expected) in [
        (
            Fault::Answer(400, "ExpiredToken"),
            "the credentials have run out",
        ),
        (
            Fault::AnswerWith(301, "PermanentRedirect", header),
            "is in region eu-west-3",
        ),
        (Fault::Answer(403, "AccessDenied"), "s3:ListBucket"),
        (Fault::Answer(403, "AllAccessDisabled"), "AllAccessDisabled"),
        (Fault::Answer(400, "InvalidStorageClass"), "`storage_class`"),
        (Fault::Answer(507, "XMinioStorageFull"), "make room there"),
    ] {
        offsite.proxy.rule(Rule::new("", "", fault));
        offsite.fails(&[expected]);
    }
}

#[test]
fn a_clock_that_is_off_is_told_or_made_up_for() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, small);
    let header = format!("Date: {}", date(20));
    let skewed = Fault::AnswerWith(403, "RequestTimeTooSkewed", header);
    offsite.proxy.rule(Rule::new("", "", skewed));
    offsite.fails(&["this host's clock is not the server's", "behind"]);
}

fn date(minutes: i64) -> String {
    super::date(SignedDuration::from_mins(minutes))
}

#[test]
fn a_certificate_that_does_not_fit_is_told() {
    let Some(weed) = Weed::with(Options::new().tls()) else {
        return;
    };
    let server = Server::start(usual());
    small(&server);
    let bucket = weed.bucket();
    let folder = tempfile::tempdir().unwrap();
    let others = Certificates::make(folder.path());
    let by_ca = |endpoint: &str, ca: &std::path::Path| {
        format!("{}ca_file = {ca:?}\n", bucket.table_at("offsite", endpoint))
    };
    let ours = &weed.certificates().ca;
    refused(
        &server,
        &by_ca(&weed.tls_endpoint(), &others.ca),
        &["an authority that is not trusted here", "`ca_file"],
    );
    refused(
        &server,
        &bucket.table_at("offsite", &weed.tls_endpoint()),
        &["an authority that is not trusted here", "ca_file"],
    );
    let address = Ipv4Addr::new(127, 0, 0, 2);
    let port = relay(address, weed.tls_port());
    refused(
        &server,
        &by_ca(&format!("https://{address}:{port}"), ours),
        &["is for another host name"],
    );
    refused_once(
        &server,
        &by_ca(&format!("https://localhost:{}", weed.port()), ours),
        &["no TLS connection"],
    );
}

#[test]
fn a_port_at_which_nobody_listens_is_told() {
    let Some(weed) = weed::shared() else { return };
    let server = Server::start(usual());
    small(&server);
    let bucket = weed.bucket();
    let endpoint = format!("http://127.0.0.1:{NOBODY}");
    refused(
        &server,
        &bucket.table_at("offsite", &endpoint),
        &[&endpoint],
    );
}
