//! What the page asks of the demo itself: which nodes there are, and to kill one. At an address of its own, which the nodes
//! do not know of, under a path that only the page knows.

use crate::demo::node_process::NodeProcess;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at once. Above it new ones wait in the kernel.
const MAX_CONNECTIONS: usize = 64;

/// A connection that sends no request for so long is closed.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// After a connection that cannot be accepted.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Answers requests for ever. `secret` is the first segment of their path.
pub(super) async fn serve(listener: TcpListener, secret: String, nodes: Arc<[Arc<NodeProcess>]>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let secret: Arc<str> = secret.into();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else {
            // Out of files, most likely. Others close some.
            tokio::time::sleep(AGAIN_AFTER).await;
            continue;
        };
        let (nodes, secret) = (Arc::clone(&nodes), Arc::clone(&secret));
        tokio::spawn(async move {
            let service =
                service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &secret, &nodes))));
            let mut server = http1::Builder::new();
            let _ = server
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .serve_connection(TokioIo::new(socket), service)
                .await;
            drop(place);
        });
    }
}

/// `GET /{secret}/nodes` and `POST /{secret}/kill/{number}`.
fn answer<B>(request: &Request<B>, secret: &str, nodes: &[Arc<NodeProcess>]) -> Response<Full<Bytes>> {
    let path: Vec<_> = request.uri().path().split('/').skip(1).collect();
    let (status, body) = match (request.method(), &*path) {
        (&Method::GET, [given, "nodes"]) if *given == secret => {
            let states: Vec<Value> = nodes.iter().map(|node| node.state()).collect();
            (StatusCode::OK, json!({ "nodes": states }))
        }
        (&Method::POST, [given, "kill", number]) if *given == secret => {
            match nodes.iter().find(|node| node.number().to_string() == **number) {
                Some(node) => {
                    node.kill();
                    (StatusCode::OK, json!({ "killed": node.number() }))
                }
                None => (
                    StatusCode::NOT_FOUND,
                    json!({ "error": { "code": "not_found", "message": "there is no such node" } }),
                ),
            }
        }
        _ => (StatusCode::NOT_FOUND, json!({ "error": { "code": "not_found", "message": "no such path" } })),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The page comes from the balancer's port, which is another origin. Who knows the secret may ask from anywhere.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}
