//! A connection while its requests are plain `POST /publish` with a key, as backends send them one after the other: read into
//! the shard's buffer, decoded there, and answered with one write for all that arrived together (`turn`). A request has no
//! map of headers, no timer and no body of its own.
//!
//! Everything else goes to hyper from its first byte on ([`Served::Other`]), which then has the connection until it ends: other
//! paths and methods, wrong keys, bodies over the limit, and whatever [`http1`](crate::protocol::http1) does not take. So what
//! is refused before its body is read is refused in one place.

mod turn;

use crate::budget::{Held, Holding, Level};
use crate::http::Api;
use crate::http::body::{HASTE, READ_TIMEOUT};
use crate::http::caller::Caller;
use crate::http::ending;
use crate::http::gathering::{Gathering, Stay};
use crate::http::lazy_timer::LazyTimer;
use crate::node::context::LocalNode;
use crate::tls::Socket;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use turn::{Next, Turn};

/// Bytes after which a connection whose client sends faster than they are handled lets the shard's other tasks run.
const FAIR_BYTES: usize = 64 << 10;

/// What a connection came to.
pub(super) enum Served {
    /// It is over.
    Over,
    /// It is over, and its client may still be sending.
    Linger,
    /// It goes on on another shard.
    Moves(usize),
    /// It goes on with hyper.
    Other(Rest),
}

/// What hyper gets of a connection.
pub(super) struct Rest {
    /// Bytes that are to be read first.
    pub early: Vec<u8>,
    /// When they began to arrive.
    pub began: Instant,
    /// The connection's timer.
    pub timer: LazyTimer,
}

/// What is waited for.
#[derive(Clone, Copy)]
enum Wait {
    /// A request, since then.
    Idle(Instant),
    /// The rest of a head that began then. The first one begins with the connection.
    Head(Instant),
    /// The rest of a request of so many bytes, and when to look how long that takes.
    Body { whole: usize, began: Instant, look: Instant },
}

/// Why this reader has done its part.
#[derive(Clone, Copy)]
enum End {
    Over,
    Linger,
    Moves(usize),
    Other,
}

/// Serves a connection of a listener that takes events: a new one, or one that has come from another shard.
pub(super) async fn serve(api: &Api, local: &LocalNode, caller: &Caller, socket: &Socket) -> Served {
    let http = &api.settings().http;
    let (moves, now) = (caller.moves.get(), Instant::now());
    let (wait, deadline) = match moves {
        0 => (Wait::Head(caller.accepted()), caller.accepted() + http.head_timeout),
        _ => (Wait::Idle(now), now + http.idle_timeout),
    };
    Publisher {
        api,
        local,
        caller,
        socket,
        begun: Vec::new(),
        held: None,
        unshared: 0,
        wait,
        timer: LazyTimer::new(deadline),
        turn: Turn::new(api, local, caller),
        stay: Stay::new(local.shard.index, moves, now),
    }
    .run()
    .await
}

struct Publisher<'a> {
    api: &'a Api,
    local: &'a LocalNode,
    caller: &'a Caller,
    socket: &'a Socket,
    /// The beginning of a request, and its count in the node's memory.
    begun: Vec<u8>,
    held: Option<Held>,
    /// Bytes that were read since others could run.
    unshared: usize,
    wait: Wait,
    timer: LazyTimer,
    turn: Turn<'a>,
    stay: Stay,
}

