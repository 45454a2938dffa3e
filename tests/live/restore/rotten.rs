//! Values that are rotten inside, in a file whose structure and checksum are in order.

use std::path::PathBuf;
use std::sync::Arc;

use rdbkeeper::failure::Kind;
use rdbkeeper::restore::{self, Request};
use rdbkeeper::target::way::Mode;
use tokio_util::sync::CancellationToken;

use super::{endpoint, silent, wait};
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
            let failure = wait(restore::prepare(
                Arc::new(PlainFile(file.clone())),
                endpoint(&server),
                request,
                silent(),
                CancellationToken::new(),
            ))
            .unwrap_err();
            assert_eq!(failure.kind, Kind::Damaged, "{failure:?}");
            assert_eq!(server.client().run(cmd!["DBSIZE"]).int(), 0);
        }
    }
}
