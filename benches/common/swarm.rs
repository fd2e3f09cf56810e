//! Thousands of clients on one thread: one epoll, one buffer, a few bytes for each.

use super::websocket::{client_frame, frame, handshake};
use memchr::memmem;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Socket.IO over WebSocket.
    SocketIo,
    /// `/ws`.
    Json,
    /// `/sse`; the path with its query is the client's token.
    Sse,
    /// WebSocket frames without a handshake: the bare write loop.
    Bare,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    /// The request is written; the head of its answer is awaited.
    Upgrading,
    /// Messages flow; the client is not in its rooms yet.
    Joining,
    Ready,
}

/// What a Socket.IO client keeps of its session, and sends when it comes back (docs/protocol/socketio.md section 4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Session {
    /// Its token.
    pub token: String,
    /// What its frontend knows it by.
    pub sid: String,
    /// The secret with which it resumes; empty for a client that was never connected.
    pub pid: String,
    /// The last argument of the last event.
    pub offset: String,
}

struct Client {
    stream: TcpStream,
    protocol: Protocol,
    state: State,
    token: String,
    /// Only where sessions are kept.
    session: Option<Box<Session>>,
    /// The start of a frame that is not all here.
    partial: Vec<u8>,
    events: usize,
}

/// Clients of one thread.
pub(crate) struct Swarm {
    poll: Poll,
    occurred: Events,
    buffer: Vec<u8>,
    clients: Vec<Client>,
    ready: usize,
    received: usize,
    keeps_sessions: bool,
    /// Bytes of the last event on the wire.
    pub frame_bytes: usize,
}

impl Swarm {
    /// Nobody yet.
    pub(crate) fn new() -> Self {
        Self {
            poll: Poll::new().expect("the system has epoll"),
            occurred: Events::with_capacity(1024),
            buffer: vec![0; 256 << 10],
            clients: Vec::new(),
            ready: 0,
            received: 0,
            keeps_sessions: false,
            frame_bytes: 0,
        }
    }

    /// Connects a client for each token, `at_once` at a time, until all are in their rooms.
    pub(crate) fn connect(&mut self, address: SocketAddr, protocol: Protocol, at_once: usize, tokens: Vec<String>) {
        let sessions = tokens.into_iter().map(|token| Session { token, ..Session::default() }).collect();
        self.enter(address, protocol, at_once, sessions, &mut |_, _| {});
    }

    /// Connects Socket.IO clients that keep their sessions; those that had one ask for it back. `each` gets the events
    /// that come meanwhile.
    pub(crate) fn resume(
        &mut self,
        address: SocketAddr,
        at_once: usize,
        sessions: Vec<Session>,
        each: &mut impl FnMut(usize, &[u8]),
    ) {
        self.keeps_sessions = true;
        self.enter(address, Protocol::SocketIo, at_once, sessions, each);
    }

