//! `/ws`: the handshake of a plain WebSocket.

use crate::auth::bare_token;
use crate::http::Api;
use crate::http::answer::{Reply, error, overloaded};
use crate::http::caller::Caller;
use crate::http::keys::bearer;
use crate::http::origin::Origin;
use crate::http::upgrade::{Intent, accept, is_upgrade};
use crate::protocol::engineio::Query;
use crate::session::connection_limiter::{ClientKind, LimitError};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use hyper::{Request, StatusCode};

/// The accepted subprotocol. A token may be offered beside it, as `token.<jwt>`.
const SUBPROTOCOL: &str = "roomcast";

/// One request.
pub fn serve(api: &Api, request: Request<Incoming>, caller: &Caller, origin: &Origin) -> Reply {
    if !origin.is_allowed() {
        return foreign();
    }
    if !is_upgrade(&request) {
        let message = "open this path as a WebSocket";
        return error(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message);
    }
    if api.node.context.memory.is_tight() {
        return overloaded();
    }
    let permit = match api.node.connection_limiter.take(caller.client(), ClientKind::WebSocket) {
        Ok(permit) => permit,
        Err(full) => return self::full(full),
    };
    let offered = subprotocols(request.headers());
    let in_subprotocol = offered.iter().find_map(|name| name.strip_prefix("token."));
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let given = [bearer(request.headers()), in_subprotocol, query.token.as_deref()];
    let token = given.into_iter().flatten().find_map(bare_token).map(Into::into);
    let subprotocol = offered.contains(&SUBPROTOCOL).then_some(HeaderValue::from_static(SUBPROTOCOL));
    accept(request.headers(), &caller.slot, Intent::Json(permit, token), subprotocol)
}

fn subprotocols(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).collect()
}

/// Refuses an origin that is not allowed.
pub fn foreign() -> Reply {
    error(StatusCode::FORBIDDEN, "origin_not_allowed", "this Origin is not in `cors.origins`")
}

/// Refuses a connection over a limit.
pub fn full(full: LimitError) -> Reply {
    match full {
        LimitError::Node => {
            let message = "this node has all the connections that `limits.connections` allows";
            error(StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", message)
        }
        LimitError::Address => {
            let message = "this address has all the connections that `limits.connections_per_ip` allows";
            error(StatusCode::TOO_MANY_REQUESTS, "too_many_connections", message)
        }
    }
}
