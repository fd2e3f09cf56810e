//! Copies the entries of a streams adapter's stream, while this node has the lease. How far it has read is noted in
//! Redis with each append, all or nothing, so that a successor goes on exactly there.

use crate::bridge::copy_tracker::Content;
use crate::bridge::redis::Emitters;
use crate::bridge::redis::copy::entry;
use crate::bridge::request::Request;
use crate::bridge::streams;
use crate::log::redis::leased_append::{Claim, end_of_stream, read_stream};
use crate::model::offset::Position;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use std::time::Duration;

/// Entries in one read.
const AT_ONCE: usize = 200;
/// How long a read waits for entries.
const BLOCK: Duration = Duration::from_millis(500);

/// Copies until dropped; reconnects by itself.
pub(super) async fn run(emitters: &Emitters) {
    let Some(stream) = emitters.stream.as_deref() else { return };
    let mut held = emitters.held.subscribe();
    let mut reconnect = Reconnect::default();
    loop {
        let claim = held.wait_for(Option::is_some).await.ok().and_then(|held| held.clone());
        let Some(claim) = claim else { return };
        if let Err(error) = copy(emitters, stream, &claim, &mut reconnect).await {
            reconnect.wait("reading the stream of emitters", emitters.log.redis().0, &error).await;
        }
    }
}

/// Copies while the claim has the lease.
async fn copy(emitters: &Emitters, stream: &str, claim: &Claim, reconnect: &mut Reconnect) -> Result<(), RedisError> {
    let (connector, timeout) = emitters.log.redis();
    let elsewhere = connector.for_key(stream);
    let mut connection = RedisConnection::open(elsewhere.as_ref().unwrap_or(connector), timeout).await?;
    let mut at = start(emitters, stream, &mut connection).await?;
    note(emitters, claim, stream, at).await?;
    reconnect.reset();
    while emitters.claim().is_some() {
        let entries = read_stream(&mut connection, stream, at, AT_ONCE, BLOCK).await?;
        let Some((last, _)) = entries.last() else {
            connection.check().await?;
            let end = end_of_stream(&mut connection, stream).await?;
            if end < at {
                tracing::warn!(stream, "the stream of emitters was emptied; it is read from its new end");
                at = end;
            }
            note(emitters, claim, stream, at).await?;
            continue;
        };
        at = *last;
        let copies: Vec<_> = entries.iter().filter_map(|(id, fields)| read(emitters, stream, *id, fields)).collect();
        let copies: Vec<_> = copies.into_iter().map(|content| entry(emitters.id, content)).collect();
        let mut answers = emitters.log.append_held(claim, &copies, Some((stream, at))).await;
        let noted = answers.pop().is_some_and(|answer| answer.is_ok());
        if !emitters.count(&answers) || !noted {
            return Err(RedisError::Disconnected("the log did not take the entries".into()));
        }
    }
    Ok(())
}

/// Where to go on: where a node was in the last minutes, or at the end.
async fn start(emitters: &Emitters, stream: &str, connection: &mut RedisConnection) -> Result<Position, RedisError> {
    let (connector, timeout) = emitters.log.redis();
    let mut home = RedisConnection::open(connector, timeout).await?;
    match emitters.log.read_to(&mut home, stream).await? {
        Some(position) => Ok(position),
        None => end_of_stream(connection, stream).await,
    }
}

async fn note(emitters: &Emitters, claim: &Claim, stream: &str, at: Position) -> Result<(), RedisError> {
    match emitters.log.append_held(claim, &[], Some((stream, at))).await.pop() {
        Some(Err(error)) => Err(RedisError::Disconnected(error.to_string())),
        _ => Ok(()),
    }
}

/// An entry's content. Its id tells its copy from those of messages that were heard.
fn read(emitters: &Emitters, stream: &str, id: Position, fields: &[(Vec<u8>, Vec<u8>)]) -> Option<Content> {
    match streams::decode(fields, &emitters.limits) {
        Ok(Request::Event(mut draft)) => {
            draft.id = Some(format!("streams:{id}"));
            Some(Content::Event(*draft))
        }
        Ok(Request::SessionCommand(directive)) => Some(Content::SessionCommand(directive)),
        Ok(Request::Foreign) => None,
        Err(error) => {
            emitters.refuse(&format!("{stream} {id}"), &error);
            None
        }
    }
}
