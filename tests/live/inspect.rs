//! Looking inside a backup: keys, exports, differences, and what `backup show` adds up.

mod content;
mod diff;
mod export;
mod jsonl;
mod keys;
mod reader;

use std::path::PathBuf;

use crate::support::program::Program;
use crate::support::servers::{Kind, Server};

/// A place to run the program: files are what is looked into, and no server is asked.
pub fn program() -> Program {
    Program::new("[[database]]\nname = \"web\"\nurl = \"redis://127.0.0.1:1\"\n")
}

/// A place to run the program, and a file in it that a server of this kind wrote, filled by `fill`.
pub fn dumped(kind: &Kind, fill: impl FnOnce(&Server)) -> (Program, Server, PathBuf) {
    let program = program();
    let server = Server::start(kind);
    fill(&server);
    let path = program.folder().join("dump.rdb");
    std::fs::write(&path, server.save()).unwrap();
    (program, server, path)
}

/// A file that `redis-cli`, whichever there is, stands in; `None` after a visible line.
pub fn redis_cli() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join("redis-cli"));
    let found = installed.into_iter().find(|path| path.is_file());
    if found.is_none() {
        crate::support::servers::announce("redis-cli was not found, what needs it is skipped");
    }
    found
}
