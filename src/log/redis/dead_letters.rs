//! Malformed entries: skipped, counted, logged with their id, and copied to `{prefix}:dead`, once over the cluster.

use crate::log::redis::RedisLog;
use crate::log::redis::entry::RawEntry;
use crate::model::close::DropReason;
use crate::model::draft::{DraftError, Source};
use crate::redis::connection::{Connector, RedisConnection};
use crate::redis::error::RedisError;
use redis::{Pipeline, Value};
use std::time::Duration;

/// Entries that `{prefix}:dead` keeps, about.
const KEPT: usize = 1000;
/// Bytes of one name or value that are copied.
const TEXT_BYTES: usize = 4096;
/// Bytes of all names and values of an entry that are copied.
const ENTRY_BYTES: usize = 16 << 10;
/// Fields that are copied.
const FIELDS: usize = 32;
/// Entries that are logged one by one out of each page; the rest is summed up.
const LOGGED: usize = 10;
/// Added to the window: for so long a restarted node may read the same entry again.
const CLAIM_SLACK: Duration = Duration::from_secs(600);

/// An entry that could not be read, and why.
pub(super) struct Malformed {
    raw: RawEntry,
    error: DraftError,
}

impl Malformed {
    /// Keeps no more of it than will be copied.
    pub(super) fn new(mut raw: RawEntry, error: DraftError) -> Self {
        let mut left = ENTRY_BYTES;
        raw.fields.truncate(FIELDS);
        for text in raw.fields.iter_mut().flat_map(|(name, value)| [name, value]) {
            text.truncate(TEXT_BYTES.min(left));
            text.shrink_to_fit();
            left -= text.len();
        }
        Self { raw, error }
    }
}

/// Counts, logs and copies. Error answers of Redis are only logged: the tail goes on.
pub(super) async fn bury(
    log: &RedisLog,
    connection: &mut RedisConnection,
    malformed: Vec<Malformed>,
) -> Result<(), RedisError> {
    if malformed.is_empty() {
        return Ok(());
    }
    let mut claims = Pipeline::new();
    for entry in &malformed {
        let claim = log.keys.claim(entry.raw.position);
        let lifetime = (log.recovery.window + CLAIM_SLACK).as_millis() as u64;
        claims.cmd("SET").arg(claim).arg("1").arg("NX").arg("PX").arg(lifetime);
    }
    let claimed = connection.pipeline(&claims).await?;
    // Where Redis refuses the claim, each node counts for itself.
    let mine = malformed.iter().zip(claimed).filter(|(_, answer)| !matches!(answer, Value::Nil));
    let mine: Vec<&Malformed> = mine.map(|(entry, _)| entry).collect();
    report(log, &mine);
    if mine.is_empty() {
        return Ok(());
    }
    let mut copies = Pipeline::new();
    for entry in mine {
        let copy = copies.cmd("XADD").arg(&log.keys.dead).arg("MAXLEN").arg("~").arg(KEPT).arg("*");
        copy.arg("id").arg(entry.raw.position.to_string()).arg("error").arg(entry.error.to_string());
        for (name, value) in &entry.raw.fields {
            copy.arg(name).arg(value);
        }
    }
    match log.connector.for_key(&log.keys.dead) {
        None => note_refusal(log, connection.pipeline(&copies).await?),
        // In a Cluster the copies live with another node, whose troubles do not stop the tail.
        Some(connector) => match copy_elsewhere(log, &connector, &copies).await {
            Ok(answers) => note_refusal(log, answers),
            Err(error) => tracing::warn!(%error, key = log.keys.dead, "malformed entries could not be copied"),
        },
    }
    Ok(())
}

async fn copy_elsewhere(log: &RedisLog, connector: &Connector, copies: &Pipeline) -> Result<Vec<Value>, RedisError> {
    RedisConnection::open(connector, log.timeout).await?.pipeline(copies).await
}

fn note_refusal(log: &RedisLog, answers: Vec<Value>) {
    if let Some(error) = answers.into_iter().find_map(|answer| answer.extract_error().err()) {
        tracing::warn!(%error, key = log.keys.dead, "malformed entries could not be copied");
    }
}

fn report(log: &RedisLog, malformed: &[&Malformed]) {
    for entry in malformed {
        log.metrics.dropped(DropReason::Malformed, 1);
        log.metrics.refused(Source::Stream, entry.error.code());
    }
    for entry in malformed.iter().take(LOGGED) {
        let (id, error) = (entry.raw.position, &entry.error);
        tracing::warn!(%id, %error, "malformed stream entry skipped; a copy is in {}", log.keys.dead);
    }
    if malformed.len() > LOGGED {
        tracing::warn!("{} more malformed stream entries skipped", malformed.len() - LOGGED);
    }
}
