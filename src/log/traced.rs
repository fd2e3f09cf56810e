//! A log whose appends are spans, for nodes that record traces.

use crate::log::backfill::{Past, PastRange, PastUnavailable};
use crate::log::{AppendError, Appended, BoxFuture, EventLog, LogStatus, Sink};
use crate::model::command::SessionCommand;
use crate::model::draft::Draft;
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::offset::{Offset, Position};
use crate::model::partition::Line;
use crate::telemetry::{Parent, SpanKind, Telemetry, shortened};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Another log. Events that belong to a trace become children of a span that measures their append.
pub struct TracedLog {
    log: Arc<dyn EventLog>,
    telemetry: Arc<Telemetry>,
}

impl TracedLog {
    /// This log with spans, or the log itself where none are recorded.
    pub fn wrap(log: Arc<dyn EventLog>, telemetry: &Arc<Telemetry>) -> Arc<dyn EventLog> {
        match telemetry.traces() {
            true => Arc::new(Self { log, telemetry: telemetry.clone() }),
            false => log,
        }
    }

    async fn append(&self, mut drafts: Vec<Draft>) -> Vec<Appended> {
        // What is appended at once is of one trace.
        let parent = drafts.iter().find_map(|draft| draft.trace.clone());
        let mut span = self.telemetry.start("append", SpanKind::Producer, Parent::Of(parent.as_deref()));
        if let Some(own) = span.context() {
            drafts.iter_mut().filter_map(|draft| draft.trace.as_mut()).for_each(|trace| trace.clone_from(&own));
        }
        span.set("messaging.batch.message_count", || drafts.len() as u64);
        span.set("roomcast.event", || drafts.first().map_or_else(String::new, |draft| shortened(&draft.event)));
        let appended = self.log.append(drafts).await;
        if let Some(error) = appended.iter().find_map(|appended| appended.as_ref().err()) {
            span.fail(error.code());
        }
        appended
    }
}

impl EventLog for TracedLog {
    fn append(&self, drafts: Vec<Draft>) -> BoxFuture<'_, Vec<Appended>> {
        if drafts.iter().all(|draft| draft.trace.is_none()) {
            return self.log.append(drafts);
        }
        Box::pin(self.append(drafts))
    }

    fn append_now(&self, drafts: &mut Vec<Draft>, answers: &mut Vec<Appended>) -> bool {
        drafts.iter().all(|draft| draft.trace.is_none()) && self.log.append_now(drafts, answers)
    }

    fn append_command(&self, command: Arc<SessionCommand>) -> BoxFuture<'_, Result<(), AppendError>> {
        self.log.append_command(command)
    }

    fn probe(&self, id: Id) -> BoxFuture<'_, Result<(), AppendError>> {
        self.log.probe(id)
    }

    fn run(self: Arc<Self>, sink: Arc<dyn Sink>) -> BoxFuture<'static, ()> {
        self.log.clone().run(sink)
    }

    fn read_past(&self, range: PastRange, within: Duration) -> BoxFuture<'_, Result<Past, PastUnavailable>> {
        self.log.read_past(range, within)
    }

    fn run_appender(self: Arc<Self>, shard: usize) -> BoxFuture<'static, ()> {
        self.log.clone().run_appender(shard)
    }

    fn note_announced(&self, position: Position) {
        self.log.note_announced(position);
    }

    fn before(&self, rooms: &[Room]) -> Option<String> {
        self.log.before(rooms)
    }

    fn acknowledged(&self, line: Line, now: Instant) -> Option<Offset> {
        self.log.acknowledged(line, now)
    }

    fn status(&self) -> LogStatus {
        self.log.status()
    }

    fn problem(&self) -> Option<String> {
        self.log.problem()
    }
}
