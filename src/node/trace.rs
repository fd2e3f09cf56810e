//! One trace over the whole cluster: this node follows itself and asks all others again and again, also those that join
//! later. The reader's pace is that of everything: where it does not read, lines are skipped and counted at their source.

use crate::cluster::{Cluster, OneWay, RpcError, RpcRequest, RpcResponse, TraceBatch, TraceQuery};
use crate::feed::merger::{Merged, Merger};
use crate::model::clock::unix_ms;
use crate::model::happening::{Happening, Kind};
use crate::model::id::NodeId;
use crate::node::context::Node;
use crate::node::traces::Trace;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

/// How long another node may take to answer: a second where nothing happens.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Before a node that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often is looked for nodes that have joined.
const LOOK: Duration = Duration::from_millis(500);
/// How long a source waits for its reader before it skips what it has.
const READER_TIMEOUT: Duration = Duration::from_secs(1);
/// Batches of all nodes that wait to be read.
const MAX_WAITING: usize = 8;

/// Something to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// All nodes that were up have answered: so many follow.
    Opened {
        /// How many follow.
        nodes: usize,
    },
    /// It happened on this node.
    Happening(NodeId, Happening),
    /// An event of a room, with the receivers on each node.
    Event {
        /// With the receivers of all nodes.
        event: Happening,
        /// How many receivers each node had.
        nodes: Vec<(NodeId, u64)>,
        /// Nodes that have not said.
        missing: usize,
    },
    /// How a node takes part.
    Node(NodeId, NodeState),
    /// So many lines of a node were skipped.
    Skipped(NodeId, u64),
    /// Nothing more comes.
    Ended(EndReason),
}

/// Why a trace ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// `trace.max_time` is over.
    MaxTime,
    /// The key of its reader is no longer one, or the operator has signed out of the console.
    Unauthorized,
}

impl EndReason {
    /// Its name in a line.
    pub fn label(self) -> &'static str {
        match self {
            Self::MaxTime => "max_time",
            Self::Unauthorized => "unauthorized",
        }
    }
}

/// How a node takes part in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It follows from now on.
    Following,
    /// It does not answer.
    Unreachable,
    /// `trace.max_open` is reached there.
    Full,
    /// It is of a release that does not know traces.
    OlderRelease,
    /// It has gone.
    Left,
}

impl NodeState {
    /// Its name in a line.
    pub fn label(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::Unreachable => "unreachable",
            Self::Full => "too_many_traces",
            Self::OlderRelease => "older_release",
            Self::Left => "left",
        }
    }
}

enum Report {
    State(NodeId, NodeState),
    Batch(NodeId, Vec<Happening>, u64),
}

/// Follows until the reader has gone or `trace.max_time` is over. `trace` is this node's own part.
pub async fn follow(node: Arc<Node>, query: TraceQuery, trace: Trace, lines: mpsc::Sender<Vec<Line>>) {
    let ends = Instant::now() + node.traces.config().max_time;
    let (reporter, mut reports) = mpsc::channel(MAX_WAITING);
    let mut following = Following::new(node.clone(), query, reporter);
    following.begin(trace).await;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            biased;
            () = lines.closed() => return,
            () = tokio::time::sleep_until(ends) => {
                // The reader may be too slow to hear of it.
                let _ = lines.try_send(vec![Line::Ended(EndReason::MaxTime)]);
                return;
            }
            Some(report) = reports.recv() => following.take(report),
            _ = look.tick() => following.look(),
        };
        if !next.is_empty() {
            tokio::select! {
                sent = lines.send(next) => if sent.is_err() { return },
                () = tokio::time::sleep_until(ends) => return,
            }
        }
    }
}

struct Following {
    node: Arc<Node>,
    query: TraceQuery,
    reporter: mpsc::Sender<Report>,
    sources: JoinSet<()>,
    states: HashMap<NodeId, NodeState>,
    /// Nodes that were up at the start and have not answered; `None` once that was said.
    awaited: Option<HashSet<NodeId>>,
    events: Merger,
    /// Sources have numbers for the merger.
    numbers: Vec<NodeId>,
}

impl Following {
    fn new(node: Arc<Node>, query: TraceQuery, reporter: mpsc::Sender<Report>) -> Self {
        Self {
            node,
            query,
            reporter,
            sources: JoinSet::new(),
            states: HashMap::new(),
            awaited: None,
            events: Merger::default(),
            numbers: Vec::new(),
        }
    }

    async fn begin(&mut self, trace: Trace) {
        let peers = self.node.peers().await;
        self.awaited = Some(peers.iter().copied().chain([self.node.id]).collect());
        self.sources.spawn(follow_here(self.node.id, trace, self.reporter.clone()));
        self.states.insert(self.node.id, NodeState::Unreachable);
        peers.into_iter().for_each(|peer| self.ask(peer));
    }

    fn ask(&mut self, peer: NodeId) {
        let Some(cluster) = self.node.cluster.clone() else { return };
        self.states.insert(peer, NodeState::Unreachable);
        self.sources.spawn(ask_again_and_again(cluster, peer, self.query.clone(), self.reporter.clone()));
    }

