//! A WebSocket takes over a polling session: probe, noop, upgrade (docs/protocol/socketio.md section 2.8).

use crate::cluster::OneWay;
use crate::model::id::Id;
use crate::model::refusal::Refusal;
use crate::node::context::LocalNode;
use crate::peer::forward;
use crate::protocol::engineio;
use crate::protocol::engineio::Packet;
use crate::protocol::websocket::{FrameReader, Message, text_frame};
use crate::refusals::Who;
use crate::session::accepted::ClientStream;
use crate::session::connection::{ConnectionKey, ConnectionUse};
use crate::session::connection_limiter::Permit;
use crate::transport::adopt;
use crate::transport::adopt::{EarlyMessage, Opened};
use crate::transport::handshake::WebSocketHandshake;
use crate::transport::websocket;
use bytes::Bytes;
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// From the handshake to the `5` (`upgradeTimeout` of the reference, docs/protocol/socketio.md section 2.2).
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a probe message; before `5` nothing longer than `2probe` has a meaning.
const PROBE_BYTES: usize = 64;
/// Bytes that its reader keeps of an incomplete one.
const MAX_PROBE_HELD: usize = 1_024;

/// Lets a WebSocket probe a polling session of this shard; on `5` it becomes the session's transport.
/// A session that is gone, upgraded or being upgraded stays as it is, and this WebSocket ends.
pub async fn probe(local: Rc<LocalNode>, sid: Id, handshake: WebSocketHandshake, stream: ClientStream, early: Bytes) {
    let Some(key) = begin(&local, sid) else {
        let who =
            local.shard.by_sid(sid).map_or_else(|| Who::unknown("a Socket.IO client"), |key| local.shard.who(key));
        let why = format_args!("a WebSocket for a polling session that is over, or that another one is taking over");
        local.context.refusals.note(Refusal::Session, &who, why);
        return websocket::dismiss(stream).await;
    };
    let probe = Probe::new(&local, Home::Here(key), handshake, stream);
    if let Some(Opened { frames, .. }) = probe.finish(sid, &early).await {
        websocket::start(&local, key, frames);
    }
}

/// The same for a polling session of another node, which was asked before the handshake: on `5` the session comes here.
pub async fn probe_elsewhere(
    local: Rc<LocalNode>,
    sid: Id,
    permit: Permit,
    handshake: WebSocketHandshake,
    stream: ClientStream,
    early: Bytes,
) {
    let probe = Probe::new(&local, Home::There(sid), handshake, stream);
    if let Some(opened) = probe.finish(sid, &early).await {
        adopt::adopt(&local, sid, permit, opened).await;
    }
}

/// Marks a session of this node as being probed, unless it is already; its place in the tables.
pub fn begin(local: &LocalNode, sid: Id) -> Option<ConnectionKey> {
    let key = local.shard.by_sid(sid)?;
    let free = local.shard.with_polling(key, |polling| !std::mem::replace(&mut polling.upgrading, true));
    free.unwrap_or(false).then_some(key)
}

/// The same for a WebSocket that came to another node. A page of the Admin UI stays where it is, and goes on polling.
pub fn begin_elsewhere(local: &LocalNode, sid: Id) -> Option<ConnectionKey> {
    let is_page = |key| local.shard.connection_use(key) == ConnectionUse::AdminUi;
    if local.shard.by_sid(sid).is_some_and(is_page) { None } else { begin(local, sid) }
}

/// The WebSocket has probed: the client pauses its polling only after the waiting GET has returned.
pub fn end_get(local: &LocalNode, key: ConnectionKey) {
    local.shard.with_polling(key, |polling| {
        polling.probed = true;
        polling.answer(Bytes::from_static(b"6"))
    });
}

/// A WebSocket on another node probes: should that node die, the session goes on polling all the same.
pub async fn limit(local: &LocalNode, key: ConnectionKey) {
    tokio::time::sleep(UPGRADE_TIMEOUT).await;
    give_up(local, key);
}

/// The WebSocket did not take over: the session goes on polling.
pub fn give_up(local: &LocalNode, key: ConnectionKey) {
    local.shard.with_polling(key, |polling| (polling.upgrading, polling.probed) = (false, false));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Probing,
    Failed,
    Upgraded,
}

