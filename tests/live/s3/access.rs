//! How a server is reached: where the credentials come from, the bucket in the path or in the host name, a proxy, and
//! checksums on what is sent.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::program::Program;
use crate::support::proxy::{Fault, Proxy, Rule};
use crate::support::servers::{NOBODY, Server, usual};
use crate::support::weed::{self, ADMIN, Bucket, SECRET};

use super::{Offsite, says, small};

/// A program whose storage is this bucket, with these lines in the place of its keys, and an empty home.
fn without_keys(bucket: &Bucket, server: &Server, lines: &str) -> Program {
    let table = bucket.table("offsite");
    let kept = |line: &&str| !line.contains("access_key");
    let table: Vec<&str> = table.lines().filter(kept).collect();
    let mut program = Program::new(&format!(
        "{}\n{lines}\n\n[[database]]\nname = \"web\"\nurl = \"{}\"\nstorage = [\"offsite\"]\n",
        table.join("\n"),
        server.url()
    ));
    let home = program.folder().join("home");
    fs::create_dir_all(home.join(".aws")).unwrap();
    program.env("HOME", home.to_str().unwrap());
    // Nobody waits for an EC2 that is not there.
    program.env("AWS_EC2_METADATA_DISABLED", "true");
    program
}

#[test]
fn credentials_are_found_where_the_tools_of_aws_look_for_them() {
    let Some(weed) = weed::shared() else { return };
    let server = Server::start(usual());
    small(&server);
    let bucket = weed.bucket();
    let works = |program: &Program, how: &str| {
        let ran = program.run(["backup", "now"]);
        assert_eq!(ran.code, Some(0), "{how}: {ran:?}");
        program.run(["backup", "verify"]).expect(0);
    };

    let mut program = without_keys(&bucket, &server, "");
    let ran = program.run(["backup", "now"]).expect(1);
    says(&ran, &["no credentials were found", "AWS_PROFILE"]);
    program.env("AWS_ACCESS_KEY_ID", ADMIN);
    program.env("AWS_SECRET_ACCESS_KEY", SECRET);
    works(&program, "the environment");

    let keys = format!("aws_access_key_id = {ADMIN}\naws_secret_access_key = {SECRET}\n");
    let mut program = without_keys(&bucket, &server, "");
    let aws = program.folder().join("home/.aws");
    fs::write(aws.join("credentials"), format!("[backups]\n{keys}")).unwrap();
    program.run(["backup", "now"]).expect(1);
    program.env("AWS_PROFILE", "backups");
    works(&program, "a profile");

    let mut program = without_keys(&bucket, &server, "");
    let aws = program.folder().join("home/.aws");
    let given = format!(
        "#!/bin/sh\necho '{{\"Version\": 1, \"AccessKeyId\": \"{ADMIN}\", \"SecretAccessKey\": \"{SECRET}\"}}'\n"
    );
    let script = aws.join("give");
    fs::write(&script, given).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let profile = format!(
        "[profile vault]\ncredential_process = {}\n",
        script.display()
    );
    fs::write(aws.join("config"), profile).unwrap();
    program.env("AWS_PROFILE", "vault");
    works(&program, "a program of a profile");
}

#[test]
fn keys_come_from_files_and_from_credentials_of_systemd() {
    let Some(weed) = weed::shared() else { return };
    let server = Server::start(usual());
    small(&server);
    let bucket = weed.bucket();
    let files = "access_key_id_file = \"s3-key\"\nsecret_access_key_file = \"s3-secret\"";
    let mut program = without_keys(&bucket, &server, files);
    fs::write(program.folder().join("s3-key"), format!("{ADMIN}\n")).unwrap();
    let ran = program.run(["backup", "now"]).expect(1);
    says(&ran, &["`secret_access_key`", "s3-secret"]);

    // One that stands beside the configuration is passed over for a credential.
    fs::write(program.folder().join("s3-secret"), "another").unwrap();
    let handed = tempfile::tempdir().unwrap();
    fs::write(handed.path().join("s3-secret"), SECRET).unwrap();
    program.env("CREDENTIALS_DIRECTORY", handed.path().to_str().unwrap());
    program.run(["backup", "now"]).expect(0);
    program.run(["backup", "verify"]).expect(0);
}

#[test]
fn the_bucket_goes_into_the_host_name_where_that_is_wanted_and_a_proxy_is_used() {
    let Some(weed) = weed::shared() else { return };
    let bucket = weed.bucket();
    let proxy = Proxy::to(weed.port());
    // No name server knows this host: only the proxy is ever asked.
    let table = bucket.table_at("offsite", "http://s3.rdbkeeper.test");
    let database =
        "[[database]]\nname = \"web\"\nurl = \"redis://127.0.0.1:1\"\nstorage = [\"offsite\"]\n";
    for (path_style, expected) in [
        (
            "true",
            format!("http://s3.rdbkeeper.test/{}/", bucket.name()),
        ),
        (
            "false",
            format!("http://{}.s3.rdbkeeper.test/", bucket.name()),
        ),
    ] {
        let table = table.replace("path_style = true", &format!("path_style = {path_style}"));
        let mut program = Program::new(&format!("{table}\n{database}"));
        program.env("HTTP_PROXY", &proxy.endpoint());
        program.run(["check", "--storage", "offsite"]);
        assert!(
            proxy.count("PUT", &format!("{expected}rdbkeeper-check/")) > 0,
            "{expected}: {:?}",
            proxy.log()
        );
    }
    // Whoever listens there is no proxy that lets TLS through.
    let mut program = Program::new(&format!(
        "{}\n{database}",
        table.replace("http://", "https://")
    ));
    program.env("HTTPS_PROXY", &format!("http://127.0.0.1:{NOBODY}"));
    let ran = program.run(["check", "--storage", "offsite"]);
    assert!(ran.stderr.contains("the proxy does not let"), "{ran:?}");
}

#[test]
fn a_server_that_refuses_checksums_is_told_of_and_served_without() {
    let Some(weed) = weed::shared() else { return };
    let offsite = Offsite::new(weed, super::large);
    let refused = Fault::Answer(400, "InvalidDigest");
    let with = |part: &str| {
        let refused = Rule::new("", part, refused.clone());
        offsite.proxy.rule(refused.with_header("x-amz-checksum"))
    };
    let rule = with("rdbkeeper-check/");
    let checked = offsite.program.run(["check"]).expect(1);
    let told = format!("{}{}", checked.stdout, checked.stderr);
    assert!(told.contains("`checksums = false`"), "{told}");
    assert!(rule.hits() > 0);

    offsite.proxy.heal();
    let (rule, others) = (with(""), Rule::new("", "", refused.clone()));
    let others = offsite.proxy.rule(others.with_header("x-amz-sdk-checksum"));
    let text = fs::read_to_string(offsite.program.configuration()).unwrap();
    let without = text.replace("prefix = ", "checksums = false\nprefix = ");
    offsite.program.write_configuration(&without);
    offsite.program.run(["check"]).expect(0);
    offsite.backs_up();
    offsite.must_hold(1);
    assert_eq!((rule.hits(), others.hits()), (0, 0));
}
