//! Copies the entries of a streams adapter's stream, while this node holds the lease. The position is stored in Redis with
//! each append, all or nothing, so that the next holder continues exactly there.

use crate::bridge::copy_tracker::Content;
use crate::bridge::redis::EmitterBridge;
use crate::bridge::redis::copier::leased_entry;
use crate::bridge::request::Request;
use crate::bridge::streams;
use crate::log::redis::leased_append::{LeaseToken, end_of_stream, read_stream};
use crate::model::offset::Position;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use std::time::Duration;

/// Entries in one read.
const MAX_ENTRIES: usize = 200;
/// How long a read waits for entries.
const BLOCK: Duration = Duration::from_millis(500);

/// Copies until dropped; reconnects by itself.
pub(super) async fn run(bridge: &EmitterBridge) {
    let Some(stream) = bridge.stream.as_deref() else { return };
    let mut lease = bridge.lease.subscribe();
    let mut reconnect = Reconnect::default();
    loop {
        let token = lease.wait_for(Option::is_some).await.ok().and_then(|lease| lease.clone());
        let Some(token) = token else { return };
        if let Err(error) = copy(bridge, stream, &token, &mut reconnect).await {
            reconnect.wait("reading the emitters' stream", bridge.log.redis().0, &error).await;
        }
    }
}

/// Copies while the token holds the lease.
async fn copy(
    bridge: &EmitterBridge,
    stream: &str,
    token: &LeaseToken,
    reconnect: &mut Reconnect,
) -> Result<(), RedisError> {
    let (connector, timeout) = bridge.log.redis();
    let elsewhere = connector.for_key(stream);
    let mut connection = RedisConnection::open(elsewhere.as_ref().unwrap_or(connector), timeout).await?;
    let mut at = start(bridge, stream, &mut connection).await?;
    store_position(bridge, token, stream, at).await?;
    reconnect.reset();
    while bridge.lease().is_some() {
        let entries = read_stream(&mut connection, stream, at, MAX_ENTRIES, BLOCK).await?;
        let Some((last, _)) = entries.last() else {
            connection.check().await?;
            let end = end_of_stream(&mut connection, stream).await?;
            if end < at {
                tracing::warn!(stream, "the emitters' stream was emptied; it is read from its new end");
                at = end;
            }
            store_position(bridge, token, stream, at).await?;
            continue;
        };
        at = *last;
        let copies: Vec<_> = entries.iter().filter_map(|(id, fields)| read(bridge, stream, *id, fields)).collect();
        let copies: Vec<_> = copies.into_iter().map(|content| leased_entry(bridge, content)).collect();
        let mut answers = bridge.log.append_leased(token, &copies, Some((stream, at))).await;
        let is_stored = answers.pop().is_some_and(|answer| answer.is_ok());
        if !bridge.count(&answers) || !is_stored {
            return Err(RedisError::Disconnected("the log did not take the entries".into()));
        }
    }
    Ok(())
}

/// Where to start: where a node was in the last ten minutes, or at the end.
async fn start(bridge: &EmitterBridge, stream: &str, connection: &mut RedisConnection) -> Result<Position, RedisError> {
    let (connector, timeout) = bridge.log.redis();
    let mut home = RedisConnection::open(connector, timeout).await?;
    match bridge.log.read_to(&mut home, stream).await? {
        Some(position) => Ok(position),
        None => end_of_stream(connection, stream).await,
    }
}

async fn store_position(
    bridge: &EmitterBridge,
    token: &LeaseToken,
    stream: &str,
    at: Position,
) -> Result<(), RedisError> {
    match bridge.log.append_leased(token, &[], Some((stream, at))).await.pop() {
        Some(Err(error)) => Err(RedisError::Disconnected(error.to_string())),
        _ => Ok(()),
    }
}

/// The content of an entry. Its id distinguishes its copy from copies of received messages.
fn read(bridge: &EmitterBridge, stream: &str, id: Position, fields: &[(Vec<u8>, Vec<u8>)]) -> Option<Content> {
    match streams::decode(fields, &bridge.limits) {
        Ok(Request::Event(mut draft)) => {
            draft.id = Some(format!("streams:{id}"));
            Some(Content::Event(*draft))
        }
        Ok(Request::SessionCommand(directive)) => Some(Content::SessionCommand(directive)),
        Ok(Request::Foreign) => None,
        Err(error) => {
            bridge.refuse(&format!("{stream} {id}"), &error);
            None
        }
    }
}
