//! The embedded twin: one node, so that its facts are those of the whole.

use crate::log::BoxFuture;
use crate::log::memory::MemoryLog;
use crate::metrics::Metrics;
use crate::model::clock::unix_ms;
use crate::model::close::DropReason;
use crate::model::draft::{Draft, Source};
use crate::model::names::{Namespace, Room};
use crate::presence::config::PresenceConfig;
use crate::presence::{
    Applied, Change, Fact, ImmediateStore, Inside, Known, RoomStatus, Store, StoreError, Transition, TransitionKind,
    UserStatus,
};
use parking_lot::{Mutex, MutexGuard};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Users of whom it is known when they were seen last; over it the one who was seen first is forgotten.
const MAX_SEEN: usize = 100_000;

/// Presence in memory.
pub struct MemoryStore {
    log: Arc<MemoryLog>,
    config: PresenceConfig,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    online: HashMap<Arc<str>, u32>,
    rooms: HashMap<(Namespace, Room), Members>,
    seen: HashMap<Arc<str>, u64>,
    /// By time, and a number that keeps those of one millisecond apart.
    seen_order: BTreeMap<(u64, u64), Arc<str>>,
    count: u64,
}

/// Who is in a room, and with how many connections.
type Members = HashMap<Option<Arc<str>>, u32>;

/// What a list of changes comes to.
#[derive(Default)]
struct Outcome {
    transitions: Vec<Transition>,
    drafts: Vec<Draft>,
    /// Members of a room above which nobody is announced.
    announce_limit: usize,
    /// Announcements that were left out.
    silent: u64,
}

impl Outcome {
    fn note(&mut self, kind: Option<TransitionKind>, at_ms: u64) {
        self.transitions.extend(kind.map(|kind| Transition { kind, at_ms }));
    }
}

impl MemoryStore {
    /// Appends the announcements for rooms to this log.
    pub fn new(log: Arc<MemoryLog>, config: &PresenceConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { log, config: config.clone(), metrics, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn apply(&mut self, change: &Change, now_ms: u64, outcome: &mut Outcome) {
        match &change.fact {
            Fact::Online(user) => {
                let kind = match change.count {
                    Some(count) => {
                        let came = self.online.insert(user.clone(), count).is_none();
                        came.then(|| TransitionKind::Online(user.to_string()))
                    }
                    None => self.online.remove(user).map(|_| {
                        let seen = now_ms.saturating_sub(change.age);
                        self.note_seen(user.clone(), seen);
                        TransitionKind::Offline(user.to_string(), seen)
                    }),
                };
                outcome.note(kind.filter(|_| change.news), now_ms);
            }
            Fact::Inside(inside) => {
                let Inside { namespace, room, user } = &**inside;
                let place = (namespace.clone(), room.clone());
                let messages = change.messages.as_deref().filter(|_| user.is_some() && change.news);
                let members = self.rooms.entry(place.clone()).or_default();
                let before = members.len();
                match change.count {
                    Some(count) => drop(members.insert(user.clone(), count)),
                    None => drop(members.remove(user)),
                }
                let after = members.len();
                let draft = match after.cmp(&before) {
                    Ordering::Greater => messages.and_then(|messages| messages.joined.clone()),
                    Ordering::Less => messages.and_then(|messages| messages.left.clone()),
                    Ordering::Equal => None,
                };
                match after > outcome.announce_limit {
                    true => outcome.silent += u64::from(draft.is_some()),
                    false => outcome.drafts.extend(draft),
                }
                let kind = match (before, after) {
                    (0, 1..) => Some(TransitionKind::Occupied(place.0.clone(), place.1.clone())),
                    (1.., 0) => Some(TransitionKind::Vacated(place.0.clone(), place.1.clone())),
                    _ => None,
                };
                outcome.note(kind.filter(|_| change.news), now_ms);
                if after == 0 {
                    self.rooms.remove(&place);
                }
            }
        }
    }

    fn note_seen(&mut self, user: Arc<str>, seen: u64) {
        self.count += 1;
        self.seen.insert(user.clone(), seen);
        self.seen_order.insert((seen, self.count), user);
        while self.seen_order.len() > MAX_SEEN
            && let Some(((at, _), user)) = self.seen_order.pop_first()
        {
            // They may have been seen again since.
            if self.seen.get(&user) == Some(&at) {
                self.seen.remove(&user);
            }
        }
    }

    fn user(&self, user: &str, oldest_ms: u64) -> UserStatus {
        match self.online.get(user) {
            Some(count) => UserStatus { online: true, connections: u64::from(*count), seen_ms: None },
            None => {
                let seen_ms = self.seen.get(user).copied().filter(|seen| *seen >= oldest_ms);
                UserStatus { seen_ms, ..UserStatus::default() }
            }
        }
    }

    fn room(&self, namespace: &str, room: &str) -> RoomStatus {
        let members = self.rooms.get(&(namespace.into(), room.into()));
        let members = members.into_iter().flatten();
        let mut status = RoomStatus::default();
        for (user, count) in members {
            status.connections += u64::from(*count);
            status.users.extend(user.as_ref().map(ToString::to_string));
        }
        status
    }
}

impl ImmediateStore for MemoryStore {
    fn apply_now(&self, changes: &[Change]) -> Applied {
        let mut outcome = Outcome { announce_limit: self.config.announce_limit, ..Outcome::default() };
        let now_ms = unix_ms();
        let mut state = self.state();
        changes.iter().for_each(|change| state.apply(change, now_ms, &mut outcome));
        drop(state);
        let Outcome { transitions, drafts, silent, .. } = outcome;
        self.metrics.events.dropped(DropReason::Crowd, silent);
        let mut events = 0;
        if !drafts.is_empty() {
            for appended in self.log.append_all(drafts) {
                match appended {
                    Ok(_) => events += 1,
                    Err(error) => {
                        self.metrics.events.refused(Source::Client, error.code());
                        tracing::warn!(%error, "a join or leave is not announced to the room");
                    }
                }
            }
        }
        Applied::Done { transitions, events, more: false }
    }
}

impl Store for MemoryStore {
    fn apply<'a>(&'a self, _: u64, changes: &'a [Change]) -> BoxFuture<'a, Result<Applied, StoreError>> {
        Box::pin(std::future::ready(Ok(self.apply_now(changes))))
    }

    fn immediate(&self) -> Option<&dyn ImmediateStore> {
        Some(self)
    }

    fn reset(&self, _: u64) -> BoxFuture<'_, Result<Known, StoreError>> {
        Box::pin(std::future::ready(Ok(Known { facts: Vec::new(), lost: true })))
    }

    fn leave(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn users<'a>(&'a self, users: &'a [String]) -> BoxFuture<'a, Result<Vec<UserStatus>, StoreError>> {
        let oldest_ms = unix_ms().saturating_sub(u64::try_from(self.config.remember.as_millis()).unwrap_or(u64::MAX));
        let state = self.state();
        let statuses = users.iter().map(|user| state.user(user, oldest_ms)).collect();
        drop(state);
        Box::pin(std::future::ready(Ok(statuses)))
    }

    fn room<'a>(&'a self, namespace: &'a str, room: &'a str) -> BoxFuture<'a, Result<RoomStatus, StoreError>> {
        let status = self.state().room(namespace, room);
        Box::pin(std::future::ready(Ok(status)))
    }
}
