//! Values that are rotten inside, in a file whose structure and checksum are in order.

use std::path::PathBuf;
use std::sync::Arc;

use rdbkeeper::failure::Kind;
use rdbkeeper::restore::Request;
use rdbkeeper::target::way::Mode;

use super::{endpoint, prepare, wait};
use crate::cmd;
use crate::support::backup::PlainFile;
use crate::support::servers::{self, Server};

/// Its checksum is disabled, and a hash in it is a ziplist that ends in the middle: a server of 6.0 dies of that value.
#[test]
fn a_rotten_value_is_found_before_any_server_is_given_it() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus/rdb/redis/corrupt_ziplist.rdb");
    for kind in servers::available() {
        let server = Server::start(kind);
        for mode in [Mode::Auto, Mode::Restore, Mode::Commands] {
            let request = Request {
                mode,
                ..Request::default()
            };
            let backup = Arc::new(PlainFile(file.clone()));
            let failure = wait(prepare(backup, endpoint(&server), request)).unwrap_err();
            assert_eq!(failure.kind, Kind::Damaged, "{failure:?}");
            assert_eq!(server.client().run(cmd!["DBSIZE"]).int(), 0);
        }
    }
}

#[test]
fn the_command_says_that_nothing_was_written() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/corpus/rdb/redis/corrupt_ziplist.rdb"
    );
    let program = crate::support::program::Program::new(
        "[[database]]\nname = \"it\"\nurl = \"redis://127.0.0.1:1\"\n",
    );
    let server = Server::start(servers::usual());
    for mode in ["auto", "commands"] {
        let url = server.url();
        let words = ["restore", file, "--to", &url, "--mode", mode];
        let told = program.run(words).expect(3).stderr;
        assert_eq!(told.matches("nothing was written").count(), 1, "{told}");
    }
}
