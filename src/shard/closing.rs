//! How a connection ends.

use crate::model::close::{CloseReason, DropReason, jittered};
use crate::model::millis::Millis;
use crate::model::refusal::Refusal;
use crate::model::transport::Protocol;
use crate::protocol::{plain_ws, sse, websocket};
use crate::session::connection::{ConnectionKey, Link};
use crate::session::frame::Frame;
use crate::shard::hub::Hub;
use bytes::Bytes;
use std::time::Duration;

/// How long a closing connection may take to flush and hang up before it is cut.
const CLOSING: Duration = Duration::from_secs(2);
/// The same for one whose place others wait for.
const EVICTING: Duration = Duration::from_millis(50);

impl Hub {
    /// Begins to end a connection. Its sessions leave their rooms at once, the close frame or packet says why, and the rest
    /// of the outbox is flushed. It is cut if that takes too long.
    pub(super) fn close(&mut self, key: ConnectionKey, reason: CloseReason, now: Millis) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.closing.is_some() {
            return;
        }
        connection.closing = Some(reason);
        self.note_refusal(key, reason);
        let Some(connection) = self.connections.get_mut(key) else { return };
        self.context.metrics.connections.closed(reason);
        // One by one, so that each sees which others are left: presence counts a user once on a connection.
        let sessions = connection.sessions.clone();
        for session in sessions.iter().copied() {
            self.dismiss(session, reason, now);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(pending) = connection.pending.take() {
            self.release_pending(&pending);
            self.context.metrics.events.dropped(DropReason::Unhandled, pending.messages() as u64);
        }
        self.drop_unfinished(key);
        let drops = matches!(reason, CloseReason::SlowConsumer | CloseReason::PingTimeout | CloseReason::Memory);
        if drops && let Some(connection) = self.connections.get(key) {
            self.note_lost(key, usize::from(connection.outbox.is_mid_frame()));
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        if drops {
            // The reason should not wait behind what the client did not take.
            let lost = connection.outbox.keep_started();
            self.context.metrics.events.dropped(DropReason::ClosedWithQueue, lost as u64);
        }
        let wait = match &mut connection.link {
            Link::Polling(polling) => {
                let leaves = matches!(reason, CloseReason::ClientClose | CloseReason::TransportClose);
                let noop = leaves && connection.outbox.is_empty();
                connection.outbox.push(Frame::Engine(Bytes::from_static(if noop { b"6" } else { b"1" })));
                // If no GET waits and the client ended it itself, its next request finds no session
                // (docs/protocol/socketio.md sections 2.5 and 2.6). A node that stops gets no further request.
                let comes_again = !ended_by_client(reason) && reason != CloseReason::Draining;
                if polling.waiting.is_none() && !comes_again { Duration::ZERO } else { CLOSING }
            }
            Link::WebSocket(_) => {
                for frame in closing_frames(connection.protocol, reason) {
                    connection.outbox.push(Frame::Raw(frame));
                }
                if reason == CloseReason::Evicted { EVICTING } else { CLOSING }
            }
            Link::Sse(_) => {
                if let Some(after) = reason.retry() {
                    connection.outbox.push(Frame::Raw(sse::retry_block(jittered(after.max(sse::MIN_RETRY)))));
                }
                CLOSING
            }
        };
        connection.timers.closing(now.after(wait));
        connection.wake();
        self.flusher.list(key, connection);
        self.connections.reschedule(key);
    }

    /// Notes a close that is a refusal of what the client sends.
    fn note_refusal(&self, key: ConnectionKey, reason: CloseReason) {
        let (refusal, why) = match reason {
            CloseReason::RateLimit => (Refusal::Rate, "more messages than limits.events_per_second allows"),
            CloseReason::Evicted => {
                (Refusal::Unauthenticated, "no accepted token, and newer connections need the room")
            }
            CloseReason::ConnectTimeout => {
                (Refusal::Unauthenticated, "no accepted token within socketio.connect_timeout")
            }
            CloseReason::SlowConsumer => (
                Refusal::Slow,
                "more unsent bytes than limits.outbox_bytes, none of them taken for socketio.ping_timeout, or a replay that \
                 it read more slowly than events left the window",
            ),
            CloseReason::Memory => (Refusal::Memory, "the node is near limits.memory, and the connection holds much"),
            CloseReason::Incomplete => {
                (Refusal::Incomplete, "a message or its attachments did not arrive whole in time")
            }
            CloseReason::TooBig => (
                Refusal::Size,
                "a message over socketio.max_payload, or over limits.auth_bytes before its token was accepted",
            ),
            CloseReason::InvalidText => (Refusal::Protocol, "a text message that is not UTF-8"),
            CloseReason::ParseError => (Refusal::Protocol, "bytes that break the protocol"),
            CloseReason::Overlap => (Refusal::Protocol, "two long-polling requests of one kind at once"),
            _ => return,
        };
        self.context.refusals.note(refusal, &self.who(key), format_args!("{why}; it is closed"));
    }

    /// Forgets a connection whose transport is gone; its sessions may resume.
    pub(super) fn remove(&mut self, key: ConnectionKey, now: Millis) {
        self.close(key, CloseReason::TransportClose, now);
        self.forget(key);
    }

    /// Takes a connection without sessions out of all tables.
    pub(super) fn forget(&mut self, key: ConnectionKey) {
        self.drop_unfinished(key);
        self.note_lost(key, 0);
        self.history.closed(key);
        let Some(mut connection) = self.connections.remove(key) else { return };
        if let Some(pending) = &connection.pending {
            self.release_pending(pending);
        }
        self.context.metrics.connections.open(connection.link.transport(), connection.protocol).dec();
        let lost = connection.outbox.clear();
        self.context.metrics.events.dropped(DropReason::ClosedWithQueue, lost as u64);
        connection.wake();
    }
}

/// Whether the client itself caused the end, so that it does not wait for a message about it.
fn ended_by_client(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::ClientClose
            | CloseReason::TransportClose
            | CloseReason::PingTimeout
            | CloseReason::ParseError
            | CloseReason::Overlap
            | CloseReason::Replaced
            // Those may be very many, and newer ones wait for their place.
            | CloseReason::Evicted
    )
}

/// The last frames of a WebSocket connection.
fn closing_frames(protocol: Protocol, reason: CloseReason) -> Vec<Bytes> {
    if protocol == Protocol::SocketIo {
        // Engine.IO closes without a code, except for a message over maxPayload (docs/protocol/socketio.md sections 2.7
        // and 2.9).
        let code = (reason == CloseReason::TooBig).then_some(1009);
        return vec![websocket::close_frame(code, "")];
    }
    let retry = reason.retry().map(|after| u64::try_from(jittered(after).as_millis()).unwrap_or(u64::MAX));
    vec![
        websocket::text_frame(&plain_ws::closing(reason.label(), retry)),
        websocket::close_frame(reason.code(), reason.label()),
    ]
}
