//! Notices: told once, delivered when the receiver comes round, and never in a backup's way.

use std::fs;
use std::time::{Duration, Instant};

use crate::cmd;
use crate::support::program::{Program, Ran, files_below, finish};
use crate::support::receiver::{Answer, Heard, Receiver};
use crate::support::servers::{NOBODY, Options, Server, usual};

/// What stands in for a webhook's token.
const TOKEN: &str = "T0KEN-5ecret";

fn database(port: u16, notify: &str) -> String {
    format!(
        "[[database]]\nname = \"web\"\nurl = \"redis://127.0.0.1:{port}\"\nnotify = {{ {notify} }}\n"
    )
}

fn filled(keys: usize) -> Server {
    let server = Server::start(usual());
    fill(&server, keys);
    server
}

fn fill(server: &Server, keys: usize) {
    let mut client = server.client();
    client.run(cmd!["FLUSHALL"]);
    for number in 0..keys {
        client.run(cmd!["SET", format!("k{number}"), "1"]);
    }
}

fn events(heard: &[Heard]) -> Vec<String> {
    let event = |heard: &Heard| heard.json()["event"].as_str().unwrap().to_owned();
    heard.iter().map(event).collect()
}

#[test]
fn a_failing_job_is_told_once_and_its_recovery_once() {
    let receiver = Receiver::start(&[Answer::Status(204)]);
    let notify = format!("url = {:?}", receiver.url(&format!("/hooks/{TOKEN}")));
    let program = Program::new(&database(NOBODY, &notify));
    for _ in 0..3 {
        program.run(["backup", "now"]).expect(1);
    }
    let heard = receiver.heard();
    assert_eq!(events(&heard), ["failure"]);
    let first = &heard[0];
    assert_eq!(first.method, "POST");
    assert_eq!(first.path, format!("/hooks/{TOKEN}"));
    let agent = concat!("user-agent: rdbkeeper/", env!("CARGO_PKG_VERSION"));
    assert!(first.headers.contains(agent), "{}", first.headers);
    assert!(first.headers.contains("content-type: application/json"));
    let document = first.json();
    assert_eq!(document["task"], "backup");
    assert_eq!(document["database"], "web");
    assert_eq!(document["why"], "first");
    assert_eq!(document["error"]["kind"], "unreachable");
    assert_eq!(document["error"]["message"], "cannot back up web");
    // Another kind of failure is news.
    let locked = Server::with(usual(), Options::new().password("correct-horse"));
    program.configure(&database(locked.port(), &notify));
    program.run(["backup", "now"]).expect(1);
    assert_eq!(receiver.heard()[1].json()["why"], "other-kind");
    assert_eq!(receiver.heard()[1].json()["error"]["kind"], "auth");
    let server = filled(10);
    program.configure(&database(server.port(), &notify));
    for _ in 0..2 {
        program.run(["backup", "now"]).expect(0);
    }
    let heard = receiver.heard();
    assert_eq!(events(&heard), ["failure", "failure", "recovery"]);
    let document = heard[2].json();
    assert_eq!(document["since"], heard[0].json()["since"]);
    assert_eq!(document["backup"]["keys"], 10);
    assert_eq!(document["error"], serde_json::Value::Null);
}

#[test]
fn a_shrunk_backup_is_told_once() {
    let receiver = Receiver::start(&[Answer::Status(200)]);
    let server = filled(100);
    let notify = format!("url = {:?}", receiver.url("/"));
    let program = Program::new(&database(server.port(), &notify));
    program.run(["backup", "now"]).expect(0);
    fill(&server, 3);
    program.run(["backup", "now"]).expect(0);
    program.run(["backup", "now"]).expect(0);
    let heard = receiver.heard();
    assert_eq!(events(&heard), ["shrink"]);
    assert_eq!(heard[0].json()["backup"]["shrunk"], true);
    assert_eq!(heard[0].json()["backup"]["keys"], 3);
}

#[test]
fn a_notice_that_is_not_taken_is_sent_again_and_one_that_is_refused_is_not() {
    let server = filled(1);
    let receiver = Receiver::start(&[Answer::Status(500), Answer::Close, Answer::Status(200)]);
    let notify = format!("url = {:?}, on = [\"success\"]", receiver.url("/"));
    let program = Program::new(&database(server.port(), &notify));
    program.run(["backup", "now"]).expect(0);
    let heard = receiver.heard();
    assert_eq!(events(&heard), ["success"; 3]);
    assert_eq!(heard[0].body, heard[2].body);
    let refusing = Receiver::start(&[Answer::Status(404)]);
    let notify = format!("url = {:?}, on = [\"success\"]", refusing.url("/"));
    program.configure(&database(server.port(), &notify));
    let ran = program.run(["backup", "now"]).expect(0);
    assert_eq!(refusing.heard().len(), 1);
    assert!(ran.stderr.contains("answered 404"), "{}", ran.stderr);
}

