//! Records of sessions, written behind: what changed is noted here, and written soon, so that another node can take
//! the session up should this one die.

use crate::auth::Identity;
use crate::cluster::{Owner, Record};
use crate::model::id::Id;
use crate::model::names::Room;
use crate::presence::LeaveReason;
use crate::presence::local::{Reservation, WRITTEN_WITHIN};
use crate::session::Session;
use crate::session::changes::Change;
use crate::session::connection::SessionKey;
use crate::session::parked::Parked;
use crate::session::timers::Millis;
use crate::shard::runner::Shard;
use crate::shard::state::Hub;
use crate::shard::timers::millis;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// Changes are gathered for so long. A session that is younger is lost with its node, and its client told; what a
/// client's own joins and leaves change is written before they are acknowledged ([`persist_now`]).
pub const GATHER: Duration = Duration::from_millis(50);
/// Bytes of records that a shard writes in a second: a client that joins and leaves all the time must not keep Redis
/// busy.
const BYTES_PER_SECOND: f64 = 8e6;
/// Records written before others get their turn: some 2 µs each.
const AT_ONCE: usize = 500;

/// Which records are not as their sessions are.
pub struct SessionPersister {
    changed: HashSet<Id>,
    /// A record tells where the log stood when it was written; it is written again before that is too old to resume
    /// from. In order of time: all wait equally long.
    again: VecDeque<(Millis, Id)>,
    /// When each record was written last.
    written: HashMap<Id, Millis>,
    /// Sessions that another node may have taken up while this one was away.
    stale: HashSet<Id>,
    /// Whether others can reach this node and ask it for sessions. Where not, all are doubted.
    reachable: bool,
    /// All records are being written anew, for this round.
    rewriting: Option<u64>,
    /// Milliseconds after which a record is written again.
    refresh: Millis,
    wake: Rc<Notify>,
}

impl SessionPersister {
    /// For a recovery window of so many milliseconds.
    pub fn new(window: Millis) -> Self {
        // The window holds a quarter more than itself (`RecoveryConfig::kept`).
        let (changed, stale) = (HashSet::new(), HashSet::new());
        let (again, written) = (VecDeque::new(), HashMap::new());
        let (reachable, rewriting, wake) = (false, None, Rc::default());
        Self { changed, again, written, stale, reachable, rewriting, refresh: window / 5, wake }
    }

    /// The session with this pid is not as it was.
    pub fn note(&mut self, pid: Id) {
        if self.changed.is_empty() {
            self.wake.notify_one();
        }
        self.changed.insert(pid);
    }

    /// When the next record is to be written again.
    fn next(&self) -> Option<Millis> {
        self.again.front().map(|(at, _)| *at)
    }

    /// Some of those to be written now.
    fn take(&mut self, now: Millis) -> Vec<Id> {
        while let Some((at, pid)) = self.again.front().copied()
            && at <= now
        {
            self.again.pop_front();
            // It may have been written since, for a change.
            if self.written.get(&pid).is_some_and(|written| written + self.refresh <= now) {
                self.changed.insert(pid);
            }
        }
        let some: Vec<Id> = self.changed.iter().copied().take(AT_ONCE).collect();
        for pid in &some {
            self.changed.remove(pid);
        }
        some
    }

    /// These records are written, or removed where there is none.
    fn wrote(&mut self, changes: &[(Id, Option<Record>)], now: Millis) {
        for (pid, record) in changes {
            match record {
                Some(_) => {
                    self.written.insert(*pid, now);
                    self.again.push_back((now + self.refresh, *pid));
                }
                None => {
                    self.written.remove(pid);
                    self.stale.remove(pid);
                }
            }
        }
    }
}

impl Hub {
    /// This node was away: others may have taken up any of its sessions.
    pub fn mark_stale(&mut self) {
        let pids: Vec<Id> = self.pids().collect();
        if let Some(persister) = &mut self.persister {
            persister.stale.extend(pids);
        }
    }

    /// Others cannot reach this node from now on, or can again.
    pub fn be_reachable(&mut self, reachable: bool) {
        self.mark_stale();
        if let Some(persister) = &mut self.persister {
            persister.reachable = reachable;
        }
    }