impl Publisher<'_> {
    async fn run(mut self) -> Served {
        loop {
            let end = match self.read() {
                Ok(Some(next)) => self.go_on(next).await,
                Ok(None) if self.begun.is_empty() => Some(End::Over),
                // A request that breaks off has its answer from hyper.
                Ok(None) => Some(End::Other),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait().await,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
                Err(_) => Some(End::Over),
            };
            match end {
                None => self.share().await,
                Some(End::Over) => return Served::Over,
                Some(End::Linger) => return Served::Linger,
                Some(End::Moves(shard)) => return Served::Moves(shard),
                Some(End::Other) => return Served::Other(self.rest()),
            }
        }
    }

    /// Lets others run after a share of bytes: a socket that is always readable, and takes all answers, never makes this wait.
    async fn share(&mut self) {
        if self.unshared >= FAIR_BYTES {
            self.unshared = 0;
            tokio::task::yield_now().await;
        }
    }

    /// Reads once, and decodes the requests that are whole. `None` is the end.
    fn read(&mut self) -> io::Result<Option<Next>> {
        let (local, socket) = (self.local, self.socket);
        local.shard.with_read_buffer(|buffer| {
            let count = socket.try_read(buffer)?;
            self.unshared += count;
            Ok((count > 0).then(|| self.take(&buffer[..count])))
        })
    }

    fn take(&mut self, bytes: &[u8]) -> Next {
        if self.begun.is_empty() {
            let (taken, next) = self.turn.take(bytes);
            self.begun.extend_from_slice(&bytes[taken..]);
            return next;
        }
        self.begun.extend_from_slice(bytes);
        match self.wait {
            Wait::Body { whole, .. } if self.begun.len() < whole => Next::Body(whole),
            _ => {
                let (taken, next) = self.turn.take(&self.begun);
                self.begun.drain(..taken);
                next
            }
        }
    }

    /// Answers what was decoded, and prepares to wait for more.
    async fn go_on(&mut self, next: Next) -> Option<End> {
        if self.turn.has_requests() {
            let events = self.turn.append().await;
            let now = Instant::now();
            let is_last = self.turn.answer(now);
            if let Err(end) = self.send().await {
                return Some(end);
            }
            if is_last {
                return Some(if self.begun.is_empty() { End::Over } else { End::Linger });
            }
            self.wait = Wait::Idle(now);
            if let Some(shard) = self.look_round(events, now) {
                return Some(End::Moves(shard));
            }
        }
        match next {
            Next::Other => return Some(End::Other),
            Next::Body(whole) => self.wait_for_body(whole),
            Next::Head if self.begun.is_empty() => {}
            Next::Head => {
                if let Wait::Idle(_) = self.wait {
                    self.wait = Wait::Head(Instant::now());
                }
            }
        }
        self.count_held();
        None
    }

    /// Whether the connection goes on on another shard, which it does between two requests.
    fn look_round(&mut self, events: usize, now: Instant) -> Option<usize> {
        let (gathering, shard) = (&self.api.gathering, self.stay.shard());
        let look = self.stay.answered(events, gathering, now);
        if look.measures {
            tokio::task::spawn_local(measure_lag(gathering.clone(), shard));
        }
        look.moves_to.filter(|_| self.begun.is_empty())
    }

    fn wait_for_body(&mut self, whole: usize) {
        if !matches!(self.wait, Wait::Body { .. }) {
            let began = Instant::now();
            self.wait = Wait::Body { whole, began, look: began + HASTE };
            self.turn.begin();
        }
    }

    /// Counts what is held of a request in the node's memory.
    fn count_held(&mut self) {
        if self.begun.is_empty() {
            self.held = None;
            if self.begun.capacity() > turn::KEPT {
                self.begun = Vec::new();
            }
            return;
        }
        let kind = match self.wait {
            Wait::Body { .. } => Holding::Bodies,
            Wait::Idle(_) | Wait::Head(_) => Holding::Heads,
        };
        match &mut self.held {
            Some(held) if held.kind() == kind => held.resize(self.begun.len()),
            held => *held = Some(self.api.node.context.memory.hold(kind, self.begun.len())),
        }
    }

    fn rest(self) -> Rest {
        let began = match self.wait {
            Wait::Head(began) => began,
            Wait::Idle(_) | Wait::Body { .. } => Instant::now(),
        };
        Rest { early: self.begun, began, timer: self.timer }
    }

    /// Waits until there is something to read.
    async fn wait(&mut self) -> Option<End> {
        loop {
            let settings = self.api.settings();
            let deadline = match self.wait {
                Wait::Idle(since) => since + settings.http.idle_timeout,
                Wait::Head(began) => began + settings.http.head_timeout,
                Wait::Body { look, .. } => look,
            };
            drop(settings);
            let socket = self.socket;
            if self.timer.before(deadline, |context| socket.poll_read_ready(context)).await.is_some() {
                return None;
            }
            let Wait::Body { began, look, .. } = &mut self.wait else { return Some(self.give_up()) };
            let is_over = self.api.node.context.memory.level() == Level::Over;
            if is_over || *look - *began >= READ_TIMEOUT {
                return Some(self.refuse_slow().await);
            }
            *look += HASTE.min(READ_TIMEOUT - (*look - *began));
        }
    }

    /// No request came in time.
    fn give_up(&self) -> End {
        ending::no_whole_request(self.api, self.caller, !self.begun.is_empty());
        End::Over
    }

    async fn refuse_slow(&mut self) -> End {
        self.turn.refuse_slow(Instant::now());
        self.send().await.err().unwrap_or(End::Linger)
    }

    /// Writes the answers.
    async fn send(&mut self) -> Result<(), End> {
        let write_timeout = self.api.settings().http.write_timeout;
        let answers = self.turn.answers();
        // The client may take its time to read those of large batches.
        let is_large = answers.len() > turn::KEPT;
        let _held = is_large.then(|| self.api.node.context.memory.hold(Holding::Bodies, answers.len()));
        let sent = send(self.socket, answers, write_timeout).await;
        self.turn.end();
        match sent {
            Ok(true) => Ok(()),
            Ok(false) => {
                ending::unread_answer(self.api, self.caller);
                Err(End::Over)
            }
            Err(_) => Err(End::Over),
        }
    }
}

/// Measures how long a turn of this shard's thread over all that is ready takes.
async fn measure_lag(gathering: Arc<Gathering>, shard: usize) {
    tokio::task::yield_now().await;
    let began = Instant::now();
    tokio::task::yield_now().await;
    let now = Instant::now();
    gathering.measured(shard, now.saturating_duration_since(began), now);
}

/// `false`: for that long the client took nothing.
async fn send(socket: &Socket, mut bytes: &[u8], timeout: Duration) -> io::Result<bool> {
    loop {
        match socket.try_send(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return sent.map(|()| true),
        }
        match tokio::time::timeout(timeout, socket.writable()).await {
            Ok(writable) => writable?,
            Err(_) => return Ok(false),
        }
    }
}