/// Where the session is that is probed for.
#[derive(Clone, Copy, Debug)]
enum Home {
    Here(ConnectionKey),
    There(Id),
}

struct Probe {
    local: Rc<LocalNode>,
    home: Home,
    handshake: WebSocketHandshake,
    stream: Arc<ClientStream>,
    frames: FrameReader,
    state: State,
    /// What came behind the `5`, for a session that is not here yet.
    early: Vec<EarlyMessage>,
}

impl Probe {
    fn new(local: &Rc<LocalNode>, home: Home, handshake: WebSocketHandshake, stream: ClientStream) -> Self {
        let (stream, frames) = (Arc::new(stream), FrameReader::new());
        Self { local: local.clone(), home, handshake, stream, frames, state: State::Probing, early: Vec::new() }
    }

    /// Runs to its end; the WebSocket, if it has become the transport.
    async fn finish(mut self, sid: Id, early: &[u8]) -> Option<Opened> {
        let ended = tokio::time::timeout(UPGRADE_TIMEOUT, self.run(early)).await;
        if self.state == State::Upgraded {
            let Self { handshake, stream, frames, early, .. } = self;
            return Some(Opened { handshake, stream, frames, early });
        }
        tracing::debug!(%sid, timed_out = ended.is_err(), "an upgrade was not completed; the session goes on polling");
        match self.home {
            Home::Here(key) => give_up(&self.local, key),
            Home::There(sid) => forward::tell(&self.local, sid, OneWay::ProbeFailed(sid)),
        }
        if let Ok(stream) = Arc::try_unwrap(self.stream) {
            websocket::dismiss(stream).await;
        }
        None
    }

    /// Until upgraded or failed.
    async fn run(&mut self, early: &[u8]) {
        let mut buffer = early.to_vec();
        loop {
            let read = self.take(&mut buffer).await;
            if read.is_err() && self.state == State::Probing {
                self.state = State::Failed;
            }
            if self.state != State::Probing {
                return;
            }
            buffer.resize(4096, 0);
            let count = match self.read(&mut buffer).await {
                Ok(count) if count > 0 => count,
                _ => return self.state = State::Failed,
            };
            buffer.truncate(count);
        }
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    async fn take(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let (mut state, mut answer) = (self.state, false);
        let (local, home, stream, early) = (&self.local, self.home, &self.stream, &mut self.early);
        let handshake = &mut self.handshake;
        let max = local.context.socketio.max_payload.max(PROBE_BYTES);
        let read = self.frames.read(bytes, max, &mut |message| {
            match (state, message) {
                (State::Upgraded, message) => match home {
                    Home::Here(key) => websocket::receive(local, key, message),
                    Home::There(_) => early.extend(EarlyMessage::of(message)),
                },
                (_, Message::Text(text)) if text.len() <= PROBE_BYTES => match engineio::parse(text) {
                    Ok(Packet::PingProbe) => answer = true,
                    // Accepted without a probe too (docs/protocol/socketio.md section 2.8).
                    Ok(Packet::Upgrade) if take_over(local, home, handshake, stream) => state = State::Upgraded,
                    _ => state = State::Failed,
                },
                (_, Message::Ping(_) | Message::Pong(_)) => {}
                _ => state = State::Failed,
            }
            if state == State::Failed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.state = state;
        if state == State::Probing && self.frames.held() > MAX_PROBE_HELD {
            self.state = State::Failed;
        }
        read.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        if answer && state == State::Probing {
            self.stream.send(&text_frame("3probe")).await?;
            match home {
                Home::Here(key) => end_get(&self.local, key),
                Home::There(sid) => forward::tell(&self.local, sid, OneWay::Probed(sid)),
            }
        }
        Ok(())
    }
}

/// The `5`: from here on the WebSocket is the transport, even if only to send the close of a session that is ending:
/// the client has left its polling. `false` when the session is gone.
fn take_over(local: &LocalNode, home: Home, handshake: &mut WebSocketHandshake, stream: &Arc<ClientStream>) -> bool {
    // What is on another node is asked for behind this.
    let Home::Here(key) = home else { return true };
    let polled = local.shard.with_polling(key, |polling| polling.answer(Bytes::from_static(b"1")));
    if polled.is_some() {
        local.shard.upgrade(key, stream.clone(), |connection| std::mem::take(handshake).apply(connection));
    }
    polled.is_some()
}
