//! The rules have changed while sessions are live: each is decided again by the new ones (docs/rules.md, "When the rules
//! change"). In slices, so that a shard with very many sessions goes on serving them.

use crate::handlers::backend_calls;
use crate::handlers::rights;
use crate::handlers::session_start;
use crate::model::names::Room;
use crate::model::provenance::Provenance;
use crate::model::session_note::LeftBy;
use crate::node::context::{LocalNode, Node};
use crate::rules::Decision;
use crate::session::caller::with_caller;
use crate::session::connection::SessionKey;
use std::ops::AddAssign;
use std::rc::Rc;
use tokio::sync::oneshot;

/// Sessions decided on before others get their turn: some 2 µs each with a few rooms.
const SESSIONS_AT_ONCE: usize = 64;

/// What new rules have cost the live sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Sessions that lost a room.
    pub sessions: usize,
    /// Memberships that were lost.
    pub memberships: usize,
    /// Memberships on which the backend decides now.
    pub asked: usize,
}

impl AddAssign for Lost {
    fn add_assign(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.memberships += other.memberships;
        self.asked += other.asked;
    }
}

/// What the rules of now make of one session's rooms.
#[derive(Default)]
struct Decided {
    changed: Vec<(Room, Provenance)>,
    asked: Vec<Room>,
    lost: Vec<Room>,
}

/// Decides again on all sessions of this shard. Where rooms need the backend from now on, it is asked in the background; they
/// stay until it has answered. Ends early when `is_current` says that there are newer rules.
async fn decide_again(local: &Rc<LocalNode>, is_current: impl Fn() -> bool + 'static) -> Lost {
    let (mut sum, mut to_ask) = (Lost::default(), Vec::new());
    let keys = local.shard.session_keys();
    for keys in keys.chunks(SESSIONS_AT_ONCE) {
        if !is_current() {
            return sum;
        }
        for key in keys {
            let Some(decided) = decide(local, *key) else { continue };
            for (room, by) in &decided.changed {
                local.shard.decide(*key, room, *by);
            }
            let lost = decided.lost.iter().filter(|room| rights::lose(local, *key, room, LeftBy::Rules));
            let lost = lost.count();
            local.shard.count_quietly(*key);
            sum += Lost { sessions: usize::from(lost > 0), memberships: lost, asked: decided.asked.len() };
            if !decided.asked.is_empty() {
                to_ask.push((*key, decided.asked));
            }
        }
        tokio::task::yield_now().await;
    }
    if !to_ask.is_empty() {
        let local = local.clone();
        tokio::task::spawn_local(async move { ask(&local, to_ask, is_current).await });
    }
    sum
}

/// Decides again on all sessions of this node.
pub async fn decide_everywhere(node: &Node, is_current: impl Fn() -> bool + Clone + Send + 'static) -> Lost {
    let decided = node.shards().iter().map(|shard| {
        let (is_current, (reply, answer)) = (is_current.clone(), oneshot::channel());
        shard.run(move |local| {
            let local = local.clone();
            drop(tokio::task::spawn_local(async move {
                let _ = reply.send(decide_again(&local, is_current).await);
            }));
        });
        answer
    });
    let mut sum = Lost::default();
    for answer in decided.collect::<Vec<_>>() {
        // A shard that has stopped has no sessions.
        sum += answer.await.unwrap_or_default();
    }
    sum
}

fn decide(local: &LocalNode, key: SessionKey) -> Option<Decided> {
    let settings = local.context.settings();
    local.shard.with_session(key, |session| {
        with_caller(session, local.context.namespaces.name(session.namespace), |caller| {
            // A token that new connections could not use any more brings nothing.
            let first = session_start::rooms_of_caller(local, &session.identity, caller).unwrap_or_default();
            let mut decided = Decided::default();
            for (room, by) in session.memberships() {
                let decision = match first.provenance(room).filter(|_| by != Provenance::Command) {
                    Some(by) => Decision::Keep(by),
                    None => settings.rules.decide_by_rules(room, caller, by),
                };
                match decision {
                    Decision::Keep(now) if now == by => {}
                    Decision::Keep(now) => decided.changed.push((room.clone(), now)),
                    Decision::Ask => decided.asked.push(room.clone()),
                    Decision::Leave => decided.lost.push(room.clone()),
                }
            }
            decided
        })
    })
}

/// One session after the other: the backend has others to answer too.
async fn ask(local: &Rc<LocalNode>, sessions: Vec<(SessionKey, Vec<Room>)>, is_current: impl Fn() -> bool) {
    for (key, rooms) in sessions {
        let source = local.shard.with_session(key, |session| backend_calls::live_source(local, session));
        let Some(source) = source.filter(|_| is_current()) else { continue };
        let about = || {
            local
                .shard
                .with_session(key, |session| backend_calls::about(local, session, session.rooms().cloned().collect()))
        };
        for (room, allowed) in rights::ask(local, &source, rooms, about).await {
            match allowed {
                Ok(()) => local.shard.decide(key, &room, Provenance::Asked),
                Err(_) if !is_current() || rights::is_by_command(local, key, &room) => {}
                Err(_) => {
                    rights::lose(local, key, &room, LeftBy::Rules);
                }
            }
        }
    }
}
