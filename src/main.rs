//! Command line, exit code.
fn main() {}
