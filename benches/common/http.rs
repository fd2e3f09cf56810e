//! Publishing over keep-alive connections, from one thread that blocks: while it waits for one answer, the server has
//! the requests of the other connections.

use super::process::KEY;
use memchr::memmem;
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Posts to `/publish`; every answer is read and must be 200 without an error in it.
pub(crate) struct Poster {
    lanes: VecDeque<Lane>,
    depth: usize,
    content_type: &'static str,
}

struct Lane {
    stream: TcpStream,
    /// Requests that are written and not answered.
    owed: usize,
    /// Requests that are not written yet.
    queued: usize,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl Poster {
    /// Single events over so many connections, each with `depth` requests on the way at once.
    pub(crate) fn events(address: SocketAddr, connections: usize, depth: usize) -> Self {
        Self::new(address, connections, depth, "application/json")
    }

    /// Many events in a request, one a line.
    pub(crate) fn batches(address: SocketAddr, connections: usize) -> Self {
        Self::new(address, connections, 1, "application/x-ndjson")
    }

    fn new(address: SocketAddr, connections: usize, depth: usize, content_type: &'static str) -> Self {
        let lanes = (0..connections).map(|_| Lane::open(address)).collect();
        Self { lanes, depth, content_type }
    }

    /// Sends a body on the connection that was used longest ago, once that has its answers.
    pub(crate) fn send(&mut self, body: &[u8]) {
        let lane = self.lanes.front_mut().expect("there is a connection");
        lane.queue(body, self.content_type);
        if lane.queued == self.depth {
            lane.settle();
            lane.write();
            self.lanes.rotate_left(1);
        }
    }

    /// Writes what is queued and reads every answer.
    pub(crate) fn finish(&mut self) {
        for lane in &mut self.lanes {
            lane.settle();
            lane.write();
        }
        self.lanes.iter_mut().for_each(Lane::settle);
    }
}

impl Lane {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a TCP socket");
        Self { stream, owed: 0, queued: 0, out: Vec::new(), input: Vec::new() }
    }

    fn queue(&mut self, body: &[u8], content_type: &str) {
        write!(
            self.out,
            "POST /publish HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n\
             Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .expect("memory can be written");
        self.out.extend(body);
        self.queued += 1;
    }

    fn write(&mut self) {
        self.stream.write_all(&self.out).expect("the server keeps the connection");
        self.out.clear();
        self.owed += std::mem::take(&mut self.queued);
    }

    /// Reads every answer that is owed.
    fn settle(&mut self) {
        let mut buffer = [0; 16 << 10];
        while self.owed > 0 {
            let count = self.stream.read(&mut buffer).expect("the server answers");
            assert!(count > 0, "the server hung up on a publisher");
            self.input.extend(&buffer[..count]);
            let mut used = 0;
            while let Some(length) = answer(&self.input[used..]) {
                used += length;
                self.owed -= 1;
            }
            self.input.drain(..used);
        }
    }
}

/// The length of the answer at the start, if it is all here.
fn answer(input: &[u8]) -> Option<usize> {
    let head = memmem::find(input, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&input[..head]).expect("heads are ASCII");
    let after = text.split_once("ontent-length: ").or_else(|| text.split_once("ontent-Length: "));
    let length: usize = after.and_then(|(_, rest)| rest.split("\r\n").next()?.parse().ok()).expect("a length");
    let body = input.get(head..head + length)?;
    let fine = text.starts_with("HTTP/1.1 200") && memmem::find(body, b"\"error\"").is_none();
    assert!(fine, "a publish was refused: {text}{}", String::from_utf8_lossy(body));
    Some(head + length)
}

/// Calls `publish` with the number of each event at its time, so many a second from now on.
pub(crate) fn at_rate(per_second: usize, count: usize, mut publish: impl FnMut(usize)) {
    let start = Instant::now();
    for index in 0..count {
        super::pace(start + Duration::from_nanos(index as u64 * 1_000_000_000 / per_second as u64));
        publish(index);
    }
}

/// An event as a publisher writes it; `data` is JSON.
pub(crate) fn event(room: &str, data: &str) -> String {
    format!("{{\"room\":\"{room}\",\"event\":\"message\",\"data\":{data}}}")
}
