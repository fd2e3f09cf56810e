//! WebSocket: a small task per connection that reads into the shard's shared buffer; the shard writes.

use crate::handlers;
use crate::handlers::plain_ws as json_client;
use crate::model::close::CloseReason;
use crate::model::refusal::Refusal;
use crate::model::transport::Protocol;
use crate::protocol::plain_ws;
use crate::protocol::websocket::{FrameReader, Message, pong_frame};
use crate::refusals;
use crate::session::connection::ConnectionKey;
use crate::session::outbox::Frame;
use crate::session::pending_packets::Inbound;
use crate::shard::runner::Shard;
use crate::shard::timers::millis;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Socket reads in one turn of a connection, so that one busy client does not hold up the others.
const READS_PER_TURN: usize = 4;

/// A connection's reading side.
pub struct Reader {
    shard: Rc<Shard>,
    key: ConnectionKey,
    stream: Rc<TcpStream>,
    frames: FrameReader,
    /// Everything is written and the socket is half-closed.
    finished: bool,
}

/// Starts the task of a connection.
pub fn start(shard: &Rc<Shard>, key: ConnectionKey, stream: Rc<TcpStream>, frames: FrameReader) {
    let mut reader = Reader { shard: shard.clone(), key, stream, frames, finished: false };
    tokio::task::spawn_local(async move {
        poll_fn(|context| reader.turn(context)).await;
        let now = reader.shard.now();
        reader.shard.hub.borrow_mut().remove(reader.key, now);
    });
}

/// Feeds bytes that came behind the handshake.
pub fn take_early(shard: &Rc<Shard>, key: ConnectionKey, frames: &mut FrameReader, early: &[u8]) {
    if !early.is_empty() {
        take(shard, key, frames, &mut early.to_vec());
    }
}

impl Reader {
    /// One turn: read what is there, write where the socket was full, notice the end.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        {
            let mut hub = self.shard.hub.borrow_mut();
            let Some(connection) = hub.connections.get_mut(self.key) else { return Poll::Ready(()) };
            if !connection.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                connection.waker = Some(context.waker().clone());
            }
        }
        if self.read(context).is_ready() {
            return Poll::Ready(());
        }
        self.write(context)
    }

    /// Ready when the connection is over.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_PER_TURN {
            match self.stream.poll_read_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
            let shard = self.shard.clone();
            let mut buffer = shard.buffer.borrow_mut();
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Poll::Ready(()),
                // What a closing client still sends is thrown away until it hangs up.
                Ok(_) if is_closing(&shard, self.key) => {}
                Ok(count) => take(&shard, self.key, &mut self.frames, &mut buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        // There may be more: the others first.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Flushes where the socket has room again, and shuts it down once a closing connection is flushed.
    fn write(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let shard = self.shard.clone();
            let mut hub = shard.hub.borrow_mut();
            let Some(connection) = hub.connections.get_mut(self.key) else { return Poll::Ready(()) };
            if connection.closing.is_some() && connection.outbox.is_empty() && !self.finished {
                // Half-closed, so that the peer reads the close frame; it hangs up, or is cut at its deadline.
                self.finished = true;
                let _ = socket2::SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write);
            }
            if !connection.blocked {
                return Poll::Pending;
            }
            match self.stream.poll_write_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {
                    connection.blocked = false;
                    hub.flush(self.key, shard.now());
                }
            }
        }
    }
}

/// Feeds bytes to the frame reader.
fn take(shard: &Rc<Shard>, key: ConnectionKey, frames: &mut FrameReader, bytes: &mut [u8]) {
    let mut each = |message: Message<'_>| {
        receive(shard, key, message);
        if is_closing(shard, key) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    if let Err(error) = frames.read(bytes, shard.node.socketio.max_payload, &mut each) {
        tracing::debug!(%error, "a WebSocket client broke the protocol");
        handlers::fail(shard, key, error.reason());
    }
}

fn is_closing(shard: &Shard, key: ConnectionKey) -> bool {
    shard.hub.borrow().connections.get(key).is_none_or(|connection| connection.closing.is_some())
}

/// One message of an open WebSocket.
pub fn receive(shard: &Rc<Shard>, key: ConnectionKey, message: Message<'_>) {
    let protocol = shard.hub.borrow().connections.get(key).map(|connection| connection.protocol);
    let json = protocol == Some(Protocol::PlainWs);
    match message {
        Message::Text(text) if json => receive_json(shard, key, text),
        Message::Text(text) => crate::transport::packets::receive_text(shard, key, text),
        Message::Binary(bytes) if !json => crate::transport::packets::receive_binary(shard, key, bytes),
        // Whatever is answered counts against the rate, or a client could fill its outbox with our words.
        Message::Binary(_) | Message::Ping(_) if !handlers::take_turn(shard, key) => {}
        Message::Binary(_) => {
            let message = "send JSON in text frames; binary frames mean nothing here";
            json_client::error(shard, key, "bad_message", message, None);
        }
        Message::Ping(payload) => shard.hub.borrow_mut().push(key, Frame::Raw(pong_frame(payload))),
        Message::Pong(_) if json => pong(shard, key),
        Message::Pong(_) => {}
        Message::Close(Some(1000), _) if json => handlers::fail(shard, key, CloseReason::ClientClose),
        Message::Close(..) => handlers::fail(shard, key, CloseReason::TransportClose),
    }
}

fn receive_json(shard: &Rc<Shard>, key: ConnectionKey, text: &str) {
    pong(shard, key);
    match plain_ws::parse(text) {
        Ok(message) => handlers::receive(shard, key, Inbound::PlainWs(message)),
        Err(error) if handlers::take_turn(shard, key) => {
            let why = format_args!("a message that cannot be read: {}", error.code());
            refusals::note(&shard.node.metrics, Refusal::Protocol, format_args!("a /ws client"), why);
            json_client::error(shard, key, error.code(), &error.to_string(), error.id.as_deref());
        }
        Err(_) => {}
    }
}

/// Anything from the client shows that it lives.
pub fn pong(shard: &Shard, key: ConnectionKey) {
    let (now, interval) = (shard.now(), millis(shard.node.socketio.ping_interval));
    let mut hub = shard.hub.borrow_mut();
    if let Some(connection) = hub.connections.get_mut(key) {
        connection.timers.pong(now, interval);
    }
    hub.reschedule(key);
}

/// Writes a last frame on a WebSocket that never became a connection, and hangs up.
pub async fn dismiss(mut stream: TcpStream) {
    let _ = stream.write_all(&crate::protocol::websocket::close_frame(None, "")).await;
    let _ = stream.shutdown().await;
}
