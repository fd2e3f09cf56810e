//! A shard as the code on its thread uses it. Every method borrows the tables for a moment and gives them back, so nothing
//! of them is held across an await.

use crate::cluster::{Confirmed, Owner};
use crate::log::window::RecentLog;
use crate::model::id::Id;
use crate::model::millis::Millis;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::Offset;
use crate::model::place::Place;
use crate::presence::RoomStatus;
use crate::session::outbox;
use crate::session::parked::Parked;
use crate::shard::context::{ShardContext, ShardObserver};
use crate::shard::ended::EndedQueue;
use crate::shard::hub::Hub;
use crate::shard::hub_cell::HubCell;
use crate::shard::release::{Taken, Taker};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// How far behind another node, or its own appends, this one may be: the time between two reads of the tail, and what a machine
/// that is busy with others adds. Longer would hold clients for long that name an offset from the future.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How long the way of what was read to a shard may take. Longer than a full queue of the shard.
const PASSED: Duration = Duration::from_secs(5);
/// How long a client that wants what it missed is held while a node that has just started reads its history.
const HISTORY_READ: Duration = Duration::from_secs(5);
/// Bytes read from a socket at once, into the one buffer that all connections of a shard share.
const READ_BUFFER: usize = 64 << 10;

/// One shard: its clients and their sessions, on one thread.
pub struct Shard {
    /// Its number; sids carry it.
    pub index: u8,
    /// What all shards of the node share.
    pub context: Arc<ShardContext>,
    pub(super) observer: Arc<dyn ShardObserver>,
    pub(super) hub: Rc<HubCell>,
    /// Where sockets are read into.
    buffer: RefCell<Box<[u8]>>,
    pub(super) started: Instant,
    /// Wakes the shard's loop.
    pub(super) wake: Arc<Notify>,
    /// Notified whenever the shard's position moves.
    advanced: Arc<Notify>,
}

/// What a shard holds.
#[derive(Clone, Debug, Default)]
pub struct ShardCounts {
    /// Rooms with members.
    pub rooms: usize,
    /// Sessions, with those that may resume.
    pub sessions: usize,
    /// Bytes that wait to be written.
    pub outbox_bytes: usize,
    /// Live sessions by namespace.
    by_namespace: Vec<u32>,
}

impl ShardCounts {
    /// Live sessions in a namespace.
    pub fn in_namespace(&self, namespace: NamespaceIndex) -> u64 {
        self.by_namespace.get(namespace.place()).map_or(0, |count| u64::from(*count))
    }
}

impl Shard {
    pub(super) fn new(
        index: u8,
        context: Arc<ShardContext>,
        observer: Arc<dyn ShardObserver>,
        ended: EndedQueue,
    ) -> Rc<Self> {
        let wake = Arc::new(Notify::new());
        let hub = Hub::new(index, context.clone(), &wake, ended);
        Rc::new(Self {
            index,
            advanced: hub.advanced.clone(),
            hub: Rc::new(HubCell::new(hub)),
            started: context.started,
            context,
            observer,
            buffer: RefCell::new(vec![0; READ_BUFFER].into()),
            wake,
        })
    }

    /// The shard's clock.
    pub fn now(&self) -> Millis {
        self.context.now()
    }

    /// A time of the wall clock (Unix seconds) on the shard's clock.
    pub(super) fn at_unix(&self, seconds: u64) -> Millis {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_secs(seconds).saturating_sub(unix);
        self.now().after(left)
    }

    /// A fresh identifier that leads back to this shard, also from other nodes, which recognize it.
    pub fn fresh_id(&self) -> Id {
        match &self.context.cluster {
            Some(cluster) => cluster.fresh_id(self.index),
            None => Id::random_at(self.context.node_id, self.index),
        }
    }

