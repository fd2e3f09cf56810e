//! `roomcast completions` and `roomcast man`, generated from the definition of the command line.

use crate::cli::{Arguments as CommandLine, Failure};
use clap::CommandFactory as _;
use clap_complete::Shell;
use std::io::Write as _;

#[derive(clap::Args)]
pub(super) struct Arguments {
    shell: Shell,
}

pub(super) fn completions(arguments: &Arguments) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "roomcast", &mut text);
    print(&text)
}

pub(super) fn man() -> Result<(), Failure> {
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(CommandLine::command());
    page.render(&mut text).map_err(Failure::at_run_time)?;
    print(&text)
}

/// Writes to stdout. A closed pipe is not an error.
fn print(text: &[u8]) -> Result<(), Failure> {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::at_run_time(error)),
        _ => Ok(()),
    }
}
