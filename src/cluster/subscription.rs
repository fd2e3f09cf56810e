//! This node's subscription to its own channel, where other nodes send it messages.

use crate::cluster::rpc::RpcHandler;
use crate::cluster::rpc::calls::Received;
use crate::cluster::rpc::message::{Body, OneWay, RpcResponse};
use crate::cluster::rpc::pieces::{Assemblies, Lanes};
use crate::cluster::shared::Shared;
use crate::model::close::DropReason;
use crate::model::id::NodeId;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use redis::{PushInfo, PushKind, Value};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Messages that may wait to be read. Above it one is dropped, and its sender gets no response.
const MAX_UNREAD: usize = 10_000;
/// How often the connection is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Receives messages until dropped. Reconnects by itself.
pub(super) async fn run(shared: &Shared, handler: &dyn RpcHandler) {
    let mut reconnect = Reconnect::default();
    loop {
        let Err(error) = subscribed(shared, handler, &mut reconnect).await;
        handler.on_reachable(false);
        // Responses that are on their way will not arrive.
        shared.calls.fail_all();
        shared.with_lanes(Lanes::clear);
        reconnect.wait("receiving from other nodes", &shared.connector, &error).await;
    }
}

async fn subscribed(
    shared: &Shared,
    handler: &dyn RpcHandler,
    reconnect: &mut Reconnect,
) -> Result<Infallible, RedisError> {
    let (messages, mut unread) = mpsc::channel(MAX_UNREAD);
    let on_push = move |push: PushInfo| -> Result<(), Infallible> {
        if push.kind == PushKind::Message
            && let Some(Value::BulkString(message)) = push.data.into_iter().nth(1)
            && messages.try_send(message).is_err()
        {
            tracing::warn!("messages of other nodes arrive faster than they are read; one is dropped");
        }
        Ok(())
    };
    let mut connection = RedisConnection::open_subscriber(&shared.connector, shared.timeout, on_push).await?;
    connection.subscribe(&shared.keys.channel_of(shared.me)).await?;
    handler.on_reachable(true);
    reconnect.reset();
    let mut assemblies = Assemblies::default();
    loop {
        let next_check = Instant::now() + CHECK_INTERVAL;
        while let Ok(message) = tokio::time::timeout_at(next_check, unread.recv()).await {
            let message = message.ok_or_else(|| RedisError::Disconnected("the subscription ended".into()))?;
            receive(shared, handler, &mut assemblies, &message);
        }
        connection.check().await?;
    }
}

fn receive(shared: &Shared, handler: &dyn RpcHandler, assemblies: &mut Assemblies, signed: &[u8]) {
    let is_current = |node| {
        let membership = shared.membership.lock();
        membership.is_live(node) && !membership.is_legacy(node)
    };
    match shared.calls.receive(signed, is_current) {
        Ok(Received::New(envelope)) => take(shared, handler, assemblies, envelope.from, envelope.body),
        Ok(Received::Replayed) => {
            shared.metrics.events.dropped(DropReason::Replayed, 1);
            tracing::debug!("a message between nodes arrived a second time, or too late; it is ignored");
        }
        Ok(Received::TooEarly) => {}
        Err(error) => {
            shared.metrics.events.dropped(DropReason::Malformed, 1);
            tracing::debug!(%error, "a message on this node's channel is not read");
        }
    }
}

fn take(shared: &Shared, handler: &dyn RpcHandler, assemblies: &mut Assemblies, from: NodeId, body: Body) {
    match body {
        Body::Request(call, request) => handler.on_request(from, call, request),
        Body::OneWay(OneWay::PieceRead(name, bytes)) => {
            shared.with_lanes(|lanes| lanes.read(from, name, bytes, Instant::now()));
            shared.send_pieces(from);
        }
        Body::OneWay(message) => handler.on_one_way(from, message),
        Body::Response(call, response) => shared.calls.respond(from, call, response),
        Body::Piece(name, index, is_last, text) => {
            // The sender need not know whether this arrives: it goes on after a while.
            drop(shared.send(from, Body::OneWay(OneWay::PieceRead(name, text.len()))));
            let whole = assemblies.add((from, name), index, is_last, text, Instant::now());
            match whole.map(|text| Body::from_json(&text)) {
                Some(Some(body)) if !matches!(body, Body::Piece(..)) => take(shared, handler, assemblies, from, body),
                Some(_) => shared.metrics.events.dropped(DropReason::Malformed, 1),
                None => {}
            }
        }
        Body::UnknownRequest(call) => {
            tracing::debug!(%from, "a request of a newer release is answered with `unsupported`");
            drop(shared.send(from, Body::Response(call, RpcResponse::Unsupported)));
        }
        Body::UnknownOneWay => tracing::debug!(%from, "a message of a newer release is ignored"),
    }
}