    /// What other nodes may know of a sid.
    pub fn confirm_sid(&self, sid: Id) -> Confirmed {
        let hub = self.hub.borrow();
        let connection = hub.connections.by_sid(sid).and_then(|key| hub.connections.get(key));
        match connection {
            None => Confirmed::Unknown,
            Some(connection) if connection.permit.is_proven() => Confirmed::Proven,
            Some(_) => Confirmed::Unproven,
        }
    }

    /// The last event of each line of the log that the shard has delivered.
    pub fn position(&self) -> Place {
        self.hub.borrow().position.clone()
    }

    /// Whether every line of the log has begun: before that a node can prove nothing.
    pub fn has_begun(&self) -> bool {
        self.hub.borrow().position.has_begun()
    }

    /// Where the shard is on the lines of some rooms.
    pub fn place_of(&self, rooms: &[Room]) -> Place {
        let partitions = self.context.window.partitions();
        self.hub.borrow().position.only(partitions.of_all(rooms).collect())
    }

    /// Waits until the shard has come to a position that a client has already seen, through a node that was ahead;
    /// for a bounded time. What is live from then on is new to that client.
    pub async fn catch_up_with(&self, place: &Place) {
        self.come_to(place, CATCH_UP).await;
    }

    /// The same for what may bring events to these rooms: of other lines a client may know what it does not need.
    pub async fn catch_up_with_rooms(&self, place: &Place, rooms: &[Room]) {
        self.catch_up_with(&place.only(self.context.window.partitions().of_all(rooms).collect())).await;
    }

    /// Waits until the shard has come to a place, for a bounded time.
    pub async fn come_to(&self, place: &Place, within: Duration) {
        if self.has_come_to(place) {
            return;
        }
        let reached = async {
            loop {
                let advanced = self.advanced.notified();
                if self.has_come_to(place) {
                    return;
                }
                advanced.await;
            }
        };
        // The wait ends without a result for an offset from the future; the resume then reports that.
        let _ = tokio::time::timeout(within, reached).await;
    }

    /// Waits until the shard has passed what the tail left out of these rooms before they were wanted, for a bounded time: who
    /// joins then gets everything that comes after the shard's position. The rooms are wanted from now on.
    pub async fn pass_left_out(&self, namespace: NamespaceIndex, rooms: &[Room]) {
        let interest = self.context.window.interest();
        if interest.is_everything() {
            return;
        }
        rooms.iter().for_each(|room| interest.touch(namespace, room));
        let namespace = self.context.namespaces.name(namespace);
        let passed = async {
            loop {
                let advanced = self.advanced.notified();
                if self.has_passed_left_out(namespace, rooms) {
                    return;
                }
                advanced.await;
            }
        };
        // What was read is on its way to this shard, so that this hardly ever takes long.
        let _ = tokio::time::timeout(PASSED, passed).await;
    }

    /// Whether the shard has passed what was left out of these rooms, on each of their lines.
    fn has_passed_left_out(&self, namespace: &str, rooms: &[Room]) -> bool {
        let (here, window) = (self.position(), &self.context.window);
        window.partitions().of_all(rooms).all(|line| {
            // Where the line begins anew, all that was known of the rooms changes too.
            let since = window.interest().since(line, namespace, rooms);
            // Nor does what was read again since come live.
            let since = since.max(Some(window.filled_up_to(line)));
            let is_passed = |here: Offset| {
                here.epoch == window.head_of(line).epoch && since.is_none_or(|since| since <= here.position)
            };
            here.on(line).is_none_or(is_passed)
        })
    }

    /// Whether the shard has come to a place on all of its lines that are of the same log.
    fn has_come_to(&self, place: &Place) -> bool {
        let here = &self.hub.borrow().position;
        let is_there = |there: Offset| {
            here.on(there.line).is_none_or(|here| here.epoch != there.epoch || here.position >= there.position)
        };
        here.has_begun() && place.offsets().all(is_there)
    }

