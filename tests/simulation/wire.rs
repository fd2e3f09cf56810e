//! Connections: what is queued at the server, what is on the wire, and who still holds which end.

use bytes::Bytes;
use roomcast::model::event::Event;
use roomcast::model::id::Id;
use roomcast::model::names::Room;
use roomcast::model::offset::Offset;
use roomcast::session::connection::SessionKey;
use roomcast::session::outbox::{Frame, Outbox};
use roomcast::session::parked::Parked;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    SocketIo,
    Json,
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
    /// Under the name of a room, which only `/ws` shows.
    Event(Arc<Event>, Room),
    /// The CONNECT reply, or the head of the SSE response.
    Connected {
        sid: Id,
        pid: Option<Id>,
        start: Offset,
        rooms: Vec<Room>,
    },
    Joined {
        change: u64,
        room: Room,
        after: Offset,
        offset: String,
        recovered: Option<bool>,
    },
    Left {
        change: u64,
    },
    Gap(Option<Room>, Offset),
    /// An SSE block that only names the place.
    Place(Offset),
}

/// Where the server is with a packet that waits for something.
pub(crate) enum Work {
    /// For this shard to come to what the client has seen.
    CatchUp { until: u64, packet: Up },
    /// For the other shards, then the store; so many were asked.
    Take { asked: usize, pid: Id, offset: Option<Offset> },
    /// For this shard to come to where the session was.
    Resume { until: u64, reach: Offset, after: Offset, pid: Id, parked: Parked },
}

pub(crate) struct Conn {
    pub client: usize,
    pub kind: Kind,
    pub node: usize,
    pub shard: usize,
    pub session: Option<SessionKey>,
    pub outbox: Outbox,
    words: VecDeque<Down>,
    replay: usize,
    pub room_on_wire: usize,
    pub work: Option<Work>,
    pub up: VecDeque<Up>,
    pub down: VecDeque<Down>,
    /// Whether the client still listens.
    pub client_open: bool,
    /// The server ends it once the queue is written.
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
            words: VecDeque::new(),
            replay: 0,
            room_on_wire,
            work: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            client_open: true,
            closing: false,
        }
    }

    /// Queues what is for this connection alone.
    pub(crate) fn push_word(&mut self, word: Down) {
        if self.closing {
            return;
        }
        // Its size is what counts in the outbox; the word itself stays beside it.
        let size = if let Down::Event(event, _) = &word { event.size() } else { 60 };
        self.words.push_back(word);
        self.outbox.push(Frame::Raw(Bytes::from(vec![0; size])));
    }

    /// `hub/table.rs::replay`.
    pub(crate) fn replay(&mut self, missed: Vec<Arc<Event>>, room: Option<&Room>) {
        let before = self.outbox.bytes();
        for event in missed {
            match room {
                Some(room) => self.push_word(Down::Event(event, room.clone())),
                None => self.outbox.push(Frame::event(event)),
            }
        }
        self.replay += self.outbox.bytes() - before;
    }

    pub(crate) fn is_replaying(&self, max: usize) -> bool {
        self.replay > max
    }

    /// `hub/delivery.rs::is_over`.
    pub(crate) fn is_over(&self, max: usize) -> bool {
        !self.closing && self.outbox.len() > 1 && self.outbox.bytes() > max + self.replay
    }

    /// The socket takes what it has room for.
    pub(crate) fn flush(&mut self) {
        while self.down.len() < self.room_on_wire
            && let Some(frame) = self.outbox.pop()
        {
            let word = match frame {
                Frame::Event(delivery) => Down::Event(delivery.event.clone(), delivery.event.draft.rooms[0].clone()),
                _ => self.words.pop_front().expect("a word beside each raw frame"),
            };
            self.down.push_back(word);
        }
        if self.outbox.is_empty() {
            self.replay = 0;
        }
    }

    /// What a slow consumer did not take is dropped.
    pub(crate) fn forget_queue(&mut self) {
        self.outbox.keep_started();
        self.words.clear();
    }
}
