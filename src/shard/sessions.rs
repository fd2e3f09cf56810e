//! The live sessions of a shard, by key, id, pid and user.

use crate::model::id::Id;
use crate::model::namespaces::NamespaceIndex;
use crate::session::Session;
use crate::session::connection::SessionKey;
use hashbrown::HashTable;
use slotmap::SlotMap;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

/// Every session is in each index that it has a value for.
#[derive(Default)]
pub(super) struct Sessions {
    all: SlotMap<SessionKey, Box<Session>>,
    /// What they are found by is not stored again: it is looked up in the session, of a user in one of theirs.
    by_id: HashTable<SessionKey>,
    by_pid: HashTable<SessionKey>,
    by_user: HashTable<SessionsOfUser>,
    by_namespace: Vec<u32>,
    hasher: RandomState,
}

/// By what a session is found that it has alone.
#[derive(Clone, Copy)]
enum Name {
    Id,
    Pid,
}

impl Name {
    fn of(self, session: &Session) -> Option<Id> {
        match self {
            Self::Id => Some(session.id),
            Self::Pid => session.pid,
        }
    }
}

/// Most users have one session on a shard. A token that very many clients share must not make their end quadratic.
#[expect(clippy::box_collection, reason = "16 bytes for each user instead of 32: most have one session")]
enum SessionsOfUser {
    One(SessionKey),
    /// Never empty.
    Many(Box<BTreeSet<SessionKey>>),
}

impl SessionsOfUser {
    fn any(&self) -> Option<SessionKey> {
        match self {
            Self::One(key) => Some(*key),
            Self::Many(keys) => keys.first().copied(),
        }
    }
}

fn user_of<'a>(all: &'a SlotMap<SessionKey, Box<Session>>, of_user: &SessionsOfUser) -> Option<&'a str> {
    user(all.get(of_user.any()?)?)
}

fn user(session: &Session) -> Option<&str> {
    session.identity.user.as_ref().map(|user| user.as_str())
}

impl Sessions {
    pub(super) fn insert(&mut self, session: Box<Session>) -> SessionKey {
        let namespace = session.namespace.place();
        if self.by_namespace.len() <= namespace {
            self.by_namespace.resize(namespace + 1, 0);
        }
        self.by_namespace[namespace] += 1;
        let key = self.all.insert(session);
        self.index(Name::Id, key);
        self.index(Name::Pid, key);
        self.index_user(key);
        key
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Box<Session>> {
        self.forget(Name::Id, key);
        self.forget(Name::Pid, key);
        self.forget_user(key);
        let session = self.all.remove(key)?;
        self.by_namespace[session.namespace.place()] -= 1;
        Some(session)
    }

    /// The newest of several with the same name is found by it.
    fn index(&mut self, by: Name, key: SessionKey) {
        let (all, hasher) = (&self.all, &self.hasher);
        let name = |key: &SessionKey| all.get(*key).and_then(|session| by.of(session));
        let Some(own) = name(&key) else { return };
        let table = match by {
            Name::Id => &mut self.by_id,
            Name::Pid => &mut self.by_pid,
        };
        let entry = table.entry(
            hasher.hash_one(Some(own)),
            |known| name(known) == Some(own),
            |known| hasher.hash_one(name(known)),
        );
        entry.and_modify(|known| *known = key).or_insert(key);
    }

    /// Before the session is removed.
    fn forget(&mut self, by: Name, key: SessionKey) {
        let Some(own) = self.all.get(key).and_then(|session| by.of(session)) else { return };
        let table = match by {
            Name::Id => &mut self.by_id,
            Name::Pid => &mut self.by_pid,
        };
        if let Ok(found) = table.find_entry(self.hasher.hash_one(Some(own)), |known| *known == key) {
            found.remove();
        }
    }

    fn find(&self, table: &HashTable<SessionKey>, by: Name, id: Id) -> Option<SessionKey> {
        let is_it = |known: &SessionKey| self.all.get(*known).and_then(|session| by.of(session)) == Some(id);
        table.find(self.hasher.hash_one(Some(id)), is_it).copied()
    }

    fn index_user(&mut self, key: SessionKey) {
        let (all, hasher) = (&self.all, &self.hasher);
        let Some(name) = all.get(key).and_then(|session| user(session)) else { return };
        let hash = hasher.hash_one(name);
        match self.by_user.find_mut(hash, |known| user_of(all, known) == Some(name)) {
            Some(SessionsOfUser::Many(keys)) => drop(keys.insert(key)),
            Some(one) => {
                let keys = one.any().into_iter().chain([key]).collect();
                *one = SessionsOfUser::Many(Box::new(keys));
            }
            None => {
                let rehash = |known: &SessionsOfUser| hasher.hash_one(user_of(all, known).unwrap_or_default());
                self.by_user.insert_unique(hash, SessionsOfUser::One(key), rehash);
            }
        }
    }

    /// Before the session is removed.
    fn forget_user(&mut self, key: SessionKey) {
        let (all, hasher) = (&self.all, &self.hasher);
        let Some(name) = all.get(key).and_then(|session| user(session)) else { return };
        let found = self.by_user.find_entry(hasher.hash_one(name), |known| user_of(all, known) == Some(name));
        let Ok(mut found) = found else { return };
        let is_last = match found.get_mut() {
            SessionsOfUser::One(_) => true,
            SessionsOfUser::Many(keys) => {
                keys.remove(&key);
                keys.is_empty()
            }
        };
        if is_last {
            found.remove();
            if self.by_user.len() * 8 < self.by_user.capacity() {
                let rehash = |known: &SessionsOfUser| hasher.hash_one(user_of(all, known).unwrap_or_default());
                self.by_user.shrink_to(self.by_user.len() * 2, rehash);
            }
        }
    }

    pub(super) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.all.get(key).map(|session| &**session)
    }

