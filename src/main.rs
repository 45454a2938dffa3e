//! The `rdbkeeper` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(rdbkeeper::cli::app::run(std::env::args_os()))
}
