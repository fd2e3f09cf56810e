//! `GET /cluster`, `/rooms`, `/sessions` and `/sessions/{id}`: what operators see, without payloads and tokens.

use crate::cluster::{RoomsQuery, SessionPlace, SessionView, SessionsQuery};
use crate::http::Api;
use crate::http::answer::{Reply, error, json};
use crate::model::id::{Id, NodeId};
use crate::node::inspection;
use crate::node::inspection::Page;
use crate::node::presence::rfc3339;
use crate::protocol::query;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Entries of a list without `limit`.
const LIMIT: usize = 100;
/// Entries of a list.
const MAX_LIMIT: usize = 1_000;

/// All nodes that are up.
pub async fn cluster(api: &Api) -> Reply {
    let nodes = inspection::nodes(&api.node).await.into_iter().map(|(node, status)| {
        let mut entry = match status {
            Ok(status) => serde_json::to_value(status).unwrap_or_default(),
            Err(silence) => json!({ "status": silence.label() }),
        };
        entry["node"] = node.to_string().into();
        entry["this"] = (node == api.node.id).into();
        entry
    });
    let nodes: Vec<Value> = nodes.collect();
    json(StatusCode::OK, &json!({ "nodes": nodes }))
}

/// Rooms with members.
pub async fn rooms(api: &Api, text: Option<&str>) -> Reply {
    let read = || -> Result<_, String> {
        let [prefix, limit, cursor] = values(text, ["prefix", "limit", "cursor"])?;
        Ok(RoomsQuery { prefix: prefix.unwrap_or_default(), limit: read_limit(limit)?, after: read_cursor(cursor)? })
    };
    let query = match read() {
        Ok(query) => query,
        Err(problem) => return bad_query(&problem),
    };
    let page = inspection::rooms(&api.node, &query).await;
    let cursor = page.items.last().map(|last| cursor(&(&last.room, &last.namespace)));
    list("rooms", page, cursor, |room| serde_json::to_value(room).unwrap_or_default())
}

/// Live sessions.
pub async fn sessions(api: &Api, text: Option<&str>) -> Reply {
    let read = || -> Result<_, String> {
        let [user, room, limit, cursor] = values(text, ["user", "room", "limit", "cursor"])?;
        let after: Option<(NodeId, SessionPlace)> = read_cursor(cursor)?;
        Ok((SessionsQuery { user, room, limit: read_limit(limit)?, after: None }, after))
    };
    let (query, after) = match read() {
        Ok(read) => read,
        Err(problem) => return bad_query(&problem),
    };
    let page = inspection::sessions(&api.node, &query, after).await;
    let cursor = page.items.last().map(|(node, view)| cursor(&(node, view.place)));
    list("sessions", page, cursor, |(_, view)| shown(view))
}

/// One live session, with all its rooms.
pub async fn session(api: &Api, id: &str) -> Reply {
    let found = match query::path_segment(id).as_deref().and_then(Id::parse) {
        Some(id) => inspection::session(&api.node, id).await,
        None => (None, 0),
    };
    match found {
        (Some(view), _) => json(StatusCode::OK, &shown(view)),
        (None, 0) => error(StatusCode::NOT_FOUND, "unknown_session", "no live session has this id"),
        (None, nodes) => {
            let message = format!("{nodes} nodes did not say whether they have this session; try again");
            error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &message)
        }
    }
}

fn shown(view: SessionView) -> Value {
    json!({
        "session": view.session,
        "user": view.user,
        "namespace": view.namespace,
        "node": view.node,
        "transport": view.transport,
        "protocol": view.protocol,
        "address": view.address,
        "since": rfc3339(view.since_ms),
        "rooms": view.rooms,
        "room_count": view.room_count,
        "outbox_bytes": view.outbox_bytes,
        "last_event_in": view.last_event_in_ms.map(rfc3339),
        "last_event_out": view.last_event_out_ms.map(rfc3339),
        "last_refusal": view.last_refusal.map(|(at_ms, code)| json!({ "code": code, "at": rfc3339(at_ms) })),
    })
}

fn list<T>(name: &str, page: Page<T>, cursor: Option<String>, show: impl Fn(T) -> Value) -> Reply {
    let Page { items, has_more, nodes_pending } = page;
    let items: Vec<Value> = items.into_iter().map(show).collect();
    let mut body = json!({ name: items, "cursor": cursor.filter(|_| has_more) });
    if nodes_pending > 0 {
        body["nodes_pending"] = nodes_pending.into();
    }
    json(StatusCode::OK, &body)
}

/// The values of these keys; empty ones count as absent.
pub(super) fn values<const N: usize>(text: Option<&str>, keys: [&str; N]) -> Result<[Option<String>; N], String> {
    let mut values = [const { None }; N];
    for (key, value) in query::pairs(text.unwrap_or_default()) {
        match keys.iter().position(|known| *known == key) {
            Some(at) if !value.is_empty() => values[at] = Some(value.into_owned()),
            Some(_) => {}
            None => return Err(format!("the query takes {}", keys.join(", "))),
        }
    }
    Ok(values)
}

fn read_limit(text: Option<String>) -> Result<usize, String> {
    let Some(text) = text else { return Ok(LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| format!("`limit` takes 1 to {MAX_LIMIT}"))
}

fn cursor(last: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_string(last).unwrap_or_default())
}

fn read_cursor<T: DeserializeOwned>(text: Option<String>) -> Result<Option<T>, String> {
    let Some(text) = text else { return Ok(None) };
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let last = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    last.map(Some).ok_or_else(|| "`cursor` is not one of an answer to this path".to_owned())
}

pub(super) fn bad_query(message: &str) -> Reply {
    error(StatusCode::BAD_REQUEST, "bad_query", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_checked() {
        let read = |text| values(Some(text), ["prefix", "limit"]);
        assert_eq!(read("prefix=a%3A&limit="), Ok([Some("a:".into()), None]));
        assert!(read("prefx=a").is_err());
        assert_eq!((read_limit(None), read_limit(Some("1000".into()))), (Ok(100), Ok(1000)));
        assert!(["0", "1001", "-1", "x"].iter().all(|bad| read_limit(Some((*bad).into())).is_err()));
        let last = ("room".to_owned(), "/".to_owned());
        assert_eq!(read_cursor(Some(cursor(&last))), Ok(Some(last)));
        assert!(read_cursor::<(NodeId, SessionPlace)>(Some(cursor(&("room", "/")))).is_err());
        assert!(read_cursor::<(String, String)>(Some("?".into())).is_err());
    }
}
