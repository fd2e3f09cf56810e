//! Whether the stream is still the log that was read. Where it is not, the tail starts over.

use crate::log::Snapshot;
use crate::log::redis::generation::{self, Discontinuity, Observed};
use crate::log::redis::tail::delivery::{Begin, Delivery};
use crate::log::redis::tail::epoch_watch::EpochWatch;
use crate::log::redis::tail::retired;
use crate::log::redis::{RedisLog, epoch, renewal};
use crate::model::offset::{Offset, Position};
use crate::model::partition::Line;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use std::time::Instant;

/// Checks that the log still has as many partitions as this node believes.
pub(super) async fn layout(log: &RedisLog, connection: &mut RedisConnection) -> Result<(), RedisError> {
    let Some(layout) = &log.layout else { return Ok(()) };
    let is = connection.call(redis::cmd("GET").arg(&log.keys.layout)).await?;
    if let Some(own) = layout.lost_text(&is) {
        return connection.call(redis::cmd("SET").arg(&log.keys.layout).arg(own).arg("NX")).await.map(drop);
    }
    match layout.check(&is) {
        true => Ok(()),
        false => Err(RedisError::NotServing("the log has another number of partitions".into())),
    }
}

/// Checks whether the stream is still the log that was read. If not, the tail starts over.
pub(super) struct StreamCheck<'c, 'a> {
    pub log: &'a RedisLog,
    pub delivery: &'c mut Delivery<'a>,
    pub epoch: &'c mut EpochWatch,
    pub connection: &'c mut RedisConnection,
    /// Whether the tail may have left entries.
    pub is_behind: bool,
}

impl StreamCheck<'_, '_> {
    /// Checks too that the stream has `last_read` and the entries that publishers got acknowledged over connections that are
    /// closed.
    pub(super) async fn observe(&mut self, last_read: Option<Position>) -> Result<(), RedisError> {
        let unverified = self.log.acknowledged.unverified();
        let mut expected: Vec<Position> = last_read.into_iter().chain(unverified.iter().copied()).collect();
        expected.sort_unstable();
        let now = epoch::observe(self.connection, &self.log.keys, &expected).await?;
        self.observed(&now, unverified.len()).await
    }

    /// The same with what was observed, the oldest `unverified` acknowledged entries too.
    pub(super) async fn observed(&mut self, now: &Observed, unverified: usize) -> Result<(), RedisError> {
        self.compare(now).await?;
        self.log.acknowledged.verified(unverified);
        if now.stream.is_some_and(|stream| renewal::is_due(self.log, stream.last)) {
            renewal::renew(self.log, self.connection).await?;
            let now = epoch::observe(self.connection, &self.log.keys, &[]).await?;
            self.compare(&now).await?;
        }
        self.delivery.trimmer().by_size(self.connection, now.stream.as_ref(), self.is_behind).await
    }

    async fn compare(&mut self, now: &Observed) -> Result<(), RedisError> {
        let discontinuity = match self.delivery.state() {
            None => None,
            Some(state) => match state.discontinuity(now) {
                None => {
                    if let Some(stream) = &now.stream {
                        state.observe(stream);
                    }
                    self.log.lines.losses.note_checked(self.log.line);
                    return Ok(());
                }
                discontinuity => discontinuity,
            },
        };
        self.start_over(now, discontinuity).await
    }

    async fn start_over(&mut self, now: &Observed, discontinuity: Option<Discontinuity>) -> Result<(), RedisError> {
        let (log, keys) = (self.log, &self.log.keys);
        let epoch = match generation::parse(&now.epoch_text) {
            Some(epoch) if discontinuity != Some(Discontinuity::EntriesLost) => epoch,
            _ => epoch::agree(self.connection, keys, &now.epoch_text).await?,
        };
        let is_followed = discontinuity == Some(Discontinuity::EpochChanged)
            && retired::follow_renewals(log, self.delivery, self.connection, epoch).await?;
        if let Some(state) = self.delivery.state().filter(|state| renewal::is_due(log, state.position)) {
            // No entry of another stream comes after it.
            state.position = Position::default();
        }
        let now = epoch::observe(self.connection, keys, &[]).await?;
        if generation::parse(&now.epoch_text) != Some(epoch) {
            return Err(RedisError::NotServing("the epoch changed again".into()));
        }
        let continues = is_followed && self.delivery.state().is_some_and(|state| state.discontinuity(&now).is_none());
        let snapshot = self.delivery.read_history(self.connection, epoch, now.stream).await?;
        if discontinuity.is_some() {
            log.fall_back(Offset { epoch, position: snapshot.head, line: log.line });
        }
        note_snapshot(log, &snapshot, discontinuity.filter(|_| !continues));
        let begin = match discontinuity {
            _ if continues => Begin::Renewed,
            None => Begin::First,
            Some(_) => Begin::AfterLoss,
        };
        self.epoch.forget();
        self.delivery.start_over(snapshot, now.stream.as_ref(), begin).await;
        Ok(())
    }
}

fn note_snapshot(log: &RedisLog, snapshot: &Snapshot, discontinuity: Option<Discontinuity>) {
    let Snapshot { epoch, floor, head, history, .. } = snapshot;
    let (stream, events) = (&log.keys.events, history.len());
    match discontinuity {
        None if log.line == Line::CONTROL => {
            tracing::info!(stream, "the log is read from {head}, with {events} events of history")
        }
        None => tracing::debug!(stream, "the log is read from {head}, with {events} events of history"),
        Some(reason) if log.lines.repeats.is_news(format!("the log lost entries: {reason:?}"), Instant::now()) => {
            tracing::warn!(?reason, stream, "the log lost entries; epoch {:x} goes on from {head}", epoch.0);
        }
        // Most often all lines have lost some for the same reason.
        Some(reason) => {
            tracing::debug!(?reason, stream, "the log lost entries; epoch {:x} goes on from {head}", epoch.0)
        }
    }
    tracing::debug!(%floor, %head, "snapshot");
    log.note_snapshot(*epoch, *head);
}
