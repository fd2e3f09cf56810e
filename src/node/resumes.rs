//! Sessions that are being resumed on this node, one client at a time. Two connections that resume one session would search for
//! it side by side: each may find it in another place, and both would continue it.

use crate::cluster::Owner;
use crate::model::id::Id;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex as Turns, OwnedMutexGuard};

/// How long a connection waits for another one that resumes the same session. Then its client has to come again. A resume that
/// takes longer waits for Redis or for a node that hangs.
pub const MAX_WAIT: Duration = Duration::from_secs(5);

/// A session, and who resumes it: nobody waits for a stranger who names the same one.
type Key = (Id, Owner);

/// The sessions that are being resumed. Each has a connection of this node that waits for it, so there are no more of them than
/// connections.
#[derive(Clone, Default)]
pub struct Resumes(Arc<Mutex<HashMap<Key, Arc<Turns<()>>>>>);

impl Resumes {
    /// Waits until nobody else resumes this session. `None`: that takes longer than `max`.
    pub async fn turn(&self, pid: Id, owner: Owner, max: Duration) -> Option<Turn> {
        let key = (pid, owner);
        let turns = self.0.lock().entry(key.clone()).or_default().clone();
        let mut turn = Turn { resumes: self.clone(), key, turns: Some(turns.clone()), held: None };
        turn.held = Some(tokio::time::timeout(max, turns.lock_owned()).await.ok()?);
        Some(turn)
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

/// Nobody else resumes the session on this node until it is dropped.
pub struct Turn {
    resumes: Resumes,
    key: Key,
    turns: Option<Arc<Turns<()>>>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        (self.held, self.turns) = (None, None);
        let mut resumes = self.resumes.0.lock();
        // The last one removes it: others hold it while they wait.
        if resumes.get(&self.key).is_some_and(|turns| Arc::strong_count(turns) == 1) {
            resumes.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_in_their_order_and_nothing_stays() {
        let (resumes, pid) = (Resumes::default(), Id::random());
        let owner = |user: &str| Owner::new("/", Some(user));
        let first = resumes.turn(pid, owner("7"), MAX_WAIT).await.unwrap();
        for (pid, user) in [(Id::random(), "7"), (pid, "8")] {
            assert!(resumes.turn(pid, owner(user), MAX_WAIT).await.is_some(), "another session, or a stranger");
        }
        let turn = |max| Box::pin(resumes.turn(pid, owner("7"), max));
        let (mut second, mut third) = (turn(MAX_WAIT), turn(Duration::from_millis(1)));
        assert!(waits(&mut second).await && waits(&mut third).await, "both wait");
        drop(first);
        assert!(waits(&mut third).await, "the second one is before it");
        let turn = second.await.unwrap();
        assert!(third.await.is_none(), "nobody waits for long");
        drop(turn);
        assert!(resumes.is_empty());
    }

    /// Polls once; whether it waits.
    async fn waits<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }
}
