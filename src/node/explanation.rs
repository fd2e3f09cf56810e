//! Why a user did or did not get an event, over all nodes: each answers for its own sessions, from its own part of the log.

use crate::cluster::{EventView, ExplainQuery, NodeExplanation, RpcRequest, RpcResponse};
use crate::log::backfill::{PastRange, PastUnavailable};
use crate::log::config::Bounds;
use crate::log::window::RecentLog;
use crate::model::event::Event;
use crate::model::id::NodeId;
use crate::model::names::Room;
use crate::model::namespaces::NamespaceIndex;
use crate::model::offset::Offset;
use crate::model::place::event_of;
use crate::node::context::Node;
use crate::node::inspection;
use crate::node::inspection::Silence;
use crate::shard::explanation::{AskedEvent, Question, keep_interesting};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long another node is waited for, so that there is an answer within a second.
const PEER_TIMEOUT: Duration = Duration::from_millis(800);
/// How long the log is waited for.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

/// What all nodes know, in order of their names; or why one says nothing.
pub async fn explain(node: &Arc<Node>, query: &ExplainQuery) -> Vec<(NodeId, Result<NodeExplanation, Silence>)> {
    let request = RpcRequest::Explain(query.clone());
    let others = inspection::ask_all_within(PEER_TIMEOUT, node, request);
    let (own, others) = tokio::join!(explain_here(node, query.clone()), others);
    let mut nodes = vec![(node.id, Ok(own))];
    nodes.extend(others.into_iter().map(|(peer, answer)| match answer {
        Ok(RpcResponse::Explained(explanation)) => (peer, Ok(*explanation)),
        Ok(_) => (peer, Err(Silence::Unreachable)),
        Err(silence) => (peer, Err(silence)),
    }));
    nodes.sort_unstable_by_key(|(node, _)| *node);
    nodes
}

/// What this node knows.
pub async fn explain_here(node: &Node, query: ExplainQuery) -> NodeExplanation {
    let context = &node.context;
    let mut answer = NodeExplanation::default();
    if let Some(rule) = context.settings().rules.deciding(&query.room, &query.user) {
        answer.rule = Some(rule.name().to_owned());
        answer.join = Some(rule.join().label().to_owned());
    }
    let room: Room = query.room.as_str().into();
    let offset = query.event.as_deref().and_then(event_of);
    let found = match offset {
        Some(offset) => Some(find(node, offset, &query.namespace, &room).await),
        None => None,
    };
    let (view, event) = found.map_or((None, None), |(view, event)| (Some(view), event));
    answer.event = view;
    let namespace = context.namespaces.find(&query.namespace);
    answer.has_namespace = namespace.is_some();
    // Without the namespace the user may still have sessions in others.
    let question =
        Question { user: query.user, room, namespace: namespace.unwrap_or(NamespaceIndex::new(u16::MAX)), event };
    let question = Arc::new(question);
    let parts = inspection::on_every_shard(node, move |local| {
        let question = question.clone();
        async move { local.shard.explain(&question).await }
    });
    let mut outcomes = BTreeMap::new();
    for part in parts.await {
        answer.sessions.extend(part.sessions);
        answer.elsewhere.extend(part.elsewhere);
        answer.turned_away.extend(part.turned_away);
        answer.sees_back_to_ms = answer.sees_back_to_ms.max(part.sees_back_to_ms);
        for (outcome, count) in part.outcomes {
            *outcomes.entry(outcome).or_default() += count;
        }
    }
    keep_interesting(&mut answer.sessions);
    answer.turned_away.sort_unstable_by_key(|turned_away| turned_away.at_ms);
    answer.elsewhere.sort_unstable();
    answer.elsewhere.dedup();
    answer.outcomes = outcomes.into_iter().collect();
    answer
}

/// What the recent log knows of an event, and what is asked about it where that can be answered.
async fn find(node: &Node, offset: Offset, namespace: &str, room: &Room) -> (EventView, Option<AskedEvent>) {
    let status = |status: &str| EventView { status: status.to_owned(), ..EventView::default() };
    let head = node.window.head_of(offset.line);
    if offset.epoch != head.epoch {
        return (status("other_log"), None);
    }
    let known = match node.window.event_at(offset) {
        Some(event) => Ok(Some(event)),
        None if node.window.interest().is_everything() || offset.position > head.position => Ok(None),
        None => read(node, offset).await,
    };
    if let Ok(Some(event)) = &known {
        let same = &*event.draft.namespace == namespace;
        let asked =
            same.then(|| AskedEvent { offset, rooms: event.draft.rooms.clone(), except: event.draft.except.clone() });
        return (kept(event), asked);
    }
    let before = Offset { position: offset.position.predecessor(), ..offset };
    match node.window.covers(before, namespace, std::slice::from_ref(room)) {
        _ if offset.position > head.position => (status("ahead"), None),
        covered if known.is_ok() && (covered.is_ok() || !node.window.interest().is_everything()) => {
            (status("unknown"), None)
        }
        // Where it went is not known any more. What is answered holds if it was for this room.
        _ => (status("gone"), Some(AskedEvent { offset, rooms: vec![room.clone()], except: Vec::new() })),
    }
}

/// The event at this offset, from the log itself; `None` where the log has none there.
async fn read(node: &Node, offset: Offset) -> Result<Option<Arc<Event>>, PastUnavailable> {
    let Offset { line, epoch, position } = offset;
    let (after, rooms) = (position.predecessor(), Arc::default());
    let bounds = Bounds { bytes: usize::MAX, room_bytes: usize::MAX, tenant_segments: 0 };
    let range = PastRange { line, epoch, after, up_to: position, rooms, all: true, bounds, budget: None };
    let past = node.log.read_past(range, READ_TIMEOUT).await?;
    match past.after > after {
        true => Err(PastUnavailable("it is trimmed".into())),
        false => Ok(past.events.into_iter().next()),
    }
}

fn kept(event: &Event) -> EventView {
    let names = |rooms: &[Room]| rooms.iter().map(ToString::to_string).collect();
    EventView {
        status: "kept".to_owned(),
        event: Some(event.draft.event.to_string()),
        namespace: Some(event.draft.namespace.to_string()),
        rooms: names(&event.draft.rooms),
        except: names(&event.draft.except),
        source: Some(event.draft.source.label().to_owned()),
        accepted_ms: Some(event.accepted_us / 1000),
    }
}
