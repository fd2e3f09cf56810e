//! `POST /drain`: sends the clients of this node to others, without stopping it.

use crate::http::Api;
use crate::http::answer::{Reply, error, json, unread};
use crate::http::body;
use crate::node::drain;
use crate::protocol::json_text::Text;
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
}

/// Begins the drain, or answers how far the one has come that was begun before. The caller has checked the key.
pub async fn serve(api: &Api, request: Request<Incoming>) -> Reply {
    let body = match body::read(request, MAX_BODY).await {
        Ok(body) => body,
        Err(problem) => return unread(problem, "4 KiB"),
    };
    let over = match read(&body, api.settings().shutdown.drain) {
        Ok(over) => over,
        Err((code, message)) => return error(StatusCode::BAD_REQUEST, code, &message),
    };
    let node = &api.node;
    let begun = drain::begin(node, api.settings().shutdown.pause, over);
    let status = node.operator_drain.status(node.connection_limiter.taken());
    json(StatusCode::OK, &json!({ "node": node.id.to_string(), "begun": begun, "drain": status }))
}

fn read(body: &[u8], default: Duration) -> Result<Duration, (&'static str, String)> {
    let fields = match body.is_empty() {
        true => Fields::default(),
        false => serde_json::from_slice(body).map_err(|problem| ("bad_json", problem.to_string()))?,
    };
    let text = fields.over.map(|Text(text)| text).filter(|text| !text.is_empty());
    match text.map_or(Ok(default), |text| humantime::parse_duration(&text)) {
        Ok(over) if over <= MAX_OVER => Ok(over),
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
            assert_eq!(read(body.as_bytes(), default), Ok(Duration::from_secs(over)), "{body}");
        }
        for bad in ["7", "[]", r#"{"over":"x"}"#, r#"{"over":"25h"}"#, r#"{"ovr":"1s"}"#] {
            assert!(read(bad.as_bytes(), default).is_err(), "{bad}");
        }
    }
}
