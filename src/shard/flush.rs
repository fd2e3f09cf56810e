//! From the outboxes to the transports.

use crate::model::close::CloseReason;
use crate::model::event::Format;
use crate::model::millis::Millis;
use crate::session::connection::{Connection, ConnectionKey, Link};
use crate::session::frame::{Frame, encode};
use crate::shard::hub::Hub;
use crate::tls::Socket;
use bytes::Bytes;
use std::io::ErrorKind;

/// Bytes of frames that are joined for one write.
pub(super) const GATHER_BYTES: usize = 64 << 10;
/// Bytes written to one connection before the next connection is flushed, so that a long replay does not hold up others.
const BYTES_PER_TURN: usize = 1 << 20;
/// Slices of replays queued before others get their turn.
const SLICES_PER_TURN: usize = 4;
/// Slices of a replay in one polling answer, within [`MAX_POLL_ANSWER`].
const SLICES_PER_POLL: usize = 4;
/// Bytes of packets in one polling answer; the rest waits for the next GET.
const MAX_POLL_ANSWER: usize = 1 << 20;

/// The result of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    /// The outbox is empty.
    All,
    /// The socket takes more, but other connections are flushed first.
    Some,
    /// The socket is full.
    Blocked,
    /// The socket is broken.
    Broken,
}

impl Hub {
    /// Flushes up to `max` listed connections, fewer where they replay. Answers whether more are listed.
    pub(super) fn flush_some(&mut self, max: usize, now: Millis) -> bool {
        let mut slices = 0;
        for _ in 0..max {
            slices += self.flusher.take_slices();
            if slices >= SLICES_PER_TURN {
                break;
            }
            let Some(key) = self.flusher.next() else { return false };
            if let Some(connection) = self.connections.get_mut(key) {
                connection.dirty = false;
            }
            self.flush(key, now);
        }
        !self.flusher.is_empty()
    }

    /// Writes what waits on a connection, as far as its transport takes it now. If more than the limit still waits then, the
    /// connection is closed as a slow consumer.
    pub(super) fn flush(&mut self, key: ConnectionKey, now: Millis) {
        self.write(key, now);
        let max = self.context.live.outbox_bytes();
        if self.connections.get(key).is_some_and(|connection| is_over(connection, max)) {
            self.close(key, CloseReason::SlowConsumer, now);
        }
    }

    fn write(&mut self, key: ConnectionKey, now: Millis) {
        let with_offset = self.context.recovery_on();
        let Some(connection) = self.connections.get_mut(key) else { return };
        match &connection.link {
            Link::Sse(_) => connection.wake(),
            Link::Polling(polling) if polling.waiting.is_none() => {}
            Link::Polling(_) if connection.outbox.is_empty() && !connection.has_replays() => {}
            Link::Polling(_) => self.answer_poll(key, with_offset, now),
            Link::WebSocket(stream) => {
                let stream = stream.clone();
                let is_behind = connection.has_replays() && self.top_up(key, now);
                self.write_socket(key, &stream, is_behind, now);
            }
        }
    }

    fn write_socket(&mut self, key: ConnectionKey, stream: &Socket, is_behind: bool, now: Millis) {
        let with_offset = self.context.recovery_on();
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (flushed, bytes) = write_out(connection, stream, with_offset, &mut self.scratch);
        connection.blocked = flushed == Flushed::Blocked;
        let is_read_again = connection.wrote(bytes);
        if flushed == Flushed::All {
            connection.drained();
        }
        if flushed == Flushed::Some || flushed == Flushed::All && is_behind {
            self.flusher.list(key, connection);
        }
        if connection.blocked || connection.timers.write_by.is_some() {
            self.note_write(key, bytes > 0, now);
        }
        if flushed == Flushed::Broken {
            self.close(key, CloseReason::TransportClose, now);
            self.note_lost(key, 0);
            if let Some(connection) = self.connections.get_mut(key) {
                connection.outbox.clear();
            }
        }
        if let Some(connection) = self.connections.get_mut(key)
            && (connection.blocked || is_read_again || connection.closing.is_some())
        {
            // The task waits until the socket has room, reads on, or ends.
            connection.wake();
        }
    }