    /// Waits until the history is read, but not for ever: a node that has just started can prove nothing before.
    pub async fn history_read(&self) {
        let read = async {
            loop {
                let advanced = self.advanced.notified();
                if self.has_begun() {
                    return;
                }
                advanced.await;
            }
        };
        // The wait ends without a result while the log's server is away; the client then gets a gap signal.
        let _ = tokio::time::timeout(HISTORY_READ, read).await;
    }

    /// Runs `act` with the buffer that sockets are read into. `act` must not ask for it again.
    pub fn with_read_buffer<T>(&self, act: impl FnOnce(&mut [u8]) -> T) -> T {
        act(&mut self.buffer.borrow_mut())
    }

    /// How much the shard holds.
    pub fn counts(&self) -> ShardCounts {
        let hub = self.hub.borrow();
        ShardCounts {
            rooms: hub.rooms.len(),
            sessions: hub.sessions.len() + hub.parked.len(),
            outbox_bytes: outbox::totals().plus(hub.outbox_totals).waiting(),
            by_namespace: hub.sessions.by_namespace().to_vec(),
        }
    }

    /// The members of a room on this shard. A user is listed once for each of their sessions.
    pub fn room_status(&self, namespace: NamespaceIndex, room: &str) -> RoomStatus {
        let hub = self.hub.borrow();
        let members = hub.rooms.find(namespace, room).map(|room| hub.rooms.members(room));
        let mut status = RoomStatus::default();
        for session in members.into_iter().flatten().filter_map(|key| hub.sessions.get(key)) {
            status.connections += 1;
            status.users.extend(session.identity.user.as_ref().map(|user| user.as_str().to_owned()));
        }
        status
    }

    /// Takes the session with this pid, parked or still live on a half-open connection, if it is `owner`'s. For anybody
    /// else it stays as it is.
    pub fn take_session(&self, pid: Id, owner: &Owner, taker: Taker) -> Option<Taken> {
        let now = self.now();
        self.hub.borrow_mut().take_for_resume(pid, owner, taker, now)
    }

    /// This shard writes the session's record from now on, of which another shard has written so many parts.
    pub fn inherit_record(&self, pid: Id, parts: u8) {
        if let Some(persister) = &mut self.hub.borrow_mut().persister {
            persister.inherit(pid, parts);
        }
    }

    /// The session with this pid was taken and does not continue here: its record is removed.
    pub fn drop_record(&self, pid: Id) {
        self.hub.borrow_mut().note_record(pid);
    }

    /// Keeps a session for a resume within the window.
    pub fn park(&self, pid: Id, parked: Parked) {
        let now = self.now();
        let mut hub = self.hub.borrow_mut();
        hub.park(pid, parked, None, now);
        hub.note_record(pid);
    }

    /// Other nodes were asked about this session, so that it is no longer stale.
    pub fn confirm(&self, pid: Id) {
        if let Some(persister) = &mut self.hub.borrow_mut().persister {
            persister.confirm(pid);
        }
    }

    /// This node was away. Others may have taken up any of its sessions.
    pub fn mark_stale(&self) {
        self.hub.borrow_mut().mark_stale();
    }

    /// Notes whether other nodes can reach this one.
    pub fn be_reachable(&self, reachable: bool) {
        self.hub.borrow_mut().be_reachable(reachable);
    }

    /// Writes all records again, and reports the round to the observer when they are written.
    pub fn rewrite_records(&self, round: u64) {
        if !self.hub.borrow_mut().rewrite(round) {
            self.observer.records_rewritten(round);
        }
    }

    /// Work for an ended session is under way that the graceful stop has to wait for, besides its place in the queue.
    pub fn begin_disconnect_work(&self) {
        self.hub.borrow_mut().ended.begin();
    }

    /// So many ended sessions, or pieces of such work, are done.
    pub fn finish_disconnect_work(&self, count: usize) {
        self.hub.borrow_mut().ended.finish(count);
    }

    /// Connections, and ended sessions whose `disconnect` rule is not carried out yet.
    pub fn left_to_drain(&self) -> usize {
        let hub = self.hub.borrow();
        hub.connections.len() + hub.ended.pending()
    }
}
