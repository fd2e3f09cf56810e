//! The open connections of a shard, by key and by Engine.IO sid, and the one table of their deadlines.

use crate::model::id::Id;
use crate::model::millis::Millis;
use crate::session::connection::{Connection, ConnectionKey, Link};
use crate::session::timers::Timers;
use crate::shard::deadlines::Deadlines;
use slotmap::SlotMap;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// A connection's nearest deadline is in the table whenever its timers were changed by [`Connections::change_timers`] or
/// [`Connections::reschedule`].
pub(super) struct Connections {
    all: SlotMap<ConnectionKey, Box<Connection>>,
    /// Connections that began as polling.
    by_sid: HashMap<Id, ConnectionKey>,
    deadlines: Deadlines<ConnectionKey>,
    /// The deadline that the shard's loop sleeps until.
    armed: Option<Millis>,
    /// Wakes the loop for an earlier deadline.
    wake: Arc<Notify>,
}

impl Connections {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { all: SlotMap::with_key(), by_sid: HashMap::new(), deadlines: Deadlines::default(), armed: None, wake }
    }

    pub(super) fn insert(&mut self, connection: Box<Connection>) -> ConnectionKey {
        let (id, polls) = (connection.id, matches!(connection.link, Link::Polling(_)));
        let key = self.all.insert(connection);
        if polls {
            self.by_sid.insert(id, key);
        }
        self.reschedule(key);
        key
    }

    pub(super) fn remove(&mut self, key: ConnectionKey) -> Option<Box<Connection>> {
        let connection = self.all.remove(key)?;
        self.deadlines.change(key, connection.scheduled, None);
        if self.by_sid.get(&connection.id) == Some(&key) {
            self.by_sid.remove(&connection.id);
        }
        Some(connection)
    }

    pub(super) fn get(&self, key: ConnectionKey) -> Option<&Connection> {
        self.all.get(key).map(|connection| &**connection)
    }

    pub(super) fn get_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        self.all.get_mut(key).map(|connection| &mut **connection)
    }

    /// The connection that began as polling with this Engine.IO sid.
    pub(super) fn by_sid(&self, sid: Id) -> Option<ConnectionKey> {
        self.by_sid.get(&sid).copied()
    }

    pub(super) fn keys(&self) -> Vec<ConnectionKey> {
        self.all.keys().collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnectionKey, &Connection)> {
        self.all.iter().map(|(key, connection)| (key, &**connection))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Changes the timers of a connection, and its deadline in the table with them.
    pub(super) fn change_timers(&mut self, key: ConnectionKey, change: impl FnOnce(&mut Timers)) {
        if let Some(connection) = self.all.get_mut(key) {
            change(&mut connection.timers);
            self.reschedule(key);
        }
    }

    /// Puts the connection's nearest deadline into the table.
    pub(super) fn reschedule(&mut self, key: ConnectionKey) {
        let Some(connection) = self.all.get_mut(key) else { return };
        let next = connection.timers.next();
        self.deadlines.change(key, connection.scheduled, next);
        connection.scheduled = next;
        if next.is_some_and(|next| self.armed.is_none_or(|armed| next < armed)) {
            self.armed = next;
            self.wake.notify_one();
        }
    }

    /// Takes a connection whose deadline has come out of the table. The caller puts its next deadline in.
    pub(super) fn pop_due(&mut self, now: Millis) -> Option<ConnectionKey> {
        let key = self.deadlines.pop(now)?;
        if let Some(connection) = self.all.get_mut(key) {
            connection.scheduled = None;
        }
        Some(key)
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.next()
    }

    /// The loop sleeps until then.
    pub(super) fn arm(&mut self, at: Option<Millis>) {
        self.armed = at;
    }
}