    /// The caller leaves the id, the pid, the namespace and the user as they are.
    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.all.get_mut(key).map(|session| &mut **session)
    }

    pub(super) fn by_id(&self, id: Id) -> Option<SessionKey> {
        self.find(&self.by_id, Name::Id, id)
    }

    pub(super) fn by_pid(&self, pid: Id) -> Option<SessionKey> {
        self.find(&self.by_pid, Name::Pid, pid)
    }

    /// The sessions of a user, whose claim is this text.
    pub(super) fn of_user(&self, name: &str) -> Vec<SessionKey> {
        let hash = self.hasher.hash_one(name);
        match self.by_user.find(hash, |known| user_of(&self.all, known) == Some(name)) {
            Some(SessionsOfUser::One(key)) => vec![*key],
            Some(SessionsOfUser::Many(keys)) => keys.iter().copied().collect(),
            None => Vec::new(),
        }
    }

    pub(super) fn in_namespace(&self, namespace: NamespaceIndex) -> impl Iterator<Item = SessionKey> {
        self.all.iter().filter(move |(_, session)| session.namespace == namespace).map(|(key, _)| key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = SessionKey> {
        self.all.keys()
    }

    pub(super) fn pids(&self) -> impl Iterator<Item = Id> {
        self.by_pid.iter().filter_map(|key| self.all.get(*key)?.pid)
    }

    /// How many there are in each namespace, by its place; of the last namespaces none may be listed.
    pub(super) fn by_namespace(&self) -> &[u32] {
        &self.by_namespace
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::identity::{Identity, UserId};
    use crate::model::offset::{Offset, Position};
    use crate::session::changes::Changes;
    use crate::session::connection::ConnectionKey;
    use std::sync::Arc;

    fn session(user: Option<&str>) -> Box<Session> {
        let user = user.map(|user| UserId::from_claim(Some(&user.into())).unwrap());
        Box::new(Session {
            id: Id::random_session(),
            pid: Some(Id::random()),
            connection: ConnectionKey::default(),
            namespace: NamespaceIndex::default(),
            identity: Arc::new(Identity { user, ..Identity::anonymous() }),
            auth: None,
            start: Offset::default(),
            lines: None,
            expires: None,
            last: Position::default(),
            moves: 0,
            brought_later: false,
            changes: Changes::default(),
            announced: Default::default(),
            mark: 0,
            since_ms: 0,
        })
    }

    #[test]
    fn found_by_user_as_long_as_they_live() {
        let mut sessions = Sessions::default();
        let keys: Vec<_> = (0..3_000).map(|n| sessions.insert(session(Some(&format!("u{}", n % 1_000))))).collect();
        let nobody = sessions.insert(session(None));
        assert_eq!(sessions.of_user("u7"), [keys[7], keys[1_007], keys[2_007]]);
        assert!(sessions.of_user("u1000").is_empty() && sessions.of_user("").is_empty());
        for key in &keys[..2_000] {
            sessions.remove(*key).unwrap();
        }
        assert_eq!(sessions.of_user("u7"), [keys[2_007]]);
        for key in &keys[2_000..] {
            let id = sessions.get(*key).unwrap().id;
            sessions.remove(*key).unwrap();
            assert_eq!(sessions.by_id(id), None);
        }
        assert!(sessions.by_user.is_empty() && sessions.by_user.capacity() < 100, "the index keeps its peak");
        assert_eq!((sessions.len(), sessions.pids().count()), (1, 1));
        sessions.remove(nobody).unwrap();
    }
}
