//! `GET /trace`: what happens to a user, a session or a room, live, as Server-Sent Events.

use crate::cluster::TraceQuery;
use crate::http::Api;
use crate::http::access;
use crate::http::answer::{Reply, error, no_store};
use crate::http::body::Answer;
use crate::http::caller::Caller;
use crate::http::inspection::{bad_query, values};
use crate::http::stream::TextStream;
use crate::model::clock::unix_ms;
use crate::model::happening::Happening;
use crate::model::id::{Id, NodeId};
use crate::node::presence::rfc3339;
use crate::node::trace::{EndReason, Line, follow};
use crate::session::accepted::AcceptedSocket;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Batches of lines that wait for the reader.
const MAX_WAITING: usize = 4;
/// A comment keeps proxies from closing a quiet stream.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// How often is checked whether the reader may still follow.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long a reader that does not read has for the last lines.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Begins a trace. The caller has checked the key.
pub fn serve(api: &Arc<Api>, request: &Request<Incoming>, caller: &Caller) -> Reply {
    let query = match read(request.uri().query()) {
        Ok(query) => query,
        Err(problem) => return bad_query(&problem),
    };
    let traces = &api.node.traces;
    if query.payloads && !traces.config().payloads {
        let message = "payloads are not shown: `trace.payloads` is off";
        return error(StatusCode::FORBIDDEN, "payloads_disabled", message);
    }
    let trace = match traces.open(&api.node.context.feed, &query) {
        Ok(trace) => trace,
        Err(many) => return error(StatusCode::TOO_MANY_REQUESTS, "too_many_traces", &many.to_string()),
    };
    let (sender, lines) = mpsc::channel(MAX_WAITING);
    let (bytes, body) = mpsc::channel(MAX_WAITING);
    tokio::task::spawn_local(follow(api.node.clone(), query, trace, sender));
    let refused = until_refused(api.clone(), request.headers().clone());
    tokio::task::spawn_local(write(lines, bytes, caller.socket.clone(), refused));
    let mut response = Response::new(Answer::Text(TextStream(body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Without it, nginx buffers streams.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    // The connection may have to be cut at the end.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    no_store(response)
}

fn read(text: Option<&str>) -> Result<TraceQuery, String> {
    let [user, session, room, payloads] = values(text, ["user", "session", "room", "payloads"])?;
    if user.is_none() && session.is_none() && room.is_none() {
        return Err("name a `user`, a `session` or a `room`".to_owned());
    }
    let session = session.map(|id| Id::parse(&id).ok_or("`session` is not the id of a session")).transpose()?;
    let payloads = match payloads.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err("`payloads` takes true or false".to_owned()),
    };
    Ok(TraceQuery { trace: Id::random(), user, session, room, payloads })
}

/// Writes the lines until the trace ends, then cuts the connection, which a reader that does not read would keep.
async fn write(
    mut lines: mpsc::Receiver<Vec<Line>>,
    body: mpsc::Sender<Bytes>,
    socket: Arc<AcceptedSocket>,
    refused: impl Future<Output = ()>,
) {
    let mut refused = pin!(refused);
    loop {
        let next = tokio::select! {
            next = tokio::time::timeout(COMMENT_EVERY, lines.recv()) => next,
            () = body.closed() => return,
            () = &mut refused => {
                // The reader may be too slow to hear of it.
                let _ = body.try_send(block(Line::Ended(EndReason::Unauthorized)).into());
                break;
            }
        };
        let text = match next {
            Ok(Some(lines)) => lines.into_iter().map(block).collect(),
            Ok(None) => break,
            Err(_) => ":\n\n".to_owned(),
        };
        // While the reader does not take it, the sources skip what comes.
        tokio::select! {
            biased;
            sent = body.send(text.into()) => if sent.is_err() { return },
            () = ended(&lines) => break,
        }
    }
    drop((lines, body));
    tokio::time::sleep(LAST_LINES).await;
    socket.cut().cut();
}

/// Completes when the key is no longer one, or the operator has signed out.
async fn until_refused(api: Arc<Api>, headers: HeaderMap) {
    while access::still_holds(&api, &headers).await {
        tokio::time::sleep(CHECK_EVERY).await;
    }
}

/// Completes when the trace has ended, though its last lines may still be there.
async fn ended(lines: &mpsc::Receiver<Vec<Line>>) {
    while !lines.is_closed() {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn block(line: Line) -> String {
    format!("data: {}\n\n", shown(line))
}

fn shown(line: Line) -> Value {
    let now = || rfc3339(unix_ms());
    match line {
        Line::Opened { nodes } => json!({ "at": now(), "type": "opened", "nodes": nodes }),
        Line::Happening(node, happening) => of(&happening, Some(node)),
        Line::Event { event, nodes, missing } => {
            let mut shown = of(&event, None);
            let nodes = nodes.into_iter().map(|(node, count)| (node.to_string(), count.into())).collect();
            shown["nodes"] = Value::Object(nodes);
            if missing > 0 {
                shown["nodes_pending"] = missing.into();
            }
            shown
        }
        Line::Node(node, state) => {
            json!({ "at": now(), "type": "node", "node": node.to_string(), "status": state.label() })
        }
        Line::Skipped(node, lines) => {
            json!({ "at": now(), "type": "skipped", "node": node.to_string(), "lines": lines })
        }
        Line::Ended(reason) => json!({ "at": now(), "type": "ended", "reason": reason.label() }),
    }
}

fn of(happening: &Happening, node: Option<NodeId>) -> Value {
    let mut shown = Map::new();
    shown.insert("at".into(), rfc3339(happening.at_ms).into());
    if let Ok(Value::Object(fields)) = serde_json::to_value(happening) {
        shown.extend(fields.into_iter().filter(|(key, _)| key != "at_ms"));
    }
    shown.extend(node.map(|node| ("node".to_owned(), node.to_string().into())));
    Value::Object(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::happening::Kind;

    #[test]
    fn queries_are_checked() {
        let query = read(Some("user=7&room=a%3A1&payloads=true")).unwrap();
        assert_eq!((query.user.as_deref(), query.room.as_deref(), query.payloads), (Some("7"), Some("a:1"), true));
        assert!(read(Some(&format!("session={}", Id::random_session()))).is_ok());
        for bad in ["", "user=", "session=x", "usr=7", "user=7&payloads=yes"] {
            assert!(read(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_line_has_its_time_and_node_and_only_what_applies() {
        let (node, at_ms) = (NodeId::random(), 1_764_160_000_000);
        let happening = Happening { at_ms, kind: Kind::Joined, user: Some("7".into()), ..Happening::default() };
        let text = block(Line::Happening(node, happening));
        assert_eq!(
            text,
            format!(
                "data: {{\"at\":\"2025-11-26T12:26:40.000Z\",\"node\":\"{node}\",\"type\":\"joined\",\"user\":\"7\"}}\n\n"
            )
        );
    }
}
