//! The route table.

use crate::http::answer::{Reply, error, method_not_allowed, refused, typed};
use crate::http::body::Answer;
use crate::http::caller::{Caller, ListenerKind};
use crate::http::{
    Api, access, admin, console, drain, engine, explain, head, health, inspection, keys, presence, publish, reload,
    revoke, sse, trace, ws,
};
use crate::model::refusal::Refusal;
use crate::node::context::LocalNode;
use crate::protocol::engineio;
use crate::refusals::shown;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

/// Every path and answer, written by hand. `tests/e2e/openapi.test.mjs` compares it with what a node answers.
const OPENAPI: &str = include_str!("openapi.json");

/// Answers one request.
pub async fn route(api: &Arc<Api>, local: &Rc<LocalNode>, request: Request<Incoming>, caller: &Caller) -> Reply {
    if !caller.is_unix
        && let Some(refusal) = api.settings().hosts.refuse(request.uri(), request.version(), request.headers())
    {
        return refusal;
    }
    let path = request.uri().path();
    let clients = caller.listener == ListenerKind::Public;
    let control = caller.listener == ListenerKind::Admin || !api.admin_apart;
    // Socket.IO's Admin UI comes to the listener of operators.
    let serves_engine = clients || local.node.admin_ui.is_some();
    let engine_path = serves_engine && is_engine(&local.context.socketio.path, path);
    if engine_path || (clients && (path == "/ws" || path == "/sse")) {
        return for_clients(api, local, request, caller, engine_path).await;
    }
    if let Some(refusal) = head::refuse(&request, local.context.settings().limits.headers) {
        return refusal;
    }
    if control && keys::has(request.headers(), &api.settings().keys) {
        caller.socket.prove();
    }
    let get = request.method() == Method::GET || request.method() == Method::HEAD;
    match path {
        "/health" | "/health/live" | "/socket/ping" if !get => method_not_allowed("GET, HEAD"),
        "/health" => health::health(api),
        "/health/live" => health::live(api),
        "/socket/ping" => health::ping(api).await,
        "/openapi.json" if get => typed(StatusCode::OK, "application/json", OPENAPI),
        "/openapi.json" => method_not_allowed("GET, HEAD"),
        "/metrics" if control && get => Box::pin(health::metrics(api)).await,
        "/metrics" if control => method_not_allowed("GET, HEAD"),
        "/publish" if control => {
            let from = caller.client();
            keyed(api, caller, request, |request| Box::pin(publish::publish(api, request, from))).await
        }
        "/join" if control => command(api, caller, admin::Verb::Join, request).await,
        "/leave" if control => command(api, caller, admin::Verb::Leave, request).await,
        "/disconnect" if control => command(api, caller, admin::Verb::Disconnect, request).await,
        "/revoke" if control => keyed(api, caller, request, |request| Box::pin(revoke::serve(api, request))).await,
        "/users" if control => keyed(api, caller, request, |request| Box::pin(presence::users(api, request))).await,
        "/reload" if control => keyed(api, caller, request, |request| Box::pin(reload::serve(api, request))).await,
        "/drain" if control => keyed(api, caller, request, |request| Box::pin(drain::serve(api, request))).await,
        "/trace" if control => match access::check(api, caller, &request).await {
            _ if request.method() != Method::GET => method_not_allowed("GET"),
            Err(refusal) => *refusal,
            Ok(()) => trace::serve(api, &request, caller),
        },
        path if control && console::is_console(api, path) => Box::pin(console::serve(api, request, caller)).await,
        path if control && is_view(path) => match access::check(api, caller, &request).await {
            _ if !get => method_not_allowed("GET, HEAD"),
            Err(refusal) => *refusal,
            Ok(()) => Box::pin(view(api, path, request.uri().query())).await,
        },
        path => match api.pages.iter().find(|page| clients && get && page.path == path) {
            Some(page) => typed(StatusCode::OK, page.content_type, page.body.clone()),
            None => error(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path"),
        },
    }
}

/// Socket.IO clients with `addTrailingSlash:false` omit the last slash (docs/protocol/socketio.md section 2.1).
fn is_engine(engine: &str, path: &str) -> bool {
    path.starts_with(engine) || engine.strip_suffix('/').is_some_and(|bare| bare == path)
}

/// Paths for browsers: checks the origin, and adds CORS headers to every answer.
async fn for_clients(
    api: &Api,
    local: &Rc<LocalNode>,
    request: Request<Incoming>,
    caller: &Caller,
    engine_path: bool,
) -> Reply {
    let origin = api.settings().origins.judge(request.headers());
    if let Some(mut refusal) = head::refuse(&request, local.context.settings().limits.headers) {
        origin.mark(&mut refusal);
        return refusal;
    }
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(hyper::header::ACCESS_CONTROL_REQUEST_METHOD);
    if preflight && origin.is_allowed() {
        return origin.preflight(request.headers());
    }
    if !api.node.revocations_read.known().await {
        let message = "this node has just started and does not know yet which tokens are revoked; try again";
        let mut reply = error(StatusCode::SERVICE_UNAVAILABLE, "starting", message);
        origin.mark(&mut reply);
        return reply;
    }
    if api.node.operator_drain.refuses_clients() && is_newcomer(engine_path, request.uri().query()) {
        let mut reply = drain::refuse();
        origin.mark(&mut reply);
        return reply;
    }
    let foreign = (!origin.is_allowed()).then(|| request.headers().get(hyper::header::ORIGIN).cloned()).flatten();
    let mut response = match request.uri().path() {
        _ if engine_path => engine::serve(api, local, request, caller, &origin).await,
        _ if request.method() != Method::GET => method_not_allowed("GET"),
        "/ws" => ws::serve(api, request, caller, &origin),
        _ => Box::pin(sse::serve(api, local, request, caller, &origin)).await,
    };
    if !matches!(response.body(), Answer::Sse(_)) {
        caller.socket.rest();
    }
    origin.mark(&mut response);
    match foreign {
        Some(foreign) => {
            let why = format!("origin {} is not in cors.origins", shown(&String::from_utf8_lossy(foreign.as_bytes())));
            refused(response, Refusal::Origin, why)
        }
        None => response,
    }
}

fn is_view(path: &str) -> bool {
    matches!(path, "/cluster" | "/rooms" | "/sessions" | "/explain")
        || ["/rooms/", "/users/", "/sessions/"].iter().any(|of| path.starts_with(of))
}

/// What operators and backends look at.
async fn view(api: &Api, path: &str, query: Option<&str>) -> Reply {
    match (path.strip_prefix("/rooms/"), path.strip_prefix("/users/")) {
        _ if path == "/cluster" => inspection::cluster(api).await,
        _ if path == "/rooms" => inspection::rooms(api, query).await,
        _ if path == "/explain" => explain::serve(api, query).await,
        _ if path == "/sessions" => inspection::sessions(api, query).await,
        _ if path.starts_with("/sessions/") => inspection::session(api, &path["/sessions/".len()..]).await,
        (Some(room), _) => presence::room(api, room, query).await,
        (None, user) => presence::user(api, user.unwrap_or_default()).await,
    }
}

/// Whether a client's request is not of a session that is here already.
fn is_newcomer(engine_path: bool, query: Option<&str>) -> bool {
    !engine_path || engineio::Query::parse(query.unwrap_or_default()).sid.is_none()
}

async fn command(api: &Api, caller: &Caller, verb: admin::Verb, request: Request<Incoming>) -> Reply {
    keyed(api, caller, request, |request| Box::pin(admin::command(api, verb, request))).await
}

/// POST with a publish key, or of the console; who it is, is checked before the body is read.
async fn keyed<'a>(
    api: &Api,
    caller: &Caller,
    request: Request<Incoming>,
    act: impl FnOnce(Request<Incoming>) -> Pin<Box<dyn Future<Output = Reply> + 'a>>,
) -> Reply {
    if request.method() != Method::POST {
        return method_not_allowed("POST");
    }
    match access::check(api, caller, &request).await {
        Ok(()) => act(request).await,
        Err(refusal) => *refusal,
    }
}
