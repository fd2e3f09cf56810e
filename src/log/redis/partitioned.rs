//! The log of several lines: one [`RedisLog`] for each, on threads of their own. What is appended goes to the line of its
//! rooms ([`Partitions::of_event`]).

use crate::log::backfill::{Past, PastRange, PastUnavailable};
use crate::log::config::RecoveryConfig;
use crate::log::redis::layout::{Layout, RETRY};
use crate::log::redis::lines::Lines;
use crate::log::redis::partition_set::PartitionSet;
use crate::log::redis::shard_append::LineAppenders;
use crate::log::redis::{RedisLog, line_threads};
use crate::log::{AppendError, Appended, BoxFuture, EventLog, LogStatus, Sink, Snapshot};
use crate::metrics::Metrics;
use crate::model::command::{Action, SessionCommand};
use crate::model::draft::{Draft, DraftLimits};
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::offset::{Epoch, Offset, Position};
use crate::model::partition::{Line, Partitions};
use crate::redis::config::RedisConfig;
use crate::redis::reconnect::Reconnect;
use crate::redis::url::RedisUrlError;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// See the module. With one partition it is the control line alone.
pub struct PartitionedLog {
    partitions: Partitions,
    /// By their numbers.
    logs: Vec<Arc<RedisLog>>,
    lines: Arc<Lines>,
    layout: Arc<Layout>,
}

impl PartitionedLog {
    /// Connects in [`EventLog::run`], so Redis may be down now. So many shards run [`EventLog::run_appender`].
    ///
    /// # Errors
    /// When the URL is missing or cannot be used.
    pub fn new(
        config: &RedisConfig,
        recovery: &RecoveryConfig,
        limits: DraftLimits,
        metrics: &Arc<Metrics>,
        shards: usize,
    ) -> Result<Arc<Self>, RedisUrlError> {
        let partitions = config.layout();
        let lines = Lines::new(partitions, metrics.clone());
        let layout = Arc::new(Layout::new(partitions));
        let recovery = recovery.of_line(partitions);
        let log = |line| {
            let shared = (lines.clone(), (line == Line::CONTROL).then(|| layout.clone()));
            let appenders = match line {
                Line::CONTROL => LineAppenders::of_shards(shards),
                _ => LineAppenders::of_partition(shards, partitions.count().into()),
            };
            RedisLog::of_line(line, config, &recovery, limits, appenders, shared)
        };
        let logs = partitions.lines().map(log).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { partitions, logs, lines, layout }))
    }

    /// The control line, which has what emitters publish.
    pub(crate) fn control(&self) -> &Arc<RedisLog> {
        self.of(Line::CONTROL)
    }

    fn of(&self, line: Line) -> &Arc<RedisLog> {
        &self.logs[line.index()]
    }

    /// Appends drafts in their order within each line, to all lines at once. A draft that is refused refuses no other.
    async fn append(&self, drafts: Vec<Draft>) -> Vec<Appended> {
        let count = drafts.len();
        if let Some(problem) = self.layout.problem() {
            return vec![Err(AppendError::Unavailable(problem)); count];
        }
        let line_of = |draft: &Draft| self.partitions.of_event(&draft.rooms, &draft.except);
        let Some(first) = drafts.first().map(line_of) else { return Vec::new() };
        if drafts.iter().skip(1).all(|draft| line_of(draft) == first) {
            return self.append_to(first, drafts).await;
        }
        let mut of_lines: Vec<(Vec<usize>, Vec<Draft>)> = Vec::new();
        of_lines.resize_with(self.logs.len(), Default::default);
        for (index, draft) in drafts.into_iter().enumerate() {
            let (indexes, drafts) = &mut of_lines[line_of(&draft).index()];
            indexes.push(index);
            drafts.push(draft);
        }
        let mut appending: Vec<_> = Vec::new();
        let mut indexes = Vec::new();
        for (line, (of, drafts)) in self.partitions.lines().zip(of_lines).filter(|(_, (of, _))| !of.is_empty()) {
            indexes.push(of);
            appending.push(Box::pin(self.append_to(line, drafts)));
        }
        let mut appended: Vec<Option<Appended>> = vec![None; count];
        for (of, results) in indexes.into_iter().zip(all(appending).await) {
            for (index, result) in of.into_iter().zip(results) {
                appended[index] = Some(result);
            }
        }
        let lost = || Err(AppendError::Unavailable("the log did not answer".into()));
        appended.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }

    async fn append_to(&self, line: Line, drafts: Vec<Draft>) -> Vec<Appended> {
        let mut concerned = PartitionSet::default();
        match line {
            Line::CONTROL => {
                drafts.iter().for_each(|draft| concerned.join(self.lines.concerned(draft.rooms.iter())));
            }
            partition => concerned.add(partition),
        }
        let after = self.lines.before(line, concerned).text();
        let appended = self.of(line).append_after(drafts, after).await;
        let positions = appended.iter().flatten().filter_map(|accepted| accepted.offset);
        if let Some(newest) = positions.max_by_key(|offset| offset.position) {
            self.note_acknowledged(newest, concerned);
        }
        appended
    }

    /// A position in a stream that is about to be renewed is not waited for.
    fn note_acknowledged(&self, entry: Offset, concerned: PartitionSet) {
        if self.of(entry.line).is_lasting(entry.position) {
            self.lines.note_acknowledged(entry, concerned);
        }
    }

    /// The partitions whose rooms a command concerns.
    fn concerned(&self, command: &SessionCommand) -> PartitionSet {
        match &command.action {
            Action::Join(rooms) | Action::Leave(rooms) => self.lines.concerned(rooms.iter()),
            Action::Disconnect | Action::Revoke { .. } => PartitionSet::ALL,
        }
    }

    async fn append_command(&self, command: &SessionCommand) -> Result<(), AppendError> {
        if let Some(problem) = self.layout.problem() {
            return Err(AppendError::Unavailable(problem));
        }
        let concerned = self.concerned(command);
        let after = self.lines.before(Line::CONTROL, concerned).text();
        let accepted = self.control().append_command_after(command, after).await?;
        if let Some(offset) = accepted.offset {
            self.note_acknowledged(offset, concerned);
        }
        Ok(())
    }

    async fn probe(&self, id: Id) -> Result<(), AppendError> {
        let probes = self.logs.iter().map(|log| Box::pin(log.append_probe(id))).collect();
        all(probes).await.into_iter().collect()
    }

    async fn run_lines(&self, sink: Arc<dyn Sink>) {
        match self.partitions.is_one() {
            true => self.control().clone().run(sink).await,
            false => line_threads::run(&self.logs, sink).await,
        }
    }

    /// Waits until the log has this node's layout.
    async fn agree(&self) {
        let mut reconnect = Reconnect::default();
        loop {
            match self.layout.try_agree(&self.logs).await {
                Ok(true) => return,
                Ok(false) => tokio::time::sleep(RETRY).await,
                Err(error) => {
                    let control = self.control();
                    control.note_failure(&control.tail, &error);
                    // A right that is missing says more than what was refused for it.
                    tokio::select! {
                        () = reconnect.wait("looking for the partitions", &control.connector, &error) => {}
                        () = control.watch_rights() => {}
                    }
                }
            }
        }
    }

    async fn run(&self, sink: Arc<dyn Sink>) {
        loop {
            self.agree().await;
            tokio::select! {
                () = self.run_lines(sink.clone()) => return,
                () = self.layout.lost() => {}
            }
            // The clients hear it now. When the log has this layout again, they hear it again.
            self.logs.iter().for_each(|log| log.stopped());
            sink.reset_all(self.logs.iter().map(|log| unknown(log.line)).collect());
        }
    }
}

