//! The `roomcast` program; `roomcast::cli` has the command line.

use std::process::ExitCode;

/// Sessions are many small allocations that come and go; measured against the system's allocator in benches/README.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    roomcast::cli::main()
}
