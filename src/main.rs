//! The `roomcast` program; `roomcast::cli` has the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    roomcast::cli::main()
}
