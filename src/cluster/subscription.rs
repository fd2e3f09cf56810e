//! This node's subscription to its own channel, where other nodes send it messages.

use crate::cluster::rpc::RpcHandler;
use crate::cluster::rpc::message::{Body, RpcResponse};
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

/// Receives messages until dropped. Reconnects by itself. `respond` sends a response to a call of another node.
pub(super) async fn run(
    shared: &Shared,
    handler: &dyn RpcHandler,
    respond: &(dyn Fn(NodeId, u64, RpcResponse) + Send + Sync),
) {
    let mut reconnect = Reconnect::default();
    loop {
        let Err(error) = subscribed(shared, handler, respond, &mut reconnect).await;
        handler.on_reachable(false);
        // Responses that are on their way will not arrive.
        shared.calls.fail_all();
        reconnect.wait("receiving from other nodes", &shared.connector, &error).await;
    }
}

async fn subscribed(
    shared: &Shared,
    handler: &dyn RpcHandler,
    respond: &(dyn Fn(NodeId, u64, RpcResponse) + Send + Sync),
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
    loop {
        let next_check = Instant::now() + CHECK_INTERVAL;
        while let Ok(message) = tokio::time::timeout_at(next_check, unread.recv()).await {
            let message = message.ok_or_else(|| RedisError::Disconnected("the subscription ended".into()))?;
            receive(shared, handler, respond, &message);
        }
        connection.check().await?;
    }
}

fn receive(
    shared: &Shared,
    handler: &dyn RpcHandler,
    respond: &(dyn Fn(NodeId, u64, RpcResponse) + Send + Sync),
    signed: &[u8],
) {
    let envelope = match shared.calls.receive(signed) {
        Ok(Some(envelope)) => envelope,
        Ok(None) => return,
        Err(error) => {
            shared.metrics.dropped(DropReason::Malformed, 1);
            return tracing::debug!(%error, "a message on this node's channel is not read");
        }
    };
    let from = envelope.from;
    match envelope.body {
        Body::Request(call, request) => handler.on_request(from, call, request),
        Body::OneWay(message) => handler.on_one_way(from, message),
        Body::Response(call, response) => shared.calls.respond(call, response),
        Body::UnknownRequest(call) => {
            tracing::debug!(%from, "a request of a newer release is answered with `unsupported`");
            respond(from, call, RpcResponse::Unsupported);
        }
        Body::UnknownOneWay => tracing::debug!(%from, "a message of a newer release is ignored"),
    }
}
