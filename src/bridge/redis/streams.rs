//! Copies the entries of a streams adapter's stream, while this node has the lease. How far it has read is noted in
//! Redis with each append, all or nothing, so that a successor goes on exactly there.

use crate::bridge::copy_tracker::Content;
use crate::bridge::emitter::Request;
use crate::bridge::redis::Emitters;
use crate::bridge::redis::copy::entry;
use crate::bridge::streams;
use crate::log::redis::leased_append::{Claim, end_of_stream, read_stream};
use crate::model::offset::Position;
use crate::redis::backoff::Backoff;
use crate::redis::connection::{Link, LinkError};
use std::time::Duration;

/// Entries in one read.
const AT_ONCE: usize = 200;
/// How long a read waits for entries.
const BLOCK: Duration = Duration::from_millis(500);

/// Copies until dropped; reconnects by itself.
pub(super) async fn run(emitters: &Emitters) {
    let Some(stream) = emitters.stream.as_deref() else { return };
    let mut held = emitters.held.subscribe();
    let mut backoff = Backoff::default();
    loop {
        let claim = held.wait_for(Option::is_some).await.ok().and_then(|held| held.clone());
        let Some(claim) = claim else { return };
        if let Err(error) = copy(emitters, stream, &claim, &mut backoff).await {
            backoff.report("reading the stream of emitters", emitters.log.redis().0, &error);
            backoff.wait().await;
        }
    }
}

/// Copies while the claim has the lease.
async fn copy(emitters: &Emitters, stream: &str, claim: &Claim, backoff: &mut Backoff) -> Result<(), LinkError> {
    let (connector, timeout) = emitters.log.redis();
    let elsewhere = connector.elsewhere(stream);
    let mut link = Link::open(elsewhere.as_ref().unwrap_or(connector), timeout).await?;
    let mut at = start(emitters, stream, &mut link).await?;
    note(emitters, claim, stream, at).await?;
    backoff.reset();
    while emitters.claim().is_some() {
        let entries = read_stream(&mut link, stream, at, AT_ONCE, BLOCK).await?;
        let Some((last, _)) = entries.last() else {
            link.check().await?;
            let end = end_of_stream(&mut link, stream).await?;
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
            return Err(LinkError::Lost("the log did not take the entries".into()));
        }
    }
    Ok(())
}

/// Where to go on: where a node was in the last minutes, or at the end.
async fn start(emitters: &Emitters, stream: &str, link: &mut Link) -> Result<Position, LinkError> {
    let (connector, timeout) = emitters.log.redis();
    let mut home = Link::open(connector, timeout).await?;
    match emitters.log.read_to(&mut home, stream).await? {
        Some(position) => Ok(position),
        None => end_of_stream(link, stream).await,
    }
}

async fn note(emitters: &Emitters, claim: &Claim, stream: &str, at: Position) -> Result<(), LinkError> {
    match emitters.log.append_held(claim, &[], Some((stream, at))).await.pop() {
        Some(Err(error)) => Err(LinkError::Lost(error.to_string())),
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
