//! A real Redis Cluster, and a program that writes events into the log's streams, as `docs/redis.md` says.

use super::process::{Redis, cpu};
use super::until;
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

const STARTING: Duration = Duration::from_secs(60);

/// Masters without replicas.
pub(crate) struct Cluster {
    masters: Vec<Redis>,
}

impl Cluster {
    /// Starts so many, at least three, and shares the slots out.
    pub(crate) fn start(masters: usize) -> Self {
        let masters: Vec<Redis> = (0..masters).map(|_| Redis::start_for_cluster()).collect();
        let addresses: Vec<String> = masters.iter().map(|master| format!("127.0.0.1:{}", master.port())).collect();
        let made =
            Command::new("redis-cli").args(["--cluster", "create"]).args(&addresses).arg("--cluster-yes").output();
        assert!(made.expect("redis-cli is installed").status.success(), "no Cluster could be made");
        let cluster = Self { masters };
        until("the Cluster to be up", STARTING, || {
            cluster.masters.iter().all(|master| master.ask("CLUSTER INFO").contains("cluster_state:ok"))
        });
        cluster
    }

    /// Where a node finds it.
    pub(crate) fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{}", self.masters[0].port())
    }

    /// CPU time of each master so far.
    pub(crate) fn cpus(&self) -> Vec<Duration> {
        self.masters.iter().map(|master| cpu(master.pid())).collect()
    }

    /// The port of the master that has a key.
    fn port_of(&self, key: &str) -> u16 {
        // An error names the slot's owner; its own answer is an integer.
        let owner = |master: &Redis| !master.ask(&format!("EXISTS {key}")).contains("MOVED");
        self.masters.iter().find(|master| owner(master)).expect("every slot has an owner").port()
    }
}

/// Writes events with pipelined `XADD`s.
pub(crate) struct Writer {
    partitions: usize,
    /// A connection for each stream: its key, and what waits to be written.
    streams: HashMap<usize, (String, TcpStream, Vec<u8>, usize)>,
}

impl Writer {
    /// For a log of so many partitions.
    pub(crate) fn new(cluster: &Cluster, partitions: usize) -> Self {
        let lines = if partitions > 1 { 1..=partitions } else { 0..=0 };
        let open = |line: usize| {
            let key = if line == 0 { "roomcast:events".to_owned() } else { format!("roomcast:events:{{{line}}}") };
            let stream =
                TcpStream::connect((Ipv4Addr::LOCALHOST, cluster.port_of(&key))).expect("redis-server listens");
            (line, (key, stream, Vec::new(), 0))
        };
        Self { partitions, streams: lines.map(open).collect() }
    }

    /// Writes events (room, JSON) and waits for every answer.
    pub(crate) fn write(&mut self, events: impl Iterator<Item = (String, String)>) {
        for (room, data) in events {
            let line = if self.partitions > 1 { crc32(room.as_bytes()) as usize % self.partitions + 1 } else { 0 };
            let (key, _, out, owed) = self.streams.get_mut(&line).expect("there is a stream for each partition");
            command(out, &["XADD", key, "*", "room", &room, "event", "message", "data", &data]);
            *owed += 1;
        }
        for (_, stream, out, _) in self.streams.values_mut() {
            stream.write_all(out).expect("redis-server reads");
            out.clear();
        }
        for (key, stream, _, owed) in self.streams.values_mut() {
            settle(stream, std::mem::take(owed), key);
        }
    }
}

/// Reads so many answers, each of which is an id: a length and a text.
fn settle(stream: &mut TcpStream, mut owed: usize, key: &str) {
    let mut buffer = [0; 64 << 10];
    owed *= 2;
    while owed > 0 {
        let count = stream.read(&mut buffer).expect("redis-server answers");
        let text = &buffer[..count];
        assert!(count > 0 && !text.starts_with(b"-"), "{key}: {}", String::from_utf8_lossy(text));
        owed -= memchr::memchr_iter(b'\n', text).count().min(owed);
    }
}

fn command(out: &mut Vec<u8>, words: &[&str]) {
    out.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        out.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
}

/// CRC-32 (IEEE), by which a room has its partition.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc: u32, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
