//! `GET /explain`: why a user did or did not get an event, without payloads and tokens.

use crate::cluster::{EventView, ExplainQuery, ExplainedSession, NodeExplanation, TurnedAwayView};
use crate::explain::verdict;
use crate::explain::verdict::Verdict;
use crate::http::Api;
use crate::http::answer::{Reply, json};
use crate::http::inspection::{bad_query, values};
use crate::http::presence::is_user;
use crate::model::draft::check_room_name;
use crate::model::id::NodeId;
use crate::model::names::MAIN_NAMESPACE;
use crate::model::place::event_of;
use crate::node::explanation;
use crate::node::inspection::Silence;
use crate::node::presence::rfc3339;
use crate::shard::explanation::keep_interesting;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::collections::HashMap;

/// `user` and `room`, and if it is about one event, `event`: its offset.
pub(super) async fn serve(api: &Api, text: Option<&str>) -> Reply {
    let read = || -> Result<_, String> {
        let [user, room, event, namespace] = values(text, ["user", "room", "event", "namespace"])?;
        let (user, room) = user.zip(room).ok_or("name the user and the room: /explain?user=…&room=…")?;
        check_room_name(&room, api.node.context.draft_limits.room_name_bytes).map_err(|problem| problem.to_string())?;
        if !is_user(&user) {
            return Err("`user` must be 1 to 200 bytes without control characters".into());
        }
        if event.as_deref().is_some_and(|event| event_of(event).is_none()) {
            return Err("`event` takes an offset, as in the answer to /publish".into());
        }
        let namespace = namespace.unwrap_or_else(|| MAIN_NAMESPACE.to_owned());
        Ok(ExplainQuery { user, room, namespace, event })
    };
    match read() {
        Ok(query) => {
            let nodes = explanation::explain(&api.node, &query).await;
            json(StatusCode::OK, &answer(&query, nodes))
        }
        Err(problem) => bad_query(&problem),
    }
}

fn answer(query: &ExplainQuery, nodes: Vec<(NodeId, Result<NodeExplanation, Silence>)>) -> Value {
    let known: Vec<&NodeExplanation> = nodes.iter().filter_map(|(_, answer)| answer.as_ref().ok()).collect();
    let sees_back_to = known.iter().map(|node| node.sees_back_to_ms).max().map(rfc3339);
    let Verdict { code, mut message, at_ms } =
        verdict::of(query, &known, sees_back_to.as_deref().unwrap_or("the start of this node"));
    let pending = nodes.len() - known.len();
    if pending > 0 {
        message = format!("{message} ({pending} nodes did not answer)");
    }
    let outcomes = verdict::outcomes(&known);
    let all: u64 = outcomes.values().sum();
    let event = verdict::event(&known).map(|event| shown_event(query, event));
    let (rule, join) = known.first().map_or((None, None), |node| (node.rule.clone(), node.join.clone()));
    let outcomes = json!(outcomes);
    let of_nodes: Vec<Value> = nodes.iter().map(|(node, answer)| shown_node(*node, answer)).collect();
    let mut turned_away: Vec<_> = known.iter().flat_map(|node| &node.turned_away).collect();
    turned_away.sort_unstable_by_key(|turned_away| std::cmp::Reverse(turned_away.at_ms));
    let turned_away: Vec<Value> = turned_away
        .into_iter()
        .map(|TurnedAwayView { at_ms, code, claimed }| json!({ "at": rfc3339(*at_ms), "code": code, "claimed": claimed }))
        .collect();
    let sessions = sessions(nodes);
    json!({
        "user": query.user,
        "room": query.room,
        "namespace": query.namespace,
        "verdict": code,
        "message": message,
        "at": at_ms.map(rfc3339),
        "rule": rule.map(|rule| json!({ "name": rule, "join": join })),
        "event": event,
        "outcomes": outcomes,
        "sessions_left_out": all.saturating_sub(sessions.len() as u64),
        "sessions": sessions,
        "turned_away": turned_away,
        "sees_back_to": sees_back_to,
        "nodes": of_nodes,
        "nodes_pending": pending,
    })
}

fn shown_node(node: NodeId, answer: &Result<NodeExplanation, Silence>) -> Value {
    match answer {
        Ok(answer) => json!({ "node": node, "sees_back_to": rfc3339(answer.sees_back_to_ms) }),
        Err(silence) => json!({ "node": node, "status": silence.label() }),
    }
}

/// The sessions of all nodes, as many as are shown of one.
fn sessions(nodes: Vec<(NodeId, Result<NodeExplanation, Silence>)>) -> Vec<Value> {
    let mut node_of = HashMap::new();
    let mut all = Vec::new();
    for (node, answer) in nodes {
        for session in answer.map(|answer| answer.sessions).unwrap_or_default() {
            node_of.insert((session.session.clone(), session.since_ms, session.ended_ms), node);
            all.push(session);
        }
    }
    keep_interesting(&mut all);
    let node = |session: &ExplainedSession| {
        node_of.get(&(session.session.clone(), session.since_ms, session.ended_ms)).map(ToString::to_string)
    };
    all.into_iter().map(|session| shown_session(node(&session), session)).collect()
}

fn shown_event(query: &ExplainQuery, event: EventView) -> Value {
    json!({
        "offset": query.event,
        "status": event.status,
        "event": event.event,
        "namespace": event.namespace,
        "rooms": event.rooms,
        "except": event.except,
        "source": event.source,
        "at": event.accepted_ms.map(rfc3339),
    })
}

fn shown_session(node: Option<String>, session: ExplainedSession) -> Value {
    json!({
        "session": session.session,
        "node": node,
        "transport": session.transport,
        "protocol": session.protocol,
        "address": session.address,
        "since": rfc3339(session.since_ms),
        "ended": session.ended_ms.map(|at| json!({
            "at": rfc3339(at),
            "reason": session.end_reason,
            "resumable_until": session.resumable_until_ms.map(rfc3339),
        })),
        "in_room": session.in_room,
        "in_room_since": session.in_room_since_ms.map(rfc3339),
        "by": session.by,
        "decided_by": session.decided_by,
        "refused": session.refused.map(|(at, code)| json!({ "code": code, "at": rfc3339(at) })),
        "outbox_bytes": session.outbox_bytes,
        "volatile_skipped": session.volatile_skipped.map(|(events, last)| json!({ "events": events, "last": rfc3339(last) })),
        "outcome": session.outcome,
        "at": session.outcome_ms.map(rfc3339),
        "message": session.message,
    })
}
