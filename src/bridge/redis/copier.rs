//! Copies received messages into the log, while this node holds the lease.

use crate::bridge::copy_tracker::Content;
use crate::bridge::redis::EmitterBridge;
use crate::bridge::request::Directive;
use crate::log::AppendError;
use crate::log::redis::leased_append::{LeaseToken, LeasedEntry};
use crate::model::command::SessionCommand;
use crate::model::id::Id;
use std::time::Duration;

/// Messages and bytes in one append.
const MAX_MESSAGES: usize = 500;
const MAX_BYTES: usize = 1 << 20;
/// Between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Copies until dropped.
pub(super) async fn run(bridge: &EmitterBridge) {
    if bridge.key.is_none() {
        return;
    }
    let mut lease = bridge.lease.subscribe();
    loop {
        // The sender lives as long as `bridge`, so this cannot fail.
        let token = lease.wait_for(Option::is_some).await.ok().and_then(|lease| lease.clone());
        let Some(token) = token else { return };
        if let Err(error) = copy(bridge, &token).await {
            tracing::debug!(%error, "copying from emitters starts over");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// Copies while the token holds the lease. What other nodes have copied is read from the log first.
async fn copy(bridge: &EmitterBridge, token: &LeaseToken) -> Result<(), AppendError> {
    bridge.read_the_log().await?;
    bridge.tracker().start_over();
    let mut lease = bridge.lease.subscribe();
    lease.mark_unchanged();
    loop {
        let batch = bridge.tracker().hand_out(MAX_MESSAGES, MAX_BYTES);
        if batch.is_empty() {
            tokio::select! {
                () = bridge.arrival.notified() => {}
                _ = lease.changed() => return Ok(()),
            }
            continue;
        }
        let (numbers, contents): (Vec<u64>, Vec<Content>) = batch.into_iter().unzip();
        let entries: Vec<LeasedEntry> = contents.into_iter().map(|content| leased_entry(bridge, content)).collect();
        let answers = bridge.log.append_leased(token, &entries, None).await;
        for (number, answer) in numbers.iter().zip(&answers) {
            if matches!(answer, Ok(_) | Err(AppendError::NotReplicated { .. })) {
                bridge.tracker().accepted(*number);
            }
        }
        if !bridge.count(&answers) {
            // The log will show which of them it has.
            return answers.into_iter().find_map(Result::err).map_or(Ok(()), Err);
        }
    }
}

/// What is appended for a message.
pub(super) fn leased_entry(bridge: &EmitterBridge, content: Content) -> LeasedEntry {
    match content {
        Content::Event(draft) => LeasedEntry::Event(draft),
        Content::SessionCommand(Directive { namespace, selector, action }) => {
            let at = bridge.log.positions_of(&action);
            LeasedEntry::SessionCommand(SessionCommand {
                id: Id::random(),
                from: bridge.id,
                selector,
                namespace: Some(namespace),
                action,
                at,
            })
        }
    }
}
