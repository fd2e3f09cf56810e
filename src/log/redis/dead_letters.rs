//! Malformed entries are skipped, counted, logged with their id, and copied to `{prefix}:dead`, once in the cluster.

use crate::log::redis::RedisLog;
use crate::log::redis::entry::{Entry, RawFields};
use crate::model::close::DropReason;
use crate::model::draft::{DraftError, Source};
use crate::model::offset::Position;
use crate::model::partition::Line;
use crate::redis::connection::{Connector, RedisConnection};
use crate::redis::error::RedisError;
use crate::redis::reply::text;
use redis::{Pipeline, Value};
use std::borrow::Cow;
use std::time::Duration;

/// Entries that `{prefix}:dead` keeps, about.
const MAX_LETTERS: usize = 1000;
/// Bytes of one name or value that are copied.
const MAX_FIELD_BYTES: usize = 4096;
/// Bytes of an entry that are copied.
const MAX_ENTRY_BYTES: usize = 16 << 10;
/// Fields that are copied.
const MAX_FIELDS: usize = 32;
/// Fields that a copy has besides the entry's own: where it was in the stream, and why it could not be read. An entry's
/// own fields of these names are renamed, see [`copied_name`]. `id` is not among them: many entries have one.
const POSITION: &str = "entry";
const ERROR: &str = "error";
/// The stream it was in, where the log has several.
const STREAM: &str = "stream";
/// Marks the entry's own field where its name is one of ours.
const OWN: &[u8] = b"own_";
/// Entries that wait for Redis: 16 MB at most. Above it an entry is counted by this node, and neither logged nor copied.
const MAX_WAITING: usize = 1000;
/// Entries that are logged one by one; of more only the number is logged.
const MAX_LOGGED: usize = 10;
/// A claim lasts longer than the window, so that a restarted node that reads the entry again does not report it again.
const CLAIM_SLACK: Duration = Duration::from_secs(600);

/// An entry that could not be read, and why. It has no more of the entry than will be copied.
struct Malformed {
    position: Position,
    fields: RawFields,
    error: DraftError,
}

impl Malformed {
    fn new(entry: &Entry<'_>, error: DraftError) -> Self {
        let mut left = MAX_ENTRY_BYTES;
        let mut start = |text: &[u8]| {
            let start = text[..text.len().min(MAX_FIELD_BYTES).min(left)].to_vec();
            left -= start.len();
            start
        };
        let fields = entry.fields.iter().take(MAX_FIELDS).map(|(name, value)| (start(name), start(value))).collect();
        Self { position: entry.position, fields, error }
    }
}

/// The malformed entries of one tail. They wait here until Redis has answered, over reconnections too.
pub(super) struct DeadLetters {
    /// The value of this node's claims: a claim whose reply was lost is recognized as its own.
    claimant: u64,
    waiting: Vec<Malformed>,
}

impl DeadLetters {
    pub(super) fn new() -> Self {
        Self { claimant: rand::random(), waiting: Vec::new() }
    }

    /// Takes a malformed entry.
    pub(super) fn push(&mut self, log: &RedisLog, entry: &Entry<'_>, error: DraftError) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push(Malformed::new(entry, error));
        } else {
            count(log, &error);
        }
    }

    /// Counts, logs and copies the entries that no other node has reported.
    ///
    /// # Errors
    /// When Redis does not answer. The entries then stay for the next call. An error reply is only logged.
    pub(super) async fn write(&mut self, log: &RedisLog, connection: &mut RedisConnection) -> Result<(), RedisError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let claimed = self.claim(log, connection).await?;
        // From here on nothing waits: what was reported must not be reported again.
        let malformed = std::mem::take(&mut self.waiting);
        let own: Vec<Malformed> =
            malformed.into_iter().zip(claimed).filter_map(|(entry, own)| own.then_some(entry)).collect();
        if own.is_empty() {
            return Ok(());
        }
        report(log, &own);
        copy(log, connection, own).await
    }

    /// Whether this node is to report each entry. Where Redis refuses the claims, every node does.
    async fn claim(&self, log: &RedisLog, connection: &mut RedisConnection) -> Result<Vec<bool>, RedisError> {
        let claimant = format!("{:016x}", self.claimant);
        let lifetime_ms = (log.recovery.window + CLAIM_SLACK).as_millis() as u64;
        let mut claims = Pipeline::new();
        for entry in &self.waiting {
            let key = log.keys.claim(entry.position);
            claims.cmd("SET").arg(&key).arg(&claimant).arg("NX").arg("PX").arg(lifetime_ms);
            claims.cmd("GET").arg(&key);
        }
        let replies = connection.pipeline(&claims).await?;
        Ok(replies.chunks(2).map(|pair| is_own(&pair[1], &claimant)).collect())
    }
}

