//! What happens at deadlines: pings, timeouts, expired tokens, and cuts of closing connections.

use crate::model::close::CloseReason;
use crate::model::millis::Millis;
use crate::model::transport::Protocol;
use crate::protocol::sse;
use crate::protocol::websocket::{Opcode, push_frame};
use crate::session::connection::{Connection, ConnectionKey, Link};
use crate::session::frame::Frame;
use crate::session::timers::{Due, Heartbeat};
use crate::shard::hub::Hub;
use bytes::Bytes;
use std::time::Duration;

/// A ping: of Engine.IO, or of WebSockets, which browsers answer without the application.
pub(super) fn ping_frame(protocol: Protocol) -> Frame {
    if protocol == Protocol::SocketIo {
        return Frame::Engine(Bytes::from_static(b"2"));
    }
    let mut frame = Vec::with_capacity(2);
    push_frame(&mut frame, Opcode::Ping, b"");
    Frame::Raw(frame.into())
}

/// Pings that a message may take to arrive whole, with its attachments.
const MAX_PINGS: u8 = 2;

/// Called when a ping is due: whether what arrives has been unfinished for too long.
fn has_stale_message(connection: &mut Connection) -> bool {
    connection.unfinished.grow_old() >= MAX_PINGS
}

impl Hub {
    /// Does everything that is due.
    pub(super) fn fire(&mut self, now: Millis) {
        while let Some(key) = self.connections.pop_due(now) {
            self.check_deadline(key, now);
            self.connections.reschedule(key);
        }
        self.parked.expire(now);
        self.forget_dropped();
        self.note_outboxes();
    }

    /// Removes the records of sessions that were not resumed in time.
    pub(super) fn forget_dropped(&mut self) {
        for pid in self.parked.take_dropped() {
            self.note_record(pid);
        }
        self.note_parked();
    }

    /// Does what is due for one connection. Also called for a polling request that comes just before the table would fire.
    pub(super) fn check_deadline(&mut self, key: ConnectionKey, now: Millis) {
        let ping_timeout = self.context.socketio.ping_timeout;
        while let Some(connection) = self.connections.get_mut(key) {
            let Some(due) = connection.timers.due(now, ping_timeout) else { return };
            match due {
                Due::Ping => self.ping(key, now),
                // The ping waits behind bytes that are being taken, or else the write timeout closes it.
                Due::PingTimeout if connection.blocked => connection.timers.await_pong(now.after(ping_timeout)),
                Due::PingTimeout => self.close(key, CloseReason::PingTimeout, now),
                Due::WriteTimeout => self.close(key, CloseReason::SlowConsumer, now),
                Due::ConnectTimeout => self.close(key, CloseReason::ConnectTimeout, now),
                Due::Expired => self.expire_sessions(key, now),
                Due::Cut => self.cut(key, now),
            }
        }
    }

    fn ping(&mut self, key: ConnectionKey, now: Millis) {
        let (interval, timeout) = (self.context.socketio.ping_interval, self.context.socketio.ping_timeout);
        let Some(connection) = self.connections.get_mut(key) else { return };
        if has_stale_message(connection) {
            return self.close(key, CloseReason::Incomplete, now);
        }
        let waits = !connection.outbox.is_empty() || connection.has_replays();
        if waits && !matches!(connection.link, Link::WebSocket(_)) && connection.timers.write_by.is_none() {
            // Its client asks for what waits by itself; a WebSocket that takes nothing is noticed when it is written to.
            connection.timers.write_by = Some(now.after(interval + timeout));
        }
        let frame = match connection.protocol {
            protocol @ (Protocol::SocketIo | Protocol::PlainWs) => ping_frame(protocol),
            Protocol::Sse => {
                // SSE has no answer. This detects dead peers, keeps proxies from closing an idle stream, and moves the resume
                // point of a client whose own rooms are quiet.
                connection.timers.heartbeat = Heartbeat::PingAt(now.after(interval));
                if waits {
                    return;
                }
                let mut alive = sse::comment().to_vec();
                alive.extend_from_slice(&sse::id_block(&self.position));
                Frame::Raw(alive.into())
            }
        };
        // Behind all that waits it might come too late.
        self.push_ahead(key, frame);
    }

    /// A connection has taken some of what waits, all of it, or nothing.
    pub(super) fn note_write(&mut self, key: ConnectionKey, progress: bool, now: Millis) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let by = now.after(self.context.socketio.ping_timeout);
        let timers = &mut connection.timers;
        match (connection.blocked, timers.write_by) {
            (true, None) => {
                timers.write_by = Some(by);
                self.connections.reschedule(key);
            }
            // The table keeps the earlier time, and looks again then.
            (true, Some(_)) if progress => timers.write_by = Some(by),
            (true, Some(_)) => {}
            (false, _) => {
                timers.write_by = None;
                if let Heartbeat::PongBy(at) = timers.heartbeat {
                    // The ping is behind what the kernel has still to send.
                    timers.await_pong(by.max(at));
                }
            }
        }
    }

    /// Starts the heartbeat and the connect timeout of a new connection, which has `waited` for so much of the latter.
    pub(super) fn start_timers(&mut self, key: ConnectionKey, waited: Duration, now: Millis) {
        let interval = self.context.socketio.ping_interval;
        let connect = self.context.socketio.connect_timeout.saturating_sub(waited);
        let is_sse = self.connections.get(key).is_some_and(|connection| matches!(connection.link, Link::Sse(_)));
        let connect_by = (!is_sse).then(|| now.after(connect));
        self.connections.change_timers(key, |timers| timers.start(now.after(interval), connect_by));
    }

    /// The client has answered a ping.
    pub(super) fn pong(&mut self, key: ConnectionKey, now: Millis) {
        let interval = self.context.socketio.ping_interval;
        self.connections.change_timers(key, |timers| timers.pong(now, interval));
        self.confirm_replay(key, now);
    }

    /// The client has sent something, so it lives.
    pub(super) fn alive(&mut self, key: ConnectionKey, now: Millis) {
        let interval = self.context.socketio.ping_interval;
        self.connections.change_timers(key, |timers| timers.pong(now, interval));
        self.trust_replay(key);
    }

    /// A token has expired: the whole connection closes, and its client reconnects with a fresh one (docs/protocol/websocket.md section 5).
    /// If the session of that token has ended already, the next token to expire counts; a client that has left all namespaces
    /// has none.
    fn expire_sessions(&mut self, key: ConnectionKey, now: Millis) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let sessions = connection.sessions.iter().filter_map(|key| self.sessions.get(*key));
        match sessions.filter_map(|session| session.expires).min() {
            None if !connection.sessions.is_empty() => {}
            Some(at) if at > now => connection.timers.expires = Some(at),
            Some(_) | None => self.close(key, CloseReason::TokenExpired, now),
        }
    }

    /// Cuts a connection that did not close in time.
    fn cut(&mut self, key: ConnectionKey, now: Millis) {
        if let Some(Link::Sse(cut)) = self.connections.get(key).map(|connection| &connection.link) {
            cut.cut();
        }
        self.remove(key, now);
    }
}