    /// What the clients know of their sessions.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        self.clients.iter().map(|client| client.session.as_deref().cloned().unwrap_or_default()).collect()
    }

    /// Sends a text message as this client.
    pub(crate) fn send(&mut self, client: usize, message: &[u8]) {
        self.clients[client].write(&client_frame(1, message));
    }

    /// Keeps the connections alive for so long.
    pub(crate) fn hold(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(end, &mut |_, _| {});
        }
    }

    fn enter(
        &mut self,
        address: SocketAddr,
        protocol: Protocol,
        at_once: usize,
        sessions: Vec<Session>,
        each: &mut impl FnMut(usize, &[u8]),
    ) {
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut sessions = sessions.into_iter();
        loop {
            for session in sessions.by_ref().take(at_once - (self.clients.len() - self.ready)) {
                self.open(address, protocol, session);
            }
            if self.ready == self.clients.len() {
                return;
            }
            self.turn(deadline, each);
            assert!(
                Instant::now() < deadline,
                "{} of {} clients got in ({protocol:?})",
                self.ready,
                self.clients.len()
            );
        }
    }

    fn open(&mut self, address: SocketAddr, protocol: Protocol, session: Session) {
        let mut stream = TcpStream::connect(address).expect("a connection can be begun: is the limit of files high?");
        let (key, interest) = (Token(self.clients.len()), Interest::READABLE | Interest::WRITABLE);
        self.poll.registry().register(&mut stream, key, interest).expect("epoll takes a socket");
        let state = State::Connecting;
        let token = session.token.clone();
        let session = self.keeps_sessions.then(|| Box::new(session));
        self.clients.push(Client { stream, protocol, state, token, session, partial: Vec::new(), events: 0 });
    }

    /// Events received by all clients.
    pub(crate) fn received(&self) -> usize {
        self.received
    }

    /// Receives until all clients together have `total` events.
    pub(crate) fn receive(&mut self, total: usize, max: Duration, mut each: impl FnMut(usize, &[u8])) {
        let deadline = Instant::now() + max;
        while self.received < total {
            self.turn(deadline, &mut each);
            assert!(Instant::now() < deadline, "{} of {total} events came within {max:?}", self.received);
        }
    }

    /// Checks that every client got exactly `count` events.
    pub(crate) fn assert_each(&self, count: usize) {
        for (index, client) in self.clients.iter().enumerate() {
            assert!(client.events == count, "client {index} got {} events instead of {count}", client.events);
        }
    }

    /// Waits for something to read and reads it; `each` gets the client's number and the message.
    pub(crate) fn turn(&mut self, deadline: Instant, each: &mut impl FnMut(usize, &[u8])) {
        let mut occurred = std::mem::replace(&mut self.occurred, Events::with_capacity(0));
        match self.poll.poll(&mut occurred, Some(deadline.saturating_duration_since(Instant::now()))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => occurred.clear(),
            result => result.expect("epoll waits"),
        }
        for event in &occurred {
            let index = event.token().0;
            if self.clients[index].state == State::Connecting && event.is_writable() {
                self.begin(index);
            }
            if event.is_readable() {
                self.read(index, each);
            }
        }
        self.occurred = occurred;
    }

    fn begin(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let error = client.stream.take_error().expect("a TCP socket");
        assert!(error.is_none(), "client {index} could not connect: {error:?}");
        client.state = State::Upgrading;
        match client.protocol {
            Protocol::SocketIo => client.write(handshake("/socket.io/?EIO=4&transport=websocket").as_bytes()),
            Protocol::Json => client.write(handshake(&format!("/ws?token={}", client.token)).as_bytes()),
            Protocol::Sse => client.write(format!("GET {} HTTP/1.1\r\nHost: h\r\n\r\n", client.token).as_bytes()),
            Protocol::Bare => {
                client.state = State::Ready;
                self.ready += 1;
            }
        }
    }

    fn read(&mut self, index: usize, each: &mut impl FnMut(usize, &[u8])) {
        loop {
            let mut buffer = std::mem::take(&mut self.buffer);
            let result = self.clients[index].stream.read(&mut buffer);
            let count = match result {
                Ok(0) => panic!("the server closed client {index}"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => panic!("client {index} was cut off: {error}"),
            };
            self.take(index, &buffer[..count], each);
            // With less than a full buffer the socket is empty; new bytes are a new edge.
            let all = count < buffer.len();
            self.buffer = buffer;
            if all {
                return;
            }
        }
    }

    /// Takes bytes of a client: complete frames are handled, the rest is kept.
    fn take(&mut self, index: usize, bytes: &[u8], each: &mut impl FnMut(usize, &[u8])) {
        let mut kept = std::mem::take(&mut self.clients[index].partial);
        let bytes = match kept.is_empty() {
            true => bytes,
            false => {
                kept.extend(bytes);
                &kept
            }
        };
        let mut at = 0;
        while let Some(used) = self.one(index, &bytes[at..], each) {
            at += used;
        }
        self.clients[index].partial = bytes[at..].to_vec();
    }

    /// Handles one head, frame or line; how long it was.
    fn one(&mut self, index: usize, bytes: &[u8], each: &mut impl FnMut(usize, &[u8])) -> Option<usize> {
        let client = &mut self.clients[index];
        if client.state == State::Upgrading {
            let head = memmem::find(bytes, b"\r\n\r\n")? + 4;
            let fine = bytes.starts_with(b"HTTP/1.1 101") || bytes.starts_with(b"HTTP/1.1 200");
            assert!(fine, "client {index} was refused: {}", String::from_utf8_lossy(bytes));
            client.state = State::Joining;
            if client.protocol == Protocol::Sse {
                self.join(index);
            }
            return Some(head);
        }
        if client.protocol == Protocol::Sse {
            let line = memchr::memchr(b'\n', bytes)?;
            if let Some(data) = bytes[..line].strip_prefix(b"data:") {
                self.count(index, line, data, each);
            }
            return Some(line + 1);
        }
        let (opcode, payload, length) = frame(bytes)?;
        match (opcode, client.protocol) {
            (1, Protocol::Bare) => self.count(index, length, payload, each),
            (1, Protocol::SocketIo) if payload.starts_with(b"42") => self.count(index, length, payload, each),
            (1, Protocol::Json) if payload.starts_with(b"{\"type\":\"event\"") => {
                self.count(index, length, payload, each);
            }
            (1, _) => self.control(index, payload),
            (8, _) => panic!("the server closed client {index} after {} events, as a slow one?", client.events),
            (9, _) => client.write(&client_frame(10, payload)),
            _ => panic!("client {index} got {opcode:#x}: {}", String::from_utf8_lossy(payload)),
        }
        Some(length)
    }

    fn count(&mut self, index: usize, length: usize, payload: &[u8], each: &mut impl FnMut(usize, &[u8])) {
        self.clients[index].events += 1;
        if let Some(session) = &mut self.clients[index].session {
            session.offset = last_string(payload).to_owned();
        }
        self.received += 1;
        self.frame_bytes = length;
        each(index, payload);
    }

    fn join(&mut self, index: usize) {
        if self.clients[index].state == State::Joining {
            self.clients[index].state = State::Ready;
            self.ready += 1;
        }
    }

    /// Any message but an event.
    fn control(&mut self, index: usize, payload: &[u8]) {
        let client = &mut self.clients[index];
        match payload {
            [b'0', ..] => client.write(&client_frame(1, client.handshake().as_bytes())),
            b"2" => client.write(&client_frame(1, b"3")),
            [b'4', b'0', answer @ ..] => {
                if let Some(session) = &mut client.session {
                    let answer: serde_json::Value = serde_json::from_slice(answer).expect("the answer is JSON");
                    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
                    (session.sid, session.pid) = (text("sid"), text("pid"));
                }
                self.join(index);
            }
            // A session is in the rooms of its token before it is welcomed.
            _ if payload.starts_with(b"{\"type\":\"welcome\"") => self.join(index),
            _ => panic!("client {index} was told: {}", String::from_utf8_lossy(payload)),
        }
    }
}

/// The last argument of an event where that is a string, as its offset is.
fn last_string(payload: &[u8]) -> &str {
    let text = std::str::from_utf8(payload).expect("packets are UTF-8");
    text.strip_suffix("\"]").and_then(|text| text.rsplit_once('"')).map_or("", |(_, last)| last)
}

impl Client {
    /// The CONNECT packet.
    fn handshake(&self) -> String {
        let mut auth = serde_json::json!({ "token": self.token });
        if let Some(session) = self.session.as_ref().filter(|session| !session.pid.is_empty()) {
            auth["pid"] = session.pid.as_str().into();
            if !session.offset.is_empty() {
                auth["offset"] = session.offset.as_str().into();
            }
        }
        format!("40{auth}")
    }

    /// Requests and answers of clients are small and fit the socket.
    fn write(&mut self, bytes: &[u8]) {
        let written = self.stream.write(bytes).expect("the server reads");
        assert!(written == bytes.len(), "the server does not read");
    }
}