    /// Whether another node may have taken this session up while this one was away.
    pub fn is_stale(&self, pid: Id) -> bool {
        self.persister.as_ref().is_some_and(|persister| !persister.reachable || persister.stale.contains(&pid))
    }

    /// It is known by now what became of this session elsewhere.
    pub fn confirm(&mut self, pid: Id) {
        if let Some(persister) = &mut self.persister {
            persister.stale.remove(&pid);
        }
    }

    /// All records are to be written anew; `false` where this shard keeps none.
    pub fn rewrite(&mut self, round: u64) -> bool {
        let pids: Vec<Id> = self.pids().collect();
        let Some(persister) = &mut self.persister else { return false };
        persister.changed.extend(pids);
        persister.rewriting = Some(round);
        persister.wake.notify_one();
        true
    }

    /// Puts a session into a room that it is in from its start; whether it was not in it. Presence may have counted it
    /// already, by what is `reserved`.
    pub fn join_initial(&mut self, key: SessionKey, namespace: u16, room: &Room, reserved: &mut Reservation) -> bool {
        let new = self.rooms.join(key, namespace, room);
        if new {
            self.note_entered(key, room, reserved);
        }
        new
    }

    /// Lets a session into a room; whether it was not in it.
    pub fn join(&mut self, key: SessionKey, namespace: u16, room: &Room, reserved: &mut Reservation) -> bool {
        let new = self.join_initial(key, namespace, room, reserved);
        if new {
            self.trace(key, room, "joined");
            self.note_change(key, room, true);
        }
        new
    }

    /// Takes a session out of a room; whether it was in it.
    pub fn leave(&mut self, key: SessionKey, namespace: u16, room: &Room, reason: LeaveReason) -> bool {
        let old = self.rooms.leave(key, namespace, room);
        if old {
            self.trace(key, room, "left");
            self.note_gone(key, room, reason);
            self.note_change(key, room, false);
        }
        old
    }

    fn trace(&self, key: SessionKey, room: &Room, what: &'static str) {
        if tracing::enabled!(tracing::Level::DEBUG)
            && let Some(session) = self.sessions.get(key)
        {
            tracing::debug!(session = %session.id, %room, "{what}");
        }
    }

    fn note_change(&mut self, key: SessionKey, room: &Room, joined: bool) {
        let (after, keep) = (self.position.position, millis(self.node.recovery.kept()));
        if let Some(session) = self.sessions.get_mut(key).filter(|session| session.pid.is_some()) {
            session.changes.note(Change { after, room: room.clone(), joined }, keep);
        }
        self.note_session(key);
    }

    fn note_session(&mut self, key: SessionKey) {
        if let (Some(persister), Some(pid)) =
            (&mut self.persister, self.sessions.get(key).and_then(|session| session.pid))
        {
            persister.note(pid);
        }
    }

    /// The session with this pid is not as it was.
    pub fn note_record(&mut self, pid: Id) {
        if let Some(persister) = &mut self.persister {
            persister.note(pid);
        }
    }

    /// What a resume needs of a live session.
    pub fn park_form(&self, key: SessionKey, session: &Session) -> Parked {
        Parked {
            id: session.id,
            namespace: session.namespace,
            identity: session.identity.clone(),
            rooms: self.rooms.of(key).cloned().collect(),
            changes: session.changes.clone(),
            start: session.start,
            last: session.last,
            at: self.position.position,
            moves: session.moves,
        }
    }

    /// Some of the records that are to be written or removed now.
    fn changes(&mut self, now: Millis) -> Vec<(Id, Option<Record>)> {
        let Some(persister) = &mut self.persister else { return Vec::new() };
        let pids = persister.take(now);
        let changes: Vec<_> = pids.into_iter().map(|pid| (pid, self.record(pid))).collect();
        if let Some(persister) = &mut self.persister {
            persister.wrote(&changes, now);
        }
        changes
    }

