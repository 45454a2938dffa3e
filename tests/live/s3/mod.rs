//! Off-site on a real S3 server: what it promises when everything works, and when nothing does.

mod access;
mod crash;
mod damage;
mod faults;
mod harness;
mod journey;
mod pace;
mod race;
mod refused;
mod two;

use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use rdbkeeper::config::{Config, Environment};
use serde_json::Value;

use crate::cmd;
use crate::support::data::{Random, sessions};
use crate::support::program::{Program, Ran};
use crate::support::proxy::Proxy;
use crate::support::servers::{Server, usual};
use crate::support::weed::{Bucket, Weed};

/// A source, a bucket of a server, and a program that backs the one up into the other by way of a proxy.
struct Offsite {
    server: Server,
    bucket: Bucket,
    proxy: Proxy,
    program: Program,
}

/// A backup that goes in one request.
fn small(server: &Server) {
    server.client().run_all(sessions(300));
}

/// A backup of some forty parts of a mebibyte each, and so of eight on the way to S3: nothing in it can be compressed.
fn large(server: &Server) {
    let mut random = Random::new(5);
    let keys = (0..38).map(|number| cmd!["SET", format!("blob:{number}"), random.bytes(1 << 20)]);
    server.client().run_all(keys.collect());
}

impl Offsite {
    fn new(weed: &Weed, fill: impl FnOnce(&Server)) -> Offsite {
        let server = Server::start(usual());
        fill(&server);
        let offsite = Offsite {
            bucket: weed.bucket(),
            proxy: Proxy::to(weed.port()),
            program: Program::new(""),
            server,
        };
        offsite.keep("");
        offsite
    }

    /// Writes the configuration, with more keys of the database.
    fn keep(&self, more: &str) {
        self.configure(&self.program, more);
    }

    fn configure(&self, program: &Program, more: &str) {
        let storage = self.bucket.table_at("offsite", &self.proxy.endpoint());
        let database = self.database(more);
        program.configure(&format!(
            "{storage}prefix = \"redis\"\npart_size = \"5MiB\"\n\n{database}"
        ));
    }

    fn database(&self, more: &str) -> String {
        format!(
            "[[database]]\nname = \"web\"\nurl = \"{}\"\nstorage = [\"offsite\"]\n{more}\n",
            self.server.url()
        )
    }

    /// Another place with the same configuration: another host, as far as the program can tell.
    fn elsewhere(&self, more: &str) -> Program {
        let program = Program::new("");
        self.configure(&program, more);
        program
    }

    /// Backs up; gives its ID.
    #[track_caller]
    fn backs_up(&self) -> String {
        let made = self.program.json(["backup", "now"]).expect(0).json();
        id(&made[0])
    }

    /// So many backups are listed, all are whole, and nothing is left that was begun.
    #[track_caller]
    fn must_hold(&self, expected: usize) {
        let listed = listed(&self.program);
        assert_eq!(listed.len(), expected, "{listed:?}");
        if expected > 0 {
            self.program.run(["backup", "verify", "--all"]).expect(0);
        }
        assert_eq!(self.bucket.unfinished(), Vec::<String>::new());
    }

    /// A backup fails as it should, and leaves nothing.
    #[track_caller]
    fn fails(&self, expected: &[&str]) -> Ran {
        let ran = self.program.run(["backup", "now"]).expect(1);
        says(&ran, expected);
        self.proxy.heal();
        self.must_hold(0);
        let left = self.bucket.keys();
        assert!(left.is_empty(), "{left:?} were left\n{}", ran.stderr);
        ran
    }
}

/// It said all of that, with a hint, and nothing of the secret.
#[track_caller]
fn says(ran: &Ran, expected: &[&str]) {
    let told = &ran.stderr;
    for text in expected.iter().chain(&["error: ", "  hint: "]) {
        assert!(told.contains(text), "{text:?} is missing in:\n{told}");
    }
    for secret in [crate::support::weed::SECRET, "Signature=", "Credential="] {
        assert!(!told.contains(secret), "{secret:?} is told in:\n{told}");
    }
}

fn id(backup: &Value) -> String {
    let id = backup["id"].as_str();
    id.unwrap_or_else(|| panic!("{backup}")).to_owned()
}

/// The IDs that are listed, oldest first.
#[track_caller]
fn listed(program: &Program) -> Vec<String> {
    let list = program.json(["backup", "list"]).expect(0).json();
    list.as_array().unwrap().iter().map(id).collect()
}

/// A program's configuration, as it reads it.
fn configuration(program: &Program) -> Config {
    let environment = Environment::in_folder(program.folder());
    rdbkeeper::setup::load(Some(&program.configuration()), &environment).unwrap()
}

/// A `Date` header that lies so far from now.
fn date(ahead: SignedDuration) -> String {
    let time = Timestamp::now().checked_add(ahead).unwrap();
    rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&time)
        .unwrap()
}