#[test]
fn a_webhook_that_never_answers_neither_fails_nor_stalls_a_backup() {
    let receiver = Receiver::start(&[Answer::Silence]);
    let server = filled(1);
    let notify = format!(
        "url = {:?}, on = [\"success\", \"failure\"]",
        receiver.url("/")
    );
    let program = Program::new(&database(server.port(), &notify));
    let begun = Instant::now();
    let ran = program.run(["backup", "now"]).expect(0);
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(ran.stdout.contains("web"), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("could not be delivered"),
        "{}",
        ran.stderr
    );
    assert!(files_below(&program.archive()).len() >= 2);
}

#[test]
fn a_healthcheck_hears_start_success_and_failure_where_it_should() {
    let receiver = Receiver::start(&[Answer::Status(200)]);
    let server = filled(1);
    let url = receiver.url(&format!("/ping/{TOKEN}/?create=1"));
    let notify = format!("url = {url:?}, style = \"healthchecks\"");
    // A beginning that is over before it is sent is not sent: the first backup goes on until it was heard.
    let hooks = r#"hooks = { before = [["sh", "-c", "until [ -e heard ]; do sleep 0.05; done"]] }"#;
    let program = Program::new(&format!("{}{hooks}\n", database(server.port(), &notify)));
    let first = program.spawn(["backup", "now"]);
    let start = &receiver.hears(1)[0];
    assert_eq!(start.path, format!("/ping/{TOKEN}/start?create=1"));
    fs::write(program.folder().join("heard"), "").unwrap();
    finish(first).expect(0);
    program.configure(&database(NOBODY, &notify));
    program.run(["backup", "now"]).expect(1);
    program.run(["backup", "now"]).expect(1);
    let heard = receiver.heard();
    let paths: Vec<&str> = heard
        .iter()
        .map(|heard| heard.path.as_str())
        .filter(|path| !path.contains("/start"))
        .collect();
    let (good, bad) = (
        format!("/ping/{TOKEN}/?create=1"),
        format!("/ping/{TOKEN}/fail?create=1"),
    );
    assert_eq!(paths, [&good, &bad, &bad]);
    let last = heard.last().unwrap();
    assert!(last.body.contains("cannot back up web"), "{}", last.body);
}

fn hidden(ran: &Ran) {
    for secret in [TOKEN, "correct-horse"] {
        assert!(!ran.stdout.contains(secret), "{}", ran.stdout);
        assert!(!ran.stderr.contains(secret), "{}", ran.stderr);
    }
}

#[test]
fn the_token_of_a_webhook_shows_nowhere() {
    let server = Server::with(usual(), Options::new().password("correct-horse"));
    let closed = format!("http://127.0.0.1:{NOBODY}/{TOKEN}?t={TOKEN}");
    let refusing = Receiver::start(&[Answer::Status(410)]);
    let program = Program::new("");
    fs::write(program.folder().join("password"), "correct-horse\n").unwrap();
    fs::write(program.folder().join("url"), format!("{closed}\n")).unwrap();
    fs::write(program.folder().join("odd"), format!("hooks/{TOKEN}\n")).unwrap();
    for notify in [
        format!("url = {:?}", refusing.url(&format!("/{TOKEN}"))),
        "url_file = \"url\"".to_owned(),
        "url_file = \"odd\"".to_owned(),
        // Mistakes in the configuration show the line that they are in.
        format!("url = \"hooks.example.com/{TOKEN}\""),
        format!("url = {closed:?}, style = \"jsn\""),
        format!("url = {closed:?}, urk = 1"),
        format!("url = {closed:?} x"),
    ] {
        let notify = format!(
            "{notify}, on = [\"success\", \"failure\"] }}\npassword_file = \"password\"\nhooks = {{ after = []"
        );
        program.configure(&database(server.port(), &notify));
        for arguments in [
            &["-vv", "backup", "now"][..],
            &["-vv", "--log", "json", "--json", "backup", "now"],
            &["-vv", "status"],
            &["-vv", "--json", "status"],
        ] {
            hidden(&program.run(arguments));
        }
    }
    for file in files_below(&program.folder().join("state")) {
        let text = fs::read(program.folder().join("state").join(file)).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(TOKEN));
    }
}