    /// Nodes that have joined, and events that no further node speaks of.
    fn look(&mut self) -> Vec<Line> {
        while self.sources.try_join_next().is_some() {}
        let peers = self.node.cluster.as_ref().map_or_else(Vec::new, |cluster| cluster.peers());
        for peer in peers {
            if self.states.get(&peer).is_none_or(|state| *state == NodeState::Left) {
                self.ask(peer);
            }
        }
        let mut lines = Vec::new();
        while let Some(late) = self.events.overdue(unix_ms()) {
            lines.push(self.event(late));
        }
        lines
    }

    fn take(&mut self, report: Report) -> Vec<Line> {
        match report {
            Report::State(node, state) => {
                self.states.insert(node, state);
                let mut lines = vec![Line::Node(node, state)];
                let is_last = self.awaited.as_mut().is_some_and(|awaited| {
                    awaited.remove(&node);
                    awaited.is_empty()
                });
                if is_last {
                    self.awaited = None;
                    lines.push(Line::Opened { nodes: self.count() });
                }
                lines
            }
            Report::Batch(node, happenings, skipped) => {
                let mut lines: Vec<_> =
                    happenings.into_iter().filter_map(|happening| self.line(node, happening)).collect();
                if skipped > 0 {
                    lines.push(Line::Skipped(node, skipped));
                }
                lines
            }
        }
    }

    fn count(&self) -> usize {
        self.states.values().filter(|state| **state == NodeState::Following).count()
    }

    fn line(&mut self, node: NodeId, happening: Happening) -> Option<Line> {
        if happening.kind != Kind::Event {
            return Some(Line::Happening(node, happening));
        }
        let number = self.numbers.iter().position(|known| *known == node).unwrap_or_else(|| {
            self.numbers.push(node);
            self.numbers.len() - 1
        });
        let merged = self.events.add(u32::try_from(number).ok()?, self.count().max(1), &happening, unix_ms())?;
        Some(self.event(merged))
    }

    fn event(&self, merged: Merged) -> Line {
        let Merged { happening, parts, missing } = merged;
        let of = |(number, count): (u32, u64)| Some((*self.numbers.get(number as usize)?, count));
        Line::Event { event: happening, nodes: parts.into_iter().filter_map(of).collect(), missing }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let Some(cluster) = &self.node.cluster else { return };
        for (peer, state) in &self.states {
            if *peer != self.node.id && *state != NodeState::Left {
                cluster.send_one_way(*peer, OneWay::TraceEnded(self.query.trace));
            }
        }
    }
}

/// What a source has, until its reader takes it. Where that lasts, it is skipped: other nodes must not wait for the reader.
async fn report(
    reporter: &mpsc::Sender<Report>,
    node: NodeId,
    happenings: Vec<Happening>,
    skipped: u64,
) -> Result<u64, ()> {
    if happenings.is_empty() && skipped == 0 {
        return Ok(0);
    }
    let count = happenings.len() as u64 + skipped;
    let report = Report::Batch(node, happenings, skipped);
    match reporter.send_timeout(report, READER_TIMEOUT).await {
        Ok(()) => Ok(0),
        Err(mpsc::error::SendTimeoutError::Timeout(_)) => Ok(count),
        Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(()),
    }
}

/// Ends when the trace does.
async fn follow_here(me: NodeId, mut trace: Trace, reporter: mpsc::Sender<Report>) {
    let _ = reporter.send(Report::State(me, NodeState::Following)).await;
    let mut unsaid = 0;
    loop {
        let batch = trace.next().await;
        match report(&reporter, me, batch.happenings, batch.skipped + unsaid).await {
            Ok(skipped) => unsaid = skipped,
            Err(()) => return,
        }
    }
}

/// Ends when the trace does, or the node is gone or cannot take part.
async fn ask_again_and_again(cluster: Arc<Cluster>, peer: NodeId, query: TraceQuery, reporter: mpsc::Sender<Report>) {
    let (mut state, mut unsaid) = (None, 0);
    loop {
        let answer = cluster.request(peer, RpcRequest::Trace(query.clone()), ASK_TIMEOUT).await;
        let (now, batch) = match answer {
            Ok(RpcResponse::Trace(batch)) if batch.is_full => (NodeState::Full, TraceBatch::default()),
            Ok(RpcResponse::Trace(batch)) => (NodeState::Following, *batch),
            Err(RpcError::Gone) => (NodeState::Left, TraceBatch::default()),
            Ok(_) | Err(RpcError::Unsupported) => (NodeState::OlderRelease, TraceBatch::default()),
            Err(_) => (NodeState::Unreachable, TraceBatch::default()),
        };
        // One that begins again has forgotten what it was asked before.
        if (state != Some(now) || batch.began) && reporter.send(Report::State(peer, now)).await.is_err() {
            return;
        }
        state = Some(now);
        match now {
            NodeState::Left | NodeState::OlderRelease => return,
            NodeState::Full | NodeState::Unreachable => tokio::time::sleep(AGAIN).await,
            NodeState::Following => match report(&reporter, peer, batch.happenings, batch.skipped + unsaid).await {
                Ok(skipped) => unsaid = skipped,
                Err(()) => return,
            },
        }
    }
}