/// Whether the value of a claim is this node's. Without a value, or with an error, nobody else has a claim.
fn is_own(value: &Value, claimant: &str) -> bool {
    text(value).is_none_or(|holder| holder == claimant)
}

fn count(log: &RedisLog, error: &DraftError) {
    log.metrics.events.dropped(DropReason::Malformed, 1);
    log.metrics.events.refused(Source::Stream, error.code());
}

fn report(log: &RedisLog, malformed: &[Malformed]) {
    for entry in malformed {
        count(log, &entry.error);
    }
    for entry in malformed.iter().take(MAX_LOGGED) {
        let (id, error) = (entry.position, &entry.error);
        tracing::warn!(%id, %error, "malformed stream entry skipped; a copy is in {}", log.keys.dead);
    }
    if malformed.len() > MAX_LOGGED {
        tracing::warn!("{} more malformed stream entries skipped", malformed.len() - MAX_LOGGED);
    }
}

/// The name of an entry's own field in the copy. Readers make a map of the fields, in which a second one of a name would
/// hide ours, so `error` becomes `own_error`, and `own_error` becomes `own_own_error`.
fn copied_name(name: &[u8]) -> Cow<'_, [u8]> {
    let mut rest = name;
    while let Some(shorter) = rest.strip_prefix(OWN) {
        rest = shorter;
    }
    match [POSITION, ERROR, STREAM].iter().any(|ours| ours.as_bytes() == rest) {
        true => [OWN, name].concat().into(),
        false => name.into(),
    }
}

async fn copy(log: &RedisLog, connection: &mut RedisConnection, malformed: Vec<Malformed>) -> Result<(), RedisError> {
    let mut copies = Pipeline::new();
    for entry in malformed {
        let copy = copies.cmd("XADD").arg(&log.keys.dead).arg("MAXLEN").arg("~").arg(MAX_LETTERS).arg("*");
        copy.arg(POSITION).arg(entry.position.to_string()).arg(ERROR).arg(entry.error.to_string());
        if log.line != Line::CONTROL {
            copy.arg(STREAM).arg(&log.keys.events);
        }
        for (name, value) in &entry.fields {
            copy.arg(&*copied_name(name)).arg(value);
        }
    }
    match log.connector.for_key(&log.keys.dead) {
        None => note_refusal(log, connection.pipeline(&copies).await?),
        // In a Cluster the copies are on another node, whose failure must not stop the tail.
        Some(connector) => match copy_elsewhere(log, &connector, &copies).await {
            Ok(replies) => note_refusal(log, replies),
            Err(error) => tracing::warn!(%error, key = log.keys.dead, "malformed entries could not be copied"),
        },
    }
    Ok(())
}

async fn copy_elsewhere(log: &RedisLog, connector: &Connector, copies: &Pipeline) -> Result<Vec<Value>, RedisError> {
    RedisConnection::open(connector, log.timeout).await?.pipeline(copies).await
}

fn note_refusal(log: &RedisLog, replies: Vec<Value>) {
    if let Some(error) = replies.into_iter().find_map(|reply| reply.extract_error().err()) {
        tracing::warn!(%error, key = log.keys.dead, "malformed entries could not be copied");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_of_an_entry_hides_one_of_ours_or_another() {
        for (name, copied) in [
            ("id", "id"),
            ("error", "own_error"),
            ("own_error", "own_own_error"),
            ("entry", "own_entry"),
            ("own_", "own_"),
            ("stream", "own_stream"),
            ("own_id", "own_id"),
            ("errors", "errors"),
        ] {
            assert_eq!(*copied_name(name.as_bytes()), *copied.as_bytes());
        }
    }

    #[test]
    fn a_claim_is_own_unless_another_node_holds_it() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        assert!(is_own(&bulk("me"), "me"), "also where the reply to SET was lost");
        assert!(!is_own(&bulk("other"), "me") && !is_own(&bulk("1"), "me"), "an earlier release writes 1");
        assert!(is_own(&Value::Nil, "me"));
    }
}
