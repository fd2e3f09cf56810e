//! The measure of all costs here: a process that writes frames of the same size, each with one `write(2)`, and does
//! nothing else. The program of the bench is started a second time for it.

use super::http::at_rate;
use super::process::cpu;
use super::report::nanos_each;
use super::swarm::Swarm;
use super::websocket;
use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

const MOST: Duration = Duration::from_secs(120);
/// The argument by which the child knows that it is one; the count of sockets and the bytes of a frame follow.
const CHILD: &str = "--write-loop";

/// The write loop's process.
pub(crate) struct Loop {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Where it waits for all its subscribers.
    pub address: SocketAddr,
}

impl Loop {
    /// Starts it for so many subscribers.
    pub(crate) fn start(subscribers: usize, frame_bytes: usize) -> Self {
        let program = std::env::current_exe().expect("this program has a file");
        let mut child = Command::new(program)
            .args([CHILD, &subscribers.to_string(), &frame_bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started again");
        let input = child.stdin.take().expect("its input is a pipe");
        let mut output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let address = line(&mut output).parse().expect("it says its address first");
        Self { child, input, output, address }
    }

    /// So many rounds at a rate, or (0) at full speed, each of one frame to each of the next `width` subscribers.
    /// CPU nanoseconds a frame.
    pub(crate) fn write(&mut self, swarm: &mut Swarm, rounds: usize, width: usize, rate: usize) -> f64 {
        let before = cpu(self.child.id());
        writeln!(self.input, "{rounds} {width} {rate}").expect("the loop reads");
        swarm.receive(swarm.received() + rounds * width, MOST, |_, _| {});
        assert_eq!(line(&mut self.output), "done");
        nanos_each(cpu(self.child.id()) - before, rounds * width)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(input: &mut impl BufRead) -> String {
    let mut text = String::new();
    input.read_line(&mut text).expect("a pipe can be read");
    text.trim().to_owned()
}

fn numbers<'a>(words: impl Iterator<Item = &'a str>) -> Vec<usize> {
    words.map(|word| word.parse().expect("the parent sends numbers")).collect()
}

/// Whether this process is the child; then it has done its work.
pub(crate) fn is_child() -> bool {
    let arguments: Vec<String> = std::env::args().collect();
    let Some(at) = arguments.iter().position(|argument| argument == CHILD) else { return false };
    match numbers(arguments[at + 1..].iter().map(String::as_str))[..] {
        [subscribers, frame_bytes] => run(subscribers, frame_bytes),
        _ => panic!("{CHILD} takes two numbers"),
    }
    true
}

/// Accepts the subscribers, then writes as it is told, until its parent hangs up.
fn run(subscribers: usize, frame_bytes: usize) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the system has free ports");
    println!("{}", listener.local_addr().expect("a bound socket has an address"));
    let accept = |_| {
        let (stream, _) = listener.accept().expect("the parent connects");
        stream.set_nodelay(true).expect("a TCP socket");
        // The standard library sends on sockets with send(2); a file is written with write(2).
        File::from(OwnedFd::from(stream))
    };
    let mut files: Vec<File> = (0..subscribers).map(accept).collect();
    let frame = websocket::server_frame(&vec![b'x'; frame_bytes - if frame_bytes < 128 { 2 } else { 4 }]);
    let mut input = BufReader::new(std::io::stdin());
    loop {
        let order = line(&mut input);
        let &[rounds, width, rate] = &numbers(order.split_whitespace())[..] else { return };
        let mut round = |index: usize| {
            for offset in 0..width {
                files[(index * width + offset) % subscribers].write_all(&frame).expect("the parent reads");
            }
        };
        match rate {
            0 => (0..rounds).for_each(&mut round),
            rate => at_rate(rate, rounds, round),
        }
        println!("done");
    }
}
