//! A backup that becomes another while it is restored.

use rustix::process::Signal;

use crate::cmd;
use crate::support::data::sessions;
use crate::support::program::{Program, finish, paused_at, signal};
use crate::support::servers::{Server, usual};

/// Only the first reading makes digests; the later ones have to be of the same bytes.
#[test]
fn a_later_reading_of_what_is_not_what_was_checked_says_so() {
    let (server, target) = (Server::start(usual()), Server::start(usual()));
    for (compression, object) in [("none", "dump.rdb"), ("zstd:3", "dump.rdb.zst")] {
        server.client().run_all(sessions(40));
        let program = Program::new("");
        program.write_configuration(&format!(
            "[storage.disk]\nkind = \"local\"\npath = {:?}\n[[database]]\nname = \"web\"\nurl = \"{}\"\ncompression = \"{compression}\"\n",
            program.archive(),
            server.url()
        ));
        let backed_up = || {
            let done = program.json(["backup", "now"]).expect(0).json();
            done[0]["id"].as_str().unwrap().to_owned()
        };
        let dump = |id: &str| program.archive().join("web").join(id).join(object);
        let first = backed_up();
        // As many bytes, one of which is another.
        let key = server.client().run(cmd!["RANDOMKEY"]).bytes();
        server.client().run(cmd!["SETRANGE", key, "0", "#"]);
        let second = backed_up();

        let url = target.url();
        let words = [
            "restore", &first, "--to", &url, "--check", "all", "--flush", "--yes",
        ];
        program.run(words).expect(0);
        let child = paused_at(&program, "before-check", &words);
        std::fs::copy(dump(&second), dump(&first)).unwrap();
        signal(&child, Signal::CONT);
        let told = finish(child).expect(3).stderr;
        assert!(
            told.contains("it is not what it was when it was checked"),
            "{told}"
        );
        assert!(told.contains("but not compared with the backup"), "{told}");
    }
}
