//! A small server beside which roomcast is measured: the program of the bench, started a second time.

use super::process::cpu;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child as Process, Command, Stdio};
use std::time::Duration;

/// Its process, which ends with its owner.
pub(crate) struct Child {
    process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Child {
    /// Starts it with the argument by which it knows what it is. It prints its address first.
    pub(crate) fn start(argument: &str) -> Self {
        let program = std::env::current_exe().expect("this program has a file");
        let mut command = Command::new(program);
        let mut process =
            command.arg(argument).stdout(Stdio::piped()).spawn().expect("this program can be started again");
        let mut address = String::new();
        let output = process.stdout.take().expect("its output is a pipe");
        BufReader::new(output).read_line(&mut address).expect("a pipe can be read");
        Self { process, address: address.trim().parse().expect("it says its address first") }
    }

    /// CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu(self.process.id())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether this process was started with that argument.
pub(crate) fn is(argument: &str) -> bool {
    std::env::args().any(|given| given == argument)
}
