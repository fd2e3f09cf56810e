//! Connections: what is queued at the server, what is on the wire, and which ends are still open.

use bytes::Bytes;
use roomcast::model::event::Event;
use roomcast::model::id::Id;
use roomcast::model::names::Room;
use roomcast::model::place::Place;
use roomcast::session::connection::SessionKey;
use roomcast::session::frame::Frame;
use roomcast::session::outbox::Outbox;
use roomcast::session::parked::Parked;
use roomcast::session::replay::Missed;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    SocketIo,
    PlainWs,
    Sse,
}

/// From the client.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    /// The handshake; a Socket.IO client's pid and offset, or an SSE client's `Last-Event-ID` and rooms.
    Connect {
        pid: Option<Id>,
        offset: Option<String>,
        rooms: Vec<Room>,
    },
    /// With `since` only on `/ws`.
    Join {
        room: Room,
        since: Option<String>,
    },
    Leave {
        room: Room,
    },
}

/// To the client.
#[derive(Clone)]
pub(crate) enum Down {
    /// With the name of a room, which only `/ws` sends, and the text of its place.
    Event(Arc<Event>, Room, String),
    /// The CONNECT reply, or the head of the SSE response.
    Connected {
        sid: Id,
        pid: Option<Id>,
        start: Place,
        rooms: Vec<Room>,
    },
    Joined {
        change: u64,
        room: Room,
        after: Place,
        offset: String,
        recovered: Option<bool>,
    },
    Left {
        change: u64,
    },
    Gap(Option<Room>, Place),
    /// An SSE block with only an id.
    Position(Place),
}

/// What a packet waits for at the server.
pub(crate) enum Work {
    /// For this shard to reach the offset that the client has seen.
    CatchUp { until: u64, packet: Up },
    /// For the other shards, then the store; `asked` counts them.
    Take { asked: usize, pid: Id, offset: Option<Place> },
    /// For this shard to reach the offset of the session.
    Resume { until: u64, reach: Place, after: Place, pid: Id, parked: Box<Parked>, fetched: bool },
    /// For this shard to reach where the log was read again.
    Fetched { until: u64, reach: Place, packet: Up },
    /// For this shard to pass what the tail left out of the rooms of the packet.
    Enter { packet: Up },
    /// The same, for a session that begins.
    Begin,
}

pub(crate) struct Conn {
    pub client: usize,
    pub kind: Kind,
    pub node: usize,
    pub shard: usize,
    pub session: Option<SessionKey>,
    pub outbox: Outbox,
    raw: VecDeque<Down>,
    replay: usize,
    pub room_on_wire: usize,
    pub work: Option<Work>,
    pub up: VecDeque<Up>,
    pub down: VecDeque<Down>,
    /// Whether the client still listens.
    pub client_open: bool,
    /// The server closes it once the queue is written.
    pub closing: bool,
}

pub(crate) type Wires = BTreeMap<u64, Conn>;

impl Conn {
    pub(crate) fn new(client: usize, kind: Kind, node: usize, shard: usize, room_on_wire: usize) -> Self {
        Self {
            client,
            kind,
            node,
            shard,
            session: None,
            outbox: Outbox::default(),
            raw: VecDeque::new(),
            replay: 0,
            room_on_wire,
            work: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            client_open: true,
            closing: false,
        }
    }

    /// Queues a packet for this connection alone.
    pub(crate) fn push_own(&mut self, packet: Down) {
        if self.closing {
            return;
        }
        // Only its size counts in the outbox; the packet itself is kept beside it.
        let size = if let Down::Event(event, ..) = &packet { event.size() } else { 60 };
        self.raw.push_back(packet);
        self.outbox.push(Frame::Raw(Bytes::from(vec![0; size])));
    }

    /// As the shard queues the next slice of what a session has still to get.
    pub(crate) fn queue_missed(&mut self, missed: Vec<Missed>) {
        let before = self.outbox.bytes();
        for Missed { event, room, place, .. } in missed {
            match self.kind {
                Kind::PlainWs => {
                    let room = event.draft.rooms[room].clone();
                    let place = place.map_or_else(|| event.offset.to_string(), |place| place.to_string());
                    self.push_own(Down::Event(event, room, place));
                }
                _ => self.outbox.push(match place {
                    None => Frame::event(event),
                    Some(place) => Frame::placed(event, &place),
                }),
            }
        }
        self.replay = self.replay.min(before) + self.outbox.bytes() - before;
    }

    /// Whether the outbox is over its limit.
    pub(crate) fn is_over(&self, max: usize) -> bool {
        !self.closing && self.outbox.len() > 1 && self.outbox.bytes() > max + self.replay
    }

    /// The socket takes as much as it has room for.
    pub(crate) fn flush(&mut self) {
        while self.down.len() < self.room_on_wire
            && let Some(frame) = self.outbox.pop()
        {
            let packet = match frame {
                Frame::Event(delivery) => {
                    let event = delivery.event.clone();
                    Down::Event(event.clone(), event.draft.rooms[0].clone(), event.offset.to_string())
                }
                Frame::Placed(delivery) => {
                    let event = delivery.event.clone();
                    Down::Event(event.clone(), event.draft.rooms[0].clone(), delivery.place.to_string())
                }
                _ => self.raw.pop_front().expect("a packet for each raw frame"),
            };
            self.down.push_back(packet);
        }
        if self.outbox.is_empty() {
            self.replay = 0;
        }
    }

    /// Drops what a slow consumer did not take.
    pub(crate) fn forget_queue(&mut self) {
        self.outbox.keep_started();
        self.raw.clear();
    }
}
