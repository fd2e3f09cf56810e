//! The least that a server could do: one thread around epoll that does the same work as roomcast with none of its
//! promises. It checks nothing, stores nothing and gives up on a full socket. What roomcast costs more is the price of
//! authentication, the log, recovery, bounds and metrics. The program of the bench is started a second time for it.
//!
//! A Socket.IO client's token is the name of its one room here. `POST /publish` goes to the members of its room before it
//! is answered; a client's event goes to the members of the client's room and is not answered.

use super::child;
use super::child::Child;
use super::websocket::{client_payload, server_frame};
use memchr::memmem;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Ipv4Addr;

/// The argument by which the child knows that it is one.
const CHILD: &str = "--floor";
/// As long as the offset of an event.
const OFFSET: &str = "e7k2a9c1-1795225216959-0";
const OPEN: &[u8] = b"0{\"sid\":\"abcdefghijklmnopqrst\",\"upgrades\":[],\"pingInterval\":3600000,\"pingTimeout\":20000,\"maxPayload\":1000000}";
const CONNECTED: &[u8] = b"40{\"sid\":\"abcdefghijklmnopqrst\",\"pid\":\"abcdefghijklmnopqrst\"}";
const UPGRADE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const LISTENER: Token = Token(usize::MAX);

/// Starts the floor.
pub(crate) fn start() -> Child {
    Child::start(CHILD)
}

/// Whether this process is the child; it serves until it is killed.
pub(crate) fn is_child() -> bool {
    let asked = child::is(CHILD);
    if asked {
        Server::new().run();
    }
    asked
}

/// A connection: of a publisher, or of a client once it has upgraded.
struct Peer {
    stream: TcpStream,
    is_client: bool,
    /// The client's room.
    room: Option<usize>,
    /// The start of a message that is not all here.
    partial: Vec<u8>,
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    peers: Vec<Peer>,
    rooms: HashMap<String, usize>,
    members: Vec<Vec<usize>>,
}

impl Server {
    fn new() -> Self {
        let poll = Poll::new().expect("the system has epoll");
        let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("the system has free ports");
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).expect("epoll takes a socket");
        println!("{}", listener.local_addr().expect("a bound socket has an address"));
        Self { poll, listener, peers: Vec::new(), rooms: HashMap::new(), members: Vec::new() }
    }

    fn run(&mut self) {
        let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; 256 << 10]);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.expect("epoll waits"),
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    Token(index) => self.read(index, &mut buffer),
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            stream.set_nodelay(true).expect("a TCP socket");
            let key = Token(self.peers.len());
            self.poll.registry().register(&mut stream, key, Interest::READABLE).expect("epoll takes a socket");
            self.peers.push(Peer { stream, is_client: false, room: None, partial: Vec::new() });
        }
    }

    fn read(&mut self, index: usize, buffer: &mut [u8]) {
        let count = self.peers[index].stream.read(buffer).unwrap_or(0);
        let mut kept = std::mem::take(&mut self.peers[index].partial);
        let bytes = match kept.is_empty() {
            true => &buffer[..count],
            false => {
                kept.extend(&buffer[..count]);
                &kept[..]
            }
        };
        let (mut used, mut answers) = (0, Vec::new());
        while let Some(length) = self.one(index, &bytes[used..], &mut answers) {
            used += length;
        }
        if !answers.is_empty() {
            // Answers are small and fit the socket.
            let _ = self.peers[index].stream.write(&answers);
        }
        self.peers[index].partial = bytes[used..].to_vec();
    }

    /// Handles one request or frame; how long it was.
    fn one(&mut self, index: usize, bytes: &[u8], answers: &mut Vec<u8>) -> Option<usize> {
        if self.peers[index].is_client {
            let (payload, length) = client_payload(bytes)?;
            self.message(index, payload, answers);
            return Some(length);
        }
        let head = memmem::find(bytes, b"\r\n\r\n")? + 4;
        if bytes.starts_with(b"GET ") {
            self.peers[index].is_client = true;
            answers.extend(UPGRADE);
            answers.extend(server_frame(OPEN));
            return Some(head);
        }
        let at = memmem::find(&bytes[..head], b"Content-Length: ").expect("a request of ours") + 16;
        let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit());
        let length = digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
        let body = bytes.get(head..head + length)?;
        let room = text_after(body, b"\"room\":\"");
        let data = memmem::find(body, b"\"data\":").map_or(&b""[..], |at| &body[at + 7..body.len() - 1]);
        if let Some(&room) = self.rooms.get(room) {
            self.deliver(room, data);
        }
        let answer = format!("{{\"offset\":\"{OFFSET}\"}}");
        write!(
            answers,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        )
        .expect("memory can be written");
        Some(head + length)
    }

    /// A client's CONNECT, or its event.
    fn message(&mut self, index: usize, payload: &[u8], answers: &mut Vec<u8>) {
        if let Some(event) = payload.strip_prefix(b"42[\"") {
            let data = memchr::memchr(b',', event).map_or(&b""[..], |at| &event[at + 1..event.len() - 1]);
            if let Some(room) = self.peers[index].room {
                self.deliver(room, data);
            }
        } else if payload.starts_with(b"40") {
            let name = text_after(payload, b"\"token\":\"").to_owned();
            let (count, members) = (self.rooms.len(), &mut self.members);
            let room = *self.rooms.entry(name).or_insert(count);
            members.resize_with(members.len().max(room + 1), Vec::new);
            members[room].push(index);
            self.peers[index].room = Some(room);
            answers.extend(server_frame(CONNECTED));
        }
    }

    fn deliver(&mut self, room: usize, data: &[u8]) {
        let packet = [b"42[\"message\",", data, b",\"", OFFSET.as_bytes(), b"\"]"].concat();
        let bytes = server_frame(&packet);
        for &member in &self.members[room] {
            let _ = self.peers[member].stream.write(&bytes);
        }
    }
}

/// The text between this key and the next quote.
fn text_after<'a>(bytes: &'a [u8], key: &[u8]) -> &'a str {
    let rest = memmem::find(bytes, key).map_or(&b""[..], |at| &bytes[at + key.len()..]);
    let end = memchr::memchr(b'"', rest).unwrap_or(0);
    std::str::from_utf8(&rest[..end]).unwrap_or_default()
}