/// A line of which nothing is known.
fn unknown(line: Line) -> Snapshot {
    let head = Position::default();
    Snapshot { line, epoch: Epoch::random(), floor: head, head, history: Vec::new(), commands: Vec::new() }
}

/// The results of several futures, in their order, which run side by side.
async fn all<F: Future>(mut futures: Vec<Pin<Box<F>>>) -> Vec<F::Output> {
    let mut results: Vec<Option<F::Output>> = Vec::new();
    results.resize_with(futures.len(), || None);
    poll_fn(|context| {
        for (future, result) in futures.iter_mut().zip(&mut results).filter(|(_, result)| result.is_none()) {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                *result = Some(output);
            }
        }
        if results.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}

impl EventLog for PartitionedLog {
    fn read_past(&self, range: PastRange, within: Duration) -> BoxFuture<'_, Result<Past, PastUnavailable>> {
        self.of(range.line).read_past(range, within)
    }

    fn note_announced(&self, position: Position) {
        self.control().note_announced(position);
        let epoch = self.control().epoch().unwrap_or_default();
        self.note_acknowledged(Offset { epoch, position, line: Line::CONTROL }, PartitionSet::ALL);
    }

    fn before(&self, rooms: &[Room]) -> Option<String> {
        self.lines.before(Line::CONTROL, self.lines.concerned(rooms.iter())).text()
    }

    fn append(&self, drafts: Vec<Draft>) -> BoxFuture<'_, Vec<Appended>> {
        match self.partitions.is_one() && self.layout.problem().is_none() {
            true => EventLog::append(&**self.control(), drafts),
            false => Box::pin(self.append(drafts)),
        }
    }

    fn append_command(&self, command: Arc<SessionCommand>) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async move { self.append_command(&command).await })
    }

    fn probe(&self, id: Id) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(self.probe(id))
    }

    fn run_appender(self: Arc<Self>, shard: usize) -> BoxFuture<'static, ()> {
        let mut appenders: JoinSet<()> = self.logs.iter().map(|log| log.clone().run_appender(shard)).collect();
        Box::pin(async move { while appenders.join_next().await.is_some() {} })
    }

    fn run(self: Arc<Self>, sink: Arc<dyn Sink>) -> BoxFuture<'static, ()> {
        Box::pin(async move { Self::run(&self, sink).await })
    }

    fn acknowledged(&self, line: Line, now: Instant) -> Option<Offset> {
        self.lines.acknowledged(line, now)
    }

    fn status(&self) -> LogStatus {
        let is_ready = self.layout.is_agreed() && self.logs.iter().all(|log| log.status() == LogStatus::Ready);
        if is_ready { LogStatus::Ready } else { LogStatus::Connecting }
    }

    fn problem(&self) -> Option<String> {
        self.layout.problem().or_else(|| self.logs.iter().find_map(|log| log.problem()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn futures_run_side_by_side_and_answer_in_order() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (mut sender, mut receiver) = (Some(sender), Some(receiver));
        let one = |number: u8| {
            let (send, receive) = match number {
                0 => (None, receiver.take()),
                _ => (sender.take(), None),
            };
            Box::pin(async move {
                if let Some(receive) = receive {
                    receive.await.unwrap();
                }
                send.into_iter().for_each(|send| send.send(()).unwrap());
                number
            })
        };
        assert_eq!(all([0, 1].map(one).into()).await, [0, 1]);
        assert!(all(Vec::<Pin<Box<std::future::Ready<()>>>>::new()).await.is_empty());
    }
}
