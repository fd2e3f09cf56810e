//! WebSocket: a small task per connection that reads into the shard's shared buffer; the shard writes.

use crate::handlers;
use crate::handlers::plain_ws as json_client;
use crate::handlers::rate_limit;
use crate::model::close::CloseReason;
use crate::model::names::MAIN_NAMESPACE;
use crate::model::refusal::Refusal;
use crate::model::transport::Protocol;
use crate::node::context::LocalNode;
use crate::protocol::plain_ws;
use crate::protocol::websocket::{FrameReader, Message, pong_frame};
use crate::session::accepted::ClientStream;
use crate::session::connection::ConnectionKey;
use crate::session::frame::Frame;
use crate::session::pending_packets::Inbound;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Socket reads in one turn of a connection, so that one busy client does not hold up the others.
const READS_PER_TURN: usize = 4;

/// The task of a connection: its reading side. With what tokio adds to a task it takes 128 bytes; its next size is 256.
struct Reader {
    local: Rc<LocalNode>,
    key: ConnectionKey,
    frames: FrameReader,
}

/// Starts the task of a connection, whose link is its socket by now.
pub fn start(local: &Rc<LocalNode>, key: ConnectionKey, frames: FrameReader) {
    tokio::task::spawn_local(Reader { local: local.clone(), key, frames });
}

impl Future for Reader {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let reader = self.get_mut();
        ready!(reader.turn(context));
        reader.local.shard.remove(reader.key);
        Poll::Ready(())
    }
}

/// Feeds bytes that came behind the handshake.
pub fn take_early(local: &Rc<LocalNode>, key: ConnectionKey, frames: &mut FrameReader, early: &[u8]) {
    if !early.is_empty() {
        take(local, key, frames, &mut early.to_vec());
    }
}

impl Reader {
    /// One turn: read what is there, write where the socket was full, notice the end.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = self.local.shard.wake_on_change(self.key, context) else { return Poll::Ready(()) };
        if self.read(&stream, context).is_ready() {
            return Poll::Ready(());
        }
        if !self.frames.is_idle() && !self.local.shard.is_open(self.key) {
            // What a closing client did not finish is not needed any more.
            self.frames = FrameReader::new();
        }
        self.local.shard.poll_flush(self.key, &stream, context)
    }

    /// Ready when the connection is over.
    fn read(&mut self, stream: &ClientStream, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_PER_TURN {
            if self.local.shard.is_reading_held(self.key) {
                return Poll::Pending;
            }
            match stream.poll_read_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
            let local = self.local.clone();
            if local.shard.with_read_buffer(|buffer| self.read_once(stream, buffer)).is_ready() {
                return Poll::Ready(());
            }
        }
        // There may be more: the others first.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when the connection is over.
    fn read_once(&mut self, stream: &ClientStream, buffer: &mut [u8]) -> Poll<()> {
        match stream.try_read(buffer) {
            Ok(0) => return Poll::Ready(()),
            // What a closing client still sends is thrown away until it hangs up.
            Ok(_) if !self.local.shard.is_open(self.key) => {}
            Ok(count) => take(&self.local, self.key, &mut self.frames, &mut buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return Poll::Ready(()),
        }
        Poll::Pending
    }
}

/// Feeds bytes to the frame reader.
fn take(local: &Rc<LocalNode>, key: ConnectionKey, frames: &mut FrameReader, bytes: &mut [u8]) {
    let mut ended = false;
    let mut each = |message: Message<'_>| {
        ended |= matches!(message, Message::Text(_) | Message::Binary(_));
        receive(local, key, message);
        if local.shard.is_open(key) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let was_idle = frames.is_idle();
    let read = frames.read(bytes, local.context.socketio.max_payload, &mut each);
    if !(was_idle && frames.is_idle()) {
        local.shard.note_fragments(key, frames.held(), ended);
    }
    if frames.held() > local.context.settings().limits.unproven_message() && !local.shard.is_proven(key) {
        refuse_large(local, key);
        return handlers::fail(local, key, CloseReason::TooBig);
    }
    if let Err(error) = read {
        tracing::debug!(%error, "a WebSocket client broke the protocol");
        handlers::fail(local, key, error.reason());
    }
}

/// A client that has not proven itself sends more than a handshake needs.
fn refuse_large(local: &LocalNode, key: ConnectionKey) {
    match local.shard.protocol(key) {
        Some(Protocol::PlainWs) => json_client::refuse_large(local, key),
        _ => handlers::connect::refuse_large_auth(local, key, MAIN_NAMESPACE),
    }
}

/// One message of an open WebSocket.
pub fn receive(local: &Rc<LocalNode>, key: ConnectionKey, message: Message<'_>) {
    let json = local.shard.protocol(key) == Some(Protocol::PlainWs);
    match message {
        Message::Text(text) if json => receive_json(local, key, text),
        Message::Text(text) => crate::transport::packets::receive_text(local, key, text),
        Message::Binary(bytes) if !json => crate::transport::packets::receive_binary(local, key, bytes),
        // Whatever is answered counts against the rate, or a client could fill its outbox with our words.
        Message::Binary(_) | Message::Ping(_) if !rate_limit::take_turn(local, key) => {}
        Message::Binary(_) => {
            let message = "send JSON in text frames; binary frames mean nothing here";
            local.context.refusals.note(
                Refusal::Protocol,
                &local.shard.who(key),
                format_args!("a binary frame on /ws"),
            );
            json_client::error(local, key, "bad_message", message, None);
        }
        Message::Ping(payload) => local.shard.push(key, Frame::Raw(pong_frame(payload))),
        Message::Pong(_) if json => local.shard.pong(key),
        Message::Pong(_) => {}
        Message::Close(Some(1000), _) if json => handlers::fail(local, key, CloseReason::ClientClose),
        Message::Close(..) => handlers::fail(local, key, CloseReason::TransportClose),
    }
}

fn receive_json(local: &Rc<LocalNode>, key: ConnectionKey, text: &str) {
    if text.len() > local.context.settings().limits.unproven_message() && !local.shard.is_proven(key) {
        json_client::refuse_large(local, key);
        return handlers::fail(local, key, CloseReason::TooBig);
    }
    local.shard.alive(key);
    match plain_ws::parse(text) {
        Ok(message) => handlers::receive(local, key, Inbound::PlainWs(message)),
        Err(error) if rate_limit::take_turn(local, key) => {
            let why = format_args!("a message that cannot be read: {}", error.code());
            local.context.refusals.note(Refusal::Protocol, &local.shard.who(key), why);
            json_client::error(local, key, error.code(), &error.to_string(), error.id.as_deref());
        }
        Err(_) => {}
    }
}

/// Writes a last frame on a WebSocket that never became a connection, and hangs up.
pub async fn dismiss(stream: ClientStream) {
    let _ = stream.stream.send(&crate::protocol::websocket::close_frame(None, "")).await;
    let _ = stream.stream.end();
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_task_of_a_websocket_is_small() {
        assert_eq!(size_of::<super::Reader>(), 24, "one byte more costs 128 bytes for each idle connection");
    }
}
