//! A backup that becomes another while it is restored.

use rustix::process::Signal;

use crate::cmd;
use crate::support::data::sessions;
use crate::support::program::{Program, files_below, finish, paused_at, signal};
use crate::support::servers::{Server, usual};

/// Only the first reading makes digests; the later ones have to be of the same bytes.
#[test]
fn a_later_reading_of_what_is_not_what_was_checked_says_so() {
    let (server, target) = (Server::start(usual()), Server::start(usual()));
    for compression in ["none", "zstd:3"] {
        server.client().run_all(sessions(40));
        let program = Program::new("");
        program.write_configuration(&format!(
            "[storage.disk]\nkind = \"local\"\npath = {:?}\n[[database]]\nname = \"web\"\nurl = \"{}\"\ncompression = \"{compression}\"\n",
            program.archive(),
            server.url()
        ));
        program.run(["backup", "now"]).expect(0);
        let dump = |at: &str| {
            let files = files_below(&program.archive());
            let found = files.into_iter().find(|path| {
                let path = path.to_string_lossy();
                path.contains("/dump.rdb") && !path.contains(at)
            });
            program.archive().join(found.unwrap())
        };
        let first = dump("nothing");
        let folder = first.parent().unwrap().file_name().unwrap();
        let id = folder.to_string_lossy().into_owned();
        // As many bytes, one of which is another.
        let key = server.client().run(cmd!["RANDOMKEY"]).bytes();
        server.client().run(cmd!["SETRANGE", key, "0", "#"]);
        program.run(["backup", "now"]).expect(0);
        let second = dump(&id);

        let url = target.url();
        let words = [
            "restore", &id, "--to", &url, "--check", "all", "--flush", "--yes",
        ];
        program.run(words).expect(0);
        let child = paused_at(&program, "before-check", &words);
        std::fs::copy(&second, &first).unwrap();
        signal(&child, Signal::CONT);
        let told = finish(child).expect(3).stderr;
        assert!(
            told.contains("it is not what it was when it was checked"),
            "{told}"
        );
        assert!(told.contains("but not compared with the backup"), "{told}");
    }
}
