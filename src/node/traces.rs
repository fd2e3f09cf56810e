//! Traces that are open on this node: its own, and its part of those that other nodes serve.

use crate::cluster::TraceQuery;
use crate::feed::config::TraceConfig;
use crate::feed::{Batch, Feed, Filter, Subscription};
use crate::model::id::{Id, NodeId};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `trace.max_open` is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} traces are open, which is what `trace.max_open` allows")]
pub struct TooManyTraces(pub usize);

/// See the module.
pub struct Traces {
    config: RwLock<TraceConfig>,
    open: Arc<AtomicUsize>,
    parts: Mutex<Parts>,
}

/// Of the traces of other nodes, by the node and the trace's name.
#[derive(Default)]
struct Parts {
    open: HashMap<(NodeId, Id), Part>,
    /// The last that have ended. A request for one may still be under way, and must not open it again.
    ended: VecDeque<(NodeId, Id)>,
}

/// Traces that are known to have ended. A request is under way for a second at most, in which nobody opens so many.
const MAX_ENDED: usize = 256;

struct Part {
    /// `None` while it is being asked.
    trace: Option<Trace>,
    /// How often it was asked.
    asked: u64,
}

/// One open trace. Ends when it is dropped.
pub struct Trace {
    subscription: Subscription,
    open: Arc<AtomicUsize>,
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Trace {
    /// What came since the last call, at least one happening. Nothing is lost if it is dropped before it completes.
    pub async fn next(&mut self) -> Batch {
        self.subscription.next().await
    }

    /// What came since the last call.
    pub fn take(&mut self) -> Batch {
        self.subscription.take()
    }
}

impl Traces {
    /// None is open.
    pub fn new(config: TraceConfig) -> Self {
        Self { config: RwLock::new(config), open: Arc::default(), parts: Mutex::default() }
    }

    /// `[trace]`.
    pub fn config(&self) -> TraceConfig {
        self.config.read().clone()
    }

    /// New settings, for traces that are opened from now on.
    pub fn configure(&self, config: TraceConfig) {
        *self.config.write() = config;
    }

    /// Follows what happens on this node.
    ///
    /// # Errors
    /// When as many are open as may be.
    pub fn open(&self, feed: &Arc<Feed>, query: &TraceQuery) -> Result<Trace, TooManyTraces> {
        let config = self.config();
        let max = config.max_open;
        let take = |open: usize| (open < max).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map_err(|_| TooManyTraces(max))?;
        let TraceQuery { user, session, room, payloads, .. } = query.clone();
        let subscription = feed.subscribe(Filter { user, session, room }, config.bounds(payloads));
        Ok(Trace { subscription, open: self.open.clone() })
    }

    /// A part that is to be asked.
    pub fn take(&self, key: (NodeId, Id)) -> Option<Trace> {
        self.parts.lock().open.get_mut(&key)?.trace.take()
    }

    /// A part begins, which is being asked. `false` where its trace has ended already.
    pub fn begin(&self, key: (NodeId, Id)) -> bool {
        let mut parts = self.parts.lock();
        let is_new = !parts.ended.contains(&key);
        if is_new {
            parts.open.insert(key, Part { trace: None, asked: 0 });
        }
        is_new
    }

    /// Keeps a part until it is asked for again; answers how often it was. `None` where it has ended meanwhile.
    pub fn keep(&self, key: (NodeId, Id), trace: Trace) -> Option<u64> {
        let mut parts = self.parts.lock();
        let part = parts.open.get_mut(&key)?;
        part.trace = Some(trace);
        part.asked += 1;
        Some(part.asked)
    }

    /// Ends a part: its trace has ended.
    pub fn end(&self, key: (NodeId, Id)) {
        let mut parts = self.parts.lock();
        parts.open.remove(&key);
        parts.ended.push_back(key);
        if parts.ended.len() > MAX_ENDED {
            parts.ended.pop_front();
        }
    }

    /// Ends a part that was not asked for since.
    pub fn expire(&self, key: (NodeId, Id), asked: u64) {
        let mut parts = self.parts.lock();
        if parts.open.get(&key).is_some_and(|part| part.asked == asked && part.trace.is_some()) {
            parts.open.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_bounded_and_parts_end_when_nobody_asks() {
        let (traces, feed) = (Traces::new(TraceConfig { max_open: 1, ..TraceConfig::default() }), Arc::default());
        let query = TraceQuery { trace: Id::random(), user: None, session: None, room: None, payloads: true };
        let key = (NodeId::random(), query.trace);
        let trace = traces.open(&feed, &query).ok().unwrap();
        assert_eq!(traces.open(&feed, &query).err(), Some(TooManyTraces(1)));
        assert!(traces.begin(key));
        let first = traces.keep(key, trace).unwrap();
        let again = traces.take(key).unwrap();
        assert!(traces.take(key).is_none(), "it is being asked");
        traces.expire(key, first);
        let second = traces.keep(key, again).unwrap();
        traces.expire(key, first);
        assert!(feed.is_open());
        traces.expire(key, second);
        assert!(!feed.is_open());
        let trace = traces.open(&feed, &query).ok().unwrap();
        assert!(traces.begin(key));
        traces.end(key);
        assert_eq!((traces.keep(key, trace), feed.is_open()), (None, false), "it has ended while it was asked");
        assert!(!traces.begin(key), "a request that was under way does not open it again");
    }
}
