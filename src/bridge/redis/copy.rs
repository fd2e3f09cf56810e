//! Copies what was heard, while this node has the lease.

use crate::bridge::copy_tracker::Content;
use crate::bridge::redis::Emitters;
use crate::bridge::request::Directive;
use crate::log::AppendError;
use crate::log::redis::leased_append::{Claim, Entry};
use crate::model::command::SessionCommand;
use crate::model::id::{Id, NodeId};
use std::time::Duration;

/// In one append.
const AT_ONCE: usize = 500;
const AT_ONCE_BYTES: usize = 1 << 20;
/// Between attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Copies until dropped.
pub(super) async fn run(emitters: &Emitters) {
    if emitters.key.is_none() {
        return;
    }
    let mut held = emitters.held.subscribe();
    loop {
        // The sender is ours, so waiting for it cannot fail.
        let claim = held.wait_for(Option::is_some).await.ok().and_then(|held| held.clone());
        let Some(claim) = claim else { return };
        if let Err(error) = copy(emitters, &claim).await {
            tracing::debug!(%error, "copying from emitters starts over");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Copies while the claim has the lease. First of all what others have copied is learnt from the log.
async fn copy(emitters: &Emitters, claim: &Claim) -> Result<(), AppendError> {
    emitters.read_the_log().await?;
    emitters.heard().start_over();
    let mut held = emitters.held.subscribe();
    held.mark_unchanged();
    loop {
        let batch = emitters.heard().hand_out(AT_ONCE, AT_ONCE_BYTES);
        if batch.is_empty() {
            tokio::select! {
                () = emitters.arrival.notified() => {}
                _ = held.changed() => return Ok(()),
            }
            continue;
        }
        let (numbers, contents): (Vec<u64>, Vec<Content>) = batch.into_iter().unzip();
        let entries: Vec<Entry> = contents.into_iter().map(|content| entry(emitters.id, content)).collect();
        let answers = emitters.log.append_held(claim, &entries, None).await;
        for (number, answer) in numbers.iter().zip(&answers) {
            if matches!(answer, Ok(_) | Err(AppendError::NotReplicated { .. })) {
                emitters.heard().accepted(*number);
            }
        }
        if !emitters.count(&answers) {
            // What came of them shows in the log.
            return answers.into_iter().find_map(Result::err).map_or(Ok(()), Err);
        }
    }
}

/// What is appended for a content.
pub(super) fn entry(from: NodeId, content: Content) -> Entry {
    match content {
        Content::Event(draft) => Entry::Event(draft),
        Content::SessionCommand(Directive { namespace, selector, action: act }) => {
            Entry::SessionCommand(SessionCommand {
                id: Id::random(),
                from,
                selector,
                namespace: Some(namespace),
                action: act,
            })
        }
    }
}
