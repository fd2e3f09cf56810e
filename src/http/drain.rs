//! `POST /drain`: sends the clients of this node to others, without stopping it.

use crate::http::Api;
use crate::http::answer::{Reply, error, json, unread};
use crate::http::body;
use crate::node::drain;
use crate::protocol::json_object;
use crate::protocol::json_text::Text;
use crate::refusals::shown;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// Bytes of the body.
const MAX_BODY: usize = 4 << 10;
/// The longest drain.
const MAX_OVER: Duration = Duration::from_secs(24 * 3600);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Fields {
    over: Option<Text>,
    /// The node that is meant: a load balancer may have chosen another one.
    node: Option<Text>,
}

/// What the body asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    over: Duration,
    node: Option<String>,
}

/// Begins the drain, or answers how far the one has come that was begun before. The caller has checked the key.
pub async fn serve(api: &Api, request: Request<Incoming>) -> Reply {
    let body = match body::read(request, MAX_BODY).await {
        Ok(body) => body,
        Err(problem) => return unread(problem, "4 KiB"),
    };
    let wanted = match read(&body, api.settings().shutdown.drain) {
        Ok(wanted) => wanted,
        Err((code, message)) => return error(StatusCode::BAD_REQUEST, code, &message),
    };
    let node = &api.node;
    let own = node.id.to_string();
    if let Some(other) = wanted.node.filter(|name| *name != own) {
        let message = format!("this is node {own}, not {}; use the address of the node itself", shown(&other));
        return error(StatusCode::CONFLICT, "other_node", &message);
    }
    let over = wanted.over;
    let begun = drain::begin(node, api.settings().shutdown.pause, over);
    let status = node.operator_drain.status(node.connection_limiter.taken());
    json(StatusCode::OK, &json!({ "node": own, "begun": begun, "drain": status }))
}

fn read(body: &[u8], default: Duration) -> Result<Wanted, (&'static str, String)> {
    let fields = match body.is_empty() {
        true => Fields::default(),
        false => json_object::read(body).map_err(|problem| ("bad_json", problem.to_string()))?,
    };
    let filled = |text: Option<Text>| text.map(|Text(text)| text).filter(|text| !text.is_empty());
    let node = filled(fields.node);
    match filled(fields.over).map_or(Ok(default), |text| humantime::parse_duration(&text)) {
        Ok(over) if over <= MAX_OVER => Ok(Wanted { over, node }),
        _ => Err(("bad_field", "`over` must be like \"90s\" or \"5m\", and at most 24h".to_owned())),
    }
}

/// Sends a new client to another node.
pub fn refuse() -> Reply {
    let mut reply =
        error(StatusCode::SERVICE_UNAVAILABLE, "draining", "this node is drained; try again, or another node");
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_checked() {
        let default = Duration::from_secs(10);
        for (body, over) in
            [("", 10), ("{}", 10), (r#"{"over":""}"#, 10), (r#"{"over":"60s"}"#, 60), (r#"{"over":"0s"}"#, 0)]
        {
            let wanted = Wanted { over: Duration::from_secs(over), node: None };
            assert_eq!(read(body.as_bytes(), default), Ok(wanted), "{body}");
        }
        for bad in ["7", "[]", r#"{"over":"x"}"#, r#"{"over":"25h"}"#, r#"{"ovr":"1s"}"#] {
            assert!(read(bad.as_bytes(), default).is_err(), "{bad}");
        }
    }
}