    fn record(&self, pid: Id) -> Option<Record> {
        let live = self.session_by_pid(pid).map(|(key, session)| self.park_form(key, session));
        let parked = live.as_ref().or_else(|| self.parked.get(pid))?;
        Some(Record {
            owner: self.owner(parked.namespace, &parked.identity),
            moves: parked.moves,
            text: parked.to_record(),
        })
    }

    /// Whose a session is: nobody else may resume it.
    pub fn owner(&self, namespace: u16, identity: &Identity) -> Owner {
        let user = identity.user.as_ref().map(|user| user.as_json());
        Owner::new(&self.node.namespaces[usize::from(namespace)], user.as_deref())
    }
}

/// Writes what changes, until the shard ends. Without other nodes there is nothing to do.
pub async fn run(shard: Rc<Shard>) {
    let Some(wake) = shard.hub.borrow().persister.as_ref().map(|persister| persister.wake.clone()) else { return };
    loop {
        let next = shard.hub.borrow().persister.as_ref().and_then(SessionPersister::next);
        match next {
            Some(at) => {
                let left = Duration::from_millis(at.saturating_sub(shard.now()));
                // Woken or due: both mean that there is something to write.
                let _ = tokio::time::timeout(left, wake.notified()).await;
            }
            None => wake.notified().await,
        }
        tokio::time::sleep(GATHER).await;
        let mut written = 0;
        while let Some(bytes) = write_some(&shard) {
            written += bytes;
            tokio::task::yield_now().await;
        }
        let rewritten = shard.hub.borrow_mut().persister.as_mut().and_then(|persister| persister.rewriting.take());
        if let Some(round) = rewritten {
            shard.node.records_rewritten(round);
        }
        tokio::time::sleep(Duration::from_secs_f64(written as f64 / BYTES_PER_SECOND)).await;
    }
}

/// Completes when the record of a session is as the session is now: before a client is told that it has joined or left,
/// so that what it was told survives this node. `false` where Redis does not take it in time: another node may then take
/// the session up as it was before, so the client must not be told.
#[must_use]
pub async fn persist_now(shard: &Rc<Shard>, key: SessionKey) -> bool {
    let Some(cluster) = shard.node.cluster.clone() else { return true };
    let now = shard.now();
    let change = {
        let mut hub = shard.hub.borrow_mut();
        let Some(pid) = hub.sessions.get(key).and_then(|session| session.pid) else { return true };
        let changes = [(pid, hub.record(pid))];
        let Some(persister) = &mut hub.persister else { return true };
        persister.changed.remove(&pid);
        persister.wrote(&changes, now);
        changes
    };
    let [(pid, record)] = change;
    let settled = cluster.keep_now(pid, record, WRITTEN_WITHIN).await;
    if !settled {
        // It is written as soon as Redis takes it.
        shard.hub.borrow_mut().note_record(pid);
    }
    settled
}

/// Writes everything now; a node that stops does.
pub fn write_all(shard: &Rc<Shard>) {
    while write_some(shard).is_some() {}
}

/// How many bytes; `None` when there is nothing left to write.
fn write_some(shard: &Rc<Shard>) -> Option<usize> {
    let now = shard.now();
    let changes = shard.hub.borrow_mut().changes(now);
    let cluster = shard.node.cluster.as_ref().filter(|_| !changes.is_empty())?;
    let bytes = changes.iter().map(|(_, record)| record.as_ref().map_or(0, |record| record.text.len() + 100)).sum();
    cluster.keep(changes);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_taken_once_and_again_after_its_time() {
        let (mut persister, pid) = (SessionPersister::new(100), Id::random());
        persister.note(pid);
        persister.note(pid);
        assert_eq!(persister.take(0), [pid]);
        assert!(persister.take(0).is_empty());
        let record = || Record { owner: Owner::new("/", None), moves: 0, text: String::new() };
        persister.wrote(&[(pid, Some(record()))], 0);
        persister.wrote(&[(pid, Some(record()))], 5);
        assert_eq!(persister.next(), Some(20));
        assert!(persister.take(20).is_empty(), "it was written since");
        assert_eq!(persister.take(25), [pid]);
        persister.wrote(&[(pid, None)], 30);
        assert!(persister.take(1_000).is_empty() && persister.written.is_empty());
    }
}
