//! The handshake of a connection to `listen` with `[tls]`: bounded in time with the first request (`http.head_timeout`) and in
//! memory, evicted like any connection that has proven nothing, and counted by its result.

use crate::budget::Holding;
use crate::http::Api;
use crate::http::caller::{Caller, MAKES_ROOM, note};
use crate::http::linger;
use crate::model::refusal::Refusal;
use crate::node::context::LocalNode;
use crate::tls;
use crate::tls::{Accepted, HandshakeError, Socket, TlsServer};
use tokio::net::TcpStream;

/// What one handshake takes while it lasts, about.
const BYTES: usize = 16 << 10;
/// The part of `limits.memory` that unfinished handshakes and heads may hold.
const PART: usize = 8;

const PLAIN_HTTP: &str =
    "{\"error\":{\"code\":\"tls_required\",\"message\":\"this port speaks TLS: use https:// or wss://\"}}";

/// Shakes hands. `None`: there is no TLS on this connection, which is noted.
pub(super) async fn shake_hands(
    local: &LocalNode,
    api: &Api,
    stream: TcpStream,
    caller: &Caller,
    server: &TlsServer,
) -> Option<Socket> {
    let (metrics, memory) = (&api.node.context.metrics.connections, &api.node.context.memory);
    if memory.held(Holding::Heads) > memory.limit() / PART {
        metrics.tls_handshake("memory");
        note(api, caller, Refusal::Memory, format_args!("unfinished TLS handshakes hold too much of `limits.memory`"));
        return None;
    }
    let _held = memory.hold(Holding::Heads, BYTES);
    let by = caller.accepted() + api.settings().http.head_timeout;
    let accepted = tokio::select! {
        accepted = tokio::time::timeout_at(by.into(), tls::accept(stream, server.config())) => accepted,
        _ = caller.socket.cut().wait() => {
            metrics.tls_handshake("evicted");
            note(api, caller, Refusal::Unauthenticated, format_args!("{MAKES_ROOM}"));
            return None;
        }
    };
    match accepted {
        Ok(Ok(Accepted::Tls(socket))) => {
            metrics.tls_handshake("ok");
            return Some(socket);
        }
        Ok(Ok(Accepted::PlainHttp(stream))) => {
            metrics.tls_handshake("plain_http");
            let why = format_args!("HTTP without TLS on a port with [tls]: use https:// or wss://");
            note(api, caller, Refusal::Tls, why);
            let answer = format!(
                "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PLAIN_HTTP}",
                PLAIN_HTTP.len()
            );
            let socket = Socket::plain(stream);
            if tokio::time::timeout_at(by.into(), socket.send(answer.as_bytes())).await.is_ok_and(|sent| sent.is_ok()) {
                linger::close(local, socket).await;
            }
        }
        Ok(Err(error)) => {
            metrics.tls_handshake(error.label());
            // Browsers open connections that they may need, and health checks of TCP open them only.
            if !matches!(error, HandshakeError::Empty | HandshakeError::Closed) {
                note(api, caller, Refusal::Tls, format_args!("{error}"));
            }
        }
        Err(_) => {
            metrics.tls_handshake("timeout");
            note(api, caller, Refusal::Tls, format_args!("no whole TLS handshake within `http.head_timeout`"));
        }
    }
    None
}
