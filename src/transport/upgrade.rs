//! A WebSocket takes over a polling session: probe, noop, upgrade (wire sheet A8).

use crate::hub::shard::Shard;
use crate::id::Id;
use crate::protocol::engineio::{self, Packet};
use crate::protocol::websocket::{FrameReader, Message, text_frame};
use crate::session::connection::{ConnectionKey, Link};
use crate::session::polling::Polling;
use crate::transport::websocket;
use bytes::Bytes;
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;

/// From the handshake to the `5` (`upgradeTimeout` of the reference, wire sheet A2).
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a probe message; before `5` nothing longer than `2probe` has a meaning.
const PROBE_BYTES: usize = 64;

/// Lets a WebSocket probe a polling session of this shard; on `5` it becomes the session's transport.
/// A session that is gone, upgraded or being upgraded stays as it is, and this WebSocket ends.
pub async fn probe(shard: Rc<Shard>, sid: Id, stream: TcpStream, early: Bytes) {
    let Some(key) = begin(&shard, sid) else { return websocket::dismiss(stream).await };
    let mut probe =
        Probe { shard: shard.clone(), key, stream: Rc::new(stream), frames: FrameReader::new(), state: State::Probing };
    let ended = tokio::time::timeout(UPGRADE_TIMEOUT, probe.run(&early)).await;
    if probe.state == State::Upgraded {
        return websocket::start(&shard, key, probe.stream, probe.frames);
    }
    tracing::debug!(%sid, timed_out = ended.is_err(), "an upgrade was not completed; the session goes on polling");
    with_polling(&shard, key, |polling| (polling.upgrading, polling.probed) = (false, false));
    if let Ok(stream) = Rc::try_unwrap(probe.stream) {
        websocket::dismiss(stream).await;
    }
}

fn begin(shard: &Shard, sid: Id) -> Option<ConnectionKey> {
    let key = shard.hub.borrow().by_sid(sid)?;
    let free = with_polling(shard, key, |polling| !std::mem::replace(&mut polling.upgrading, true));
    free.unwrap_or(false).then_some(key)
}

fn with_polling<T>(shard: &Shard, key: ConnectionKey, act: impl FnOnce(&mut Polling) -> T) -> Option<T> {
    match shard.hub.borrow_mut().connections.get_mut(key).map(|connection| &mut connection.link) {
        Some(Link::Polling(polling)) => Some(act(polling)),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Probing,
    Failed,
    Upgraded,
}

struct Probe {
    shard: Rc<Shard>,
    key: ConnectionKey,
    stream: Rc<TcpStream>,
    frames: FrameReader,
    state: State,
}

impl Probe {
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
        let (shard, key, stream) = (&self.shard, self.key, &self.stream);
        let most = shard.node.socketio.max_payload.max(PROBE_BYTES);
        let read = self.frames.read(bytes, most, &mut |message| {
            match (state, message) {
                (State::Upgraded, message) => websocket::receive(shard, key, message),
                (_, Message::Text(text)) if text.len() <= PROBE_BYTES => match engineio::parse(text) {
                    Ok(Packet::PingProbe) => answer = true,
                    // Accepted without a probe too (wire sheet A8).
                    Ok(Packet::Upgrade) if take_over(shard, key, stream) => state = State::Upgraded,
                    _ => state = State::Failed,
                },
                (_, Message::Ping(_) | Message::Pong(_)) => {}
                _ => state = State::Failed,
            }
            if state == State::Failed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.state = state;
        read.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        if answer && state == State::Probing {
            self.write(&text_frame("3probe")).await?;
            with_polling(shard, key, |polling| {
                polling.probed = true;
                // The client pauses its polling only after this GET returned.
                polling.answer(Bytes::from_static(b"6"))
            });
        }
        Ok(())
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            self.stream.writable().await?;
            match self.stream.try_write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The `5`: from here on the WebSocket is the transport, if only for the last words of a session that is closing:
/// the client has left its polling. `false` when the session is gone.
fn take_over(shard: &Shard, key: ConnectionKey, stream: &Rc<TcpStream>) -> bool {
    let polled = with_polling(shard, key, |polling| polling.answer(Bytes::from_static(b"1")));
    if polled.is_some() {
        shard.hub.borrow_mut().upgrade(key, Link::WebSocket(stream.clone()));
    }
    polled.is_some()
}