    /// Answers the waiting GET with as many packets as fit.
    fn answer_poll(&mut self, key: ConnectionKey, with_offset: bool, now: Millis) {
        let (mut payload, mut is_behind) = (Vec::new(), true);
        for _ in 0..SLICES_PER_POLL {
            is_behind = is_behind && self.top_up(key, now);
            let Some(connection) = self.connections.get_mut(key) else { return };
            if !take_payload(connection, with_offset, &mut payload) || !is_behind {
                break;
            }
        }
        if payload.is_empty() {
            // Nothing so far of what it missed is for it.
            return if is_behind {
                self.mark_dirty(key)
            };
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.timers.write_by = None;
        if connection.outbox.is_empty() {
            connection.drained();
        }
        let ended = connection.closing.is_some() && connection.outbox.is_empty();
        let Link::Polling(polling) = &mut connection.link else { return };
        if !polling.answer(payload.into()) || ended {
            self.remove(key, now);
        }
    }

    /// Takes what waits for an SSE response; empty if nothing waits yet, and whether to ask again.
    pub(super) fn take_sse(&mut self, key: ConnectionKey, now: Millis) -> (Bytes, bool) {
        let is_behind = self.top_up(key, now);
        let Some(connection) = self.connections.get_mut(key) else { return (Bytes::new(), false) };
        let mut out = Vec::new();
        while out.len() < GATHER_BYTES
            && let Some(frame) = connection.outbox.pop()
        {
            out.extend_from_slice(&encode(&frame, Format::Sse, true));
        }
        connection.timers.write_by = None;
        if connection.outbox.is_empty() {
            connection.drained();
        }
        (out.into(), is_behind)
    }
}

/// Whether more waits than the limit allows. One frame may be larger than the limit: only what waits behind it counts.
pub(super) fn is_over(connection: &Connection, max: usize) -> bool {
    connection.closing.is_none()
        && connection.outbox.len() > 1
        && connection.outbox.bytes() > max + connection.allowed()
}

/// Adds the waiting packets to a polling payload, joined by the record separator (docs/protocol/socketio.md section 2.6).
/// Answers whether these were all.
fn take_payload(connection: &mut Connection, with_offset: bool, payload: &mut Vec<u8>) -> bool {
    while payload.len() < MAX_POLL_ANSWER
        && let Some(frame) = connection.outbox.front()
    {
        if !payload.is_empty() {
            if matches!(frame, Frame::Engine(close) if close == "1") {
                // In one payload with `41` the stock client would see the close first, and reconnect
                // (docs/protocol/socketio.md section 2.6).
                break;
            }
            payload.push(b'\x1e');
        }
        let Some(frame) = connection.outbox.pop() else { break };
        payload.extend_from_slice(&encode(&frame, Format::SocketIoPayload, with_offset));
    }
    connection.outbox.is_empty()
}

/// Everything that waits as one polling payload, whatever its length.
pub(super) fn take_all(connection: &mut Connection, with_offset: bool) -> String {
    let mut all = Vec::new();
    while !connection.outbox.is_empty() {
        let mut payload = Vec::new();
        take_payload(connection, with_offset, &mut payload);
        if !all.is_empty() {
            all.push(b'\x1e');
        }
        all.append(&mut payload);
    }
    // Packets are text; attachments are written in base64.
    String::from_utf8(all).unwrap_or_default()
}

/// Writes the outbox until it is empty or the socket is full. A single frame is written as it is, several are joined.
/// Answers the number of bytes, too.
fn write_out(
    connection: &mut Connection,
    stream: &Socket,
    with_offset: bool,
    scratch: &mut Vec<u8>,
) -> (Flushed, usize) {
    let format = connection.format();
    let mut sum = 0;
    match stream.try_flush() {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => return (Flushed::Blocked, 0),
        Err(_) => return (Flushed::Broken, 0),
    }
    while !connection.outbox.is_empty() {
        if sum >= BYTES_PER_TURN {
            return (Flushed::Some, sum);
        }
        let wrote = if connection.outbox.len() == 1 {
            let (mut frames, written) = connection.outbox.waiting();
            let Some(frame) = frames.next() else { break };
            stream.try_write(&encode(frame, format, with_offset)[written..])
        } else {
            gather(connection, format, with_offset, scratch);
            stream.try_write(scratch)
        };
        match wrote {
            Ok(0) => return (Flushed::Broken, sum),
            Ok(bytes) => {
                sum += bytes;
                connection.outbox.wrote(bytes, |frame| frame_len(frame, format, with_offset));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (Flushed::Blocked, sum),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return (Flushed::Broken, sum),
        }
    }
    // With TLS, the end of the last write may wait.
    (if stream.has_unsent() { Flushed::Blocked } else { Flushed::All }, sum)
}

fn gather(connection: &Connection, format: Format, with_offset: bool, scratch: &mut Vec<u8>) {
    scratch.clear();
    let (frames, mut skip) = connection.outbox.waiting();
    for frame in frames {
        let bytes = encode(frame, format, with_offset);
        scratch.extend_from_slice(&bytes[skip..bytes.len().min(skip + GATHER_BYTES)]);
        if bytes.len() > skip + GATHER_BYTES || scratch.len() >= GATHER_BYTES {
            return;
        }
        skip = 0;
    }
}

fn frame_len(frame: &Frame, format: Format, with_offset: bool) -> usize {
    encode(frame, format, with_offset).len()
}
