//! Which users are online, and which are in a room, counted over connections, tabs and nodes.
//!
//! Each node keeps a [`tracker::Table`] of what its own connections make true, and writes what changes to a [`Store`] that
//! all nodes share. Only the store can decide what a change means for the whole cluster: that a user came online, or that
//! a room has its first member. It reports that exactly once, and appends `joined` and `left` to the log in the same step.

mod changes;
pub mod config;
pub mod local;
pub mod memory;
pub mod redis;
pub mod tracker;
pub mod writer;

use crate::log::BoxFuture;
use crate::model::draft::Draft;
use crate::model::names::{Namespace, Room};
use std::sync::Arc;
use tracker::Millis;

/// Something that is true as long as a node has a connection for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// A user is connected.
    Online(Arc<str>),
    /// Somebody is in a room.
    Inside(Arc<Inside>),
}

/// Somebody who is in a room.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Inside {
    /// The room's namespace.
    pub namespace: Namespace,
    /// The room.
    pub room: Room,
    /// Who; `None` is a client without a user.
    pub user: Option<Arc<str>>,
}

impl Fact {
    /// Somebody is in a room.
    pub fn inside(namespace: Namespace, room: Room, user: Option<Arc<str>>) -> Self {
        Self::Inside(Arc::new(Inside { namespace, room, user }))
    }

    /// Whether it is that this user is connected.
    pub fn is_online(&self, user: &str) -> bool {
        matches!(self, Self::Online(own) if **own == *user)
    }
}

/// The announcements of a user to the others in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// When the first connection of the user joins.
    pub joined: Option<Draft>,
    /// When the last one is gone.
    pub left: Option<Draft>,
}

/// Why a connection no longer makes a fact true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// On purpose: it left, or was made to.
    Left,
    /// Its transport is gone; it may come back within the grace.
    Lost,
    /// Its join was refused afterwards. If the store does not have it yet, it is never announced.
    Undone,
}

/// Names a change of this node, in the order of changes. It is in the store once every change up to it is; the default is
/// always there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A fact of this node that is not as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The fact.
    pub fact: Fact,
    /// Connections now; `None`: it is no longer true.
    pub count: Option<u32>,
    /// Whether it is announced. It is not when the store merely lost its data and gets it again.
    pub news: bool,
    /// The announcements to the others.
    pub messages: Option<Arc<Messages>>,
    /// How long ago the last connection ended.
    pub age: Millis,
}

/// What a change meant to the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What changed.
    pub kind: TransitionKind,
    /// When, in Unix milliseconds by the store's clock.
    pub at_ms: u64,
}

/// See [`Transition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransitionKind {
    /// A user's first connection.
    Online(String),
    /// A user's last connection is gone, and when it went, in Unix milliseconds.
    Offline(String, u64),
    /// A room's first member.
    Occupied(Namespace, Room),
    /// A room's last member is gone.
    Vacated(Namespace, Room),
}

/// What became of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// They are in the store.
    Done {
        /// What they meant.
        transitions: Vec<Transition>,
        /// How many `joined` and `left` events were appended.
        events: u64,
        /// Whether users of nodes that died are still to be removed.
        more: bool,
    },
    /// Nothing was done: the store does not know what this node wrote before.
    Behind,
}

/// What the store knows of this node after [`Store::reset`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The facts it has.
    pub facts: Vec<Fact>,
    /// Whether it has lost something (a flush, a failover to a replica that was behind). Else this node counted as dead,
    /// and its users were announced as gone.
    pub lost: bool,
}

/// A user, over the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserStatus {
    /// Online as announced: also within the grace period.
    pub online: bool,
    /// Connections.
    pub connections: u64,
    /// When the last connection of a user who is offline went, in Unix milliseconds.
    pub seen_ms: Option<u64>,
}

/// The members of a room, over the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomStatus {
    /// Sessions in it.
    pub connections: u64,
    /// Users, each once.
    pub users: Vec<String>,
}

/// Why the store does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("presence is unavailable: {0}; try again")]
pub struct StoreError(pub String);

/// A [`Store`] in this process.
pub trait ImmediateStore {
    /// Writes changes, in order; answers [`Applied::Done`].
    fn apply_now(&self, changes: &[Change]) -> Applied;
}

/// What all nodes know together. Its twins are [`memory::MemoryStore`], for one node, and the one of the cluster.
pub trait Store: Send + Sync + 'static {
    /// Writes changes, in order, and that this node lives. A call that is repeated with the same number because its
    /// answer was lost is done once. Numbers rise.
    fn apply<'a>(&'a self, number: u64, changes: &'a [Change]) -> BoxFuture<'a, Result<Applied, StoreError>>;

    /// The store itself where it takes changes without waiting.
    fn immediate(&self) -> Option<&dyn ImmediateStore> {
        None
    }

    /// After [`Applied::Behind`]: from now on this number is the last that was written.
    fn reset(&self, number: u64) -> BoxFuture<'_, Result<Known, StoreError>>;

    /// This node stops: its users have the grace to come elsewhere.
    fn leave(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Users, in order.
    fn users<'a>(&'a self, users: &'a [String]) -> BoxFuture<'a, Result<Vec<UserStatus>, StoreError>>;

    /// A room that presence is kept of.
    fn room<'a>(&'a self, namespace: &'a str, room: &'a str) -> BoxFuture<'a, Result<RoomStatus, StoreError>>;
}
