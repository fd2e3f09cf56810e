//! Records of sessions in Redis, written behind: a change is noted, and its record is written soon after. If this node dies,
//! another one resumes the session from its record.

use crate::auth::Identity;
use crate::cluster::{Owner, RecordChange};
use crate::model::id::Id;
use crate::model::millis::Millis;
use crate::model::namespaces::NamespaceIndex;
use crate::presence::local::WRITTEN_WITHIN;
use crate::session::Session;
use crate::session::connection::SessionKey;
use crate::session::parked::{Parked, UNPROVABLE};
use crate::shard::face::Shard;
use crate::shard::hub::Hub;
use crate::shard::session_persister::SessionPersister;
use std::rc::Rc;
use std::time::Duration;

/// How long changes are gathered. A session that is younger is lost with its node, and its client gets a new one. What a
/// client's own joins and leaves change is written before they are acknowledged ([`persist_now`]).
pub const GATHER: Duration = Duration::from_millis(50);
/// Bytes of records that a shard writes in a second, so that a client that joins and leaves all the time does not keep Redis
/// busy.
const BYTES_PER_SECOND: f64 = 8e6;

impl Hub {
    /// This node was away. Others may have taken up any of its sessions.
    pub(super) fn mark_stale(&mut self) {
        let pids: Vec<Id> = self.pids().collect();
        if let Some(persister) = &mut self.persister {
            persister.mark_stale(pids);
        }
    }

    /// Notes whether other nodes can reach this one.
    pub(super) fn be_reachable(&mut self, reachable: bool) {
        self.mark_stale();
        if let Some(persister) = &mut self.persister {
            persister.be_reachable(reachable);
        }
    }

    /// Begins to write all records again; `false` if this shard has none. A node that has just started has none and need not
    /// wait: if it dies before all shards are done, its records are not used.
    pub(super) fn rewrite(&mut self, round: u64) -> bool {
        let pids: Vec<Id> = self.pids().collect();
        let Some(persister) = self.persister.as_mut().filter(|_| !pids.is_empty()) else { return false };
        persister.rewrite(pids, round);
        true
    }

    pub(super) fn note_session(&mut self, key: SessionKey) {
        if let (Some(persister), Some(pid)) =
            (&mut self.persister, self.sessions.get(key).and_then(|session| session.pid))
        {
            persister.note(pid);
        }
    }

    /// The session with this pid has changed.
    pub(super) fn note_record(&mut self, pid: Id) {
        if let Some(persister) = &mut self.persister {
            persister.note(pid);
        }
    }

    /// What a resume needs of a live session.
    pub(super) fn park_form(&self, key: SessionKey, session: &Session) -> Parked {
        // It is not known which events a session that is behind has still to get. Any may be the last.
        let behind = self.cursor(key).filter(|_| session.last != UNPROVABLE);
        let behind = behind.and_then(|cursor| cursor.last_possible(&self.position));
        let (last_line, last) = behind.unwrap_or((session.last_line(), session.last));
        Parked {
            id: session.id,
            namespace: session.namespace,
            identity: session.identity.clone(),
            rooms: self.rooms.of(key).cloned().collect(),
            provenances: self.rooms.memberships(key).map(|(room, by)| (room.clone(), by)).collect(),
            decided_on: None,
            changes: session.changes.clone(),
            start: session.start(),
            last,
            last_line,
            at: self.position.only(session.line_set()),
            moves: session.moves,
        }
    }

    /// Some of the records that are to be written or removed now.
    fn changes(&mut self, now: Millis) -> Vec<(Id, RecordChange)> {
        let Some(persister) = &mut self.persister else { return Vec::new() };
        let pids = persister.take(now);
        let changes: Vec<_> = pids.into_iter().filter_map(|pid| Some((pid, self.record_change(pid)?))).collect();
        if let Some(persister) = &mut self.persister {
            persister.wrote(&changes, now);
        }
        changes
    }

    /// What is to be written of a session as it is now, or the removal of its record.
    fn record_change(&mut self, pid: Id) -> Option<RecordChange> {
        let live = self.sessions.by_pid(pid).and_then(|key| Some((key, self.sessions.get(key)?)));
        let live = live.map(|(key, session)| self.park_form(key, session));
        let Some(parked) = live.as_ref().or_else(|| self.parked.get(pid)) else {
            return self.persister.as_mut().map(|persister| persister.removal(pid));
        };
        let owner = self.owner(parked.namespace, &parked.identity);
        self.persister.as_mut().map(|persister| persister.record(pid, owner, parked))
    }

    /// Who may resume a session.
    pub(super) fn owner(&self, namespace: NamespaceIndex, identity: &Identity) -> Owner {
        let user = identity.user.as_ref().map(|user| user.as_json());
        Owner::new(self.context.namespaces.name(namespace), user.as_deref())
    }
}

/// Writes what changes, until the shard ends. Returns at once if no records are kept.
pub async fn run(shard: Rc<Shard>) {
    let Some(wake) = shard.hub.borrow().persister.as_ref().map(SessionPersister::wake) else { return };
    loop {
        let next = shard.hub.borrow().persister.as_ref().and_then(SessionPersister::next);
        match next {
            Some(at) => {
                let left = Duration::from_millis(at.get().saturating_sub(shard.now().get()));
                // Woken or timed out, there is something to write.
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
        let rewritten = shard.hub.borrow_mut().persister.as_mut().and_then(SessionPersister::take_rewritten);
        if let Some(round) = rewritten {
            shard.observer.records_rewritten(round);
        }
        tokio::time::sleep(Duration::from_secs_f64(written as f64 / BYTES_PER_SECOND)).await;
    }
}

/// Writes the record of a session as it is now, so that a join or leave that is acknowledged afterwards survives this node.
/// `false` if Redis does not take it in time: another node may then resume the session as it was before, so the client must
/// not get an acknowledgement.
#[must_use]
pub async fn persist_now(shard: &Rc<Shard>, key: SessionKey) -> bool {
    let Some(cluster) = shard.context.cluster.clone() else { return true };
    let now = shard.now();
    let change = {
        let mut hub = shard.hub.borrow_mut();
        let Some(pid) = hub.sessions.get(key).and_then(|session| session.pid) else { return true };
        let Some(change) = hub.record_change(pid) else { return true };
        let changes = [(pid, change)];
        let Some(persister) = &mut hub.persister else { return true };
        persister.wrote(&changes, now);
        changes
    };
    let [(pid, change)] = change;
    let settled = cluster.write_record(pid, change, WRITTEN_WITHIN).await;
    if !settled {
        // It is written as soon as Redis takes it.
        shard.hub.borrow_mut().note_record(pid);
    }
    settled
}

/// Writes everything now. For a node that stops.
pub fn write_all(shard: &Rc<Shard>) {
    while write_some(shard).is_some() {}
}

/// Writes some records and answers how many bytes; `None` if nothing is left to write.
fn write_some(shard: &Rc<Shard>) -> Option<usize> {
    let now = shard.now();
    let changes = shard.hub.borrow_mut().changes(now);
    let cluster = shard.context.cluster.as_ref().filter(|_| !changes.is_empty())?;
    let bytes = changes.iter().map(|(_, change)| change.size()).sum();
    cluster.write_records(changes);
    Some(bytes)
}
