//! From the log's tail to the window and the shards.

use crate::auth::revocations::Revocation;
use crate::log::{BoxFuture, Sink, Snapshot};
use crate::model::clock::unix_ms;
use crate::model::command::{Action, SessionCommand};
use crate::model::event::{Batch, Delivery, Event};
use crate::model::offset::{Offset, Position};
use crate::model::partition::Line;
use crate::node::context::Node;
use crate::shard::handle::ShardCommand;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of events that may wait at a shard before the tail waits too.
const MAX_BACKLOG: usize = 32 << 20;

/// The sink that the log's tail feeds.
pub struct Dispatcher {
    node: Arc<Node>,
    /// The offset on each line that was announced to the shards.
    announced: Box<[Mutex<Offset>]>,
}

impl Dispatcher {
    /// The sink for this node's shards.
    pub fn new(node: Arc<Node>) -> Arc<Self> {
        let announced = node.window.partitions().lines().map(|_| Mutex::default()).collect();
        Arc::new(Self { node, announced })
    }
}

impl Sink for Dispatcher {
    fn reset(&self, snapshot: Snapshot) {
        self.reset_all(vec![snapshot]);
    }

    fn reset_all(&self, snapshots: Vec<Snapshot>) {
        let begun: Vec<Offset> = snapshots.iter().map(|snapshot| self.begin(snapshot)).collect();
        self.node.shards().iter().for_each(|shard| shard.tell(ShardCommand::Reset(begun.as_slice().into())));
        begun.iter().for_each(|offset| self.progress(offset.line));
    }

    fn renewed(&self, snapshot: Snapshot) {
        let begun = self.begin(&snapshot);
        self.node.shards().iter().for_each(|shard| shard.tell(ShardCommand::Advance(begun)));
        self.progress(begun.line);
    }

    fn wants(&self, namespace: &str, room: &str, at: Offset) -> bool {
        // Whoever follows what happens gets events without receivers too.
        self.node.window.interest().wants(namespace, room, at) || self.node.context.feed.is_open()
    }

    fn foresee(&self, command: &SessionCommand) {
        if let Action::Join(rooms) = &command.action {
            let interest = self.node.window.interest();
            rooms.iter().for_each(|room| interest.touch_in(command.namespace.as_deref(), room));
        }
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.take(&batch);
            for shard in self.node.shards() {
                shard.room(MAX_BACKLOG).await;
            }
            self.hand_out(batch);
        })
    }

    fn try_deliver(&self, batch: Batch) -> Result<(), Batch> {
        if !self.node.shards().iter().all(|shard| shard.has_room(MAX_BACKLOG)) {
            return Err(batch);
        }
        self.take(&batch);
        self.hand_out(batch);
        Ok(())
    }

    fn advanced_to(&self, line: Line, position: Position) {
        let mut window = self.node.window.write(line);
        window.advance(position);
        window.expire(self.now());
        drop(window);
        if line == Line::CONTROL {
            self.node.window.interest().expire(self.now());
        }
        let mut announced = self.announced(line);
        if position > announced.position {
            // What lies between is no event, but clients of other nodes may have its offsets.
            announced.position = position;
            self.node.shards().iter().for_each(|shard| shard.advance(*announced));
        }
        drop(announced);
        self.progress(line);
    }
}

impl Dispatcher {
    /// Notes probes, and gives the window what the shards are about to get.
    fn take(&self, batch: &Batch) {
        for &id in &batch.probes {
            if self.node.probes.tail_saw(id) {
                self.node.shards().iter().for_each(|shard| shard.tell(ShardCommand::Probe(id)));
            }
        }
        if !batch.events.is_empty() || !batch.commands.is_empty() {
            self.keep(batch);
        }
    }

    fn note_revocation(&self, command: &SessionCommand) {
        if let Some(revocation) = Revocation::of_command(command) {
            self.node.auth.revocations().add(&revocation, unix_ms());
        }
    }

    /// Starts a line's window over. Answers where the line goes on.
    fn begin(&self, snapshot: &Snapshot) -> Offset {
        let offset = Offset { epoch: snapshot.epoch, position: snapshot.head, line: snapshot.line };
        *self.announced(snapshot.line) = offset;
        snapshot.commands.iter().for_each(|(_, command)| self.note_revocation(command));
        self.node.revocations_read.read_again();
        self.node.window.reset(snapshot, self.now());
        offset
    }

    fn announced(&self, line: Line) -> MutexGuard<'_, Offset> {
        self.announced[line.index()].lock()
    }

    fn now(&self) -> u64 {
        self.node.context.elapsed_ms()
    }

    fn progress(&self, line: Line) {
        if let Some(seen) = self.node.tails_seen_ms.get(line.index()) {
            seen.store(unix_ms(), Ordering::Relaxed);
        }
    }

    /// Gives every shard the events and, each at its place among them, the commands.
    fn hand_out(&self, batch: Batch) {
        if batch.commands.is_empty() {
            return self.hand_out_events(batch.events.into_iter());
        }
        let (mut events, mut done) = (batch.events.into_iter(), 0);
        for placed in batch.commands {
            self.hand_out_events(events.by_ref().take(placed.after.saturating_sub(done)));
            done = placed.after;
            // Before any shard has it: whoever is let in until then is ended by it, and whoever comes later is refused.
            self.note_revocation(&placed.command);
            self.node.command_tracker.begin(&placed.command, self.node.shards().len());
            self.node.shards().iter().for_each(|shard| shard.tell(ShardCommand::SessionCommand(placed.clone())));
        }
        self.hand_out_events(events);
    }

    fn hand_out_events(&self, events: impl Iterator<Item = Arc<Event>>) {
        let shards = self.node.shards().len();
        let is_traced = |event: &Event| event.draft.trace.is_some() && self.node.context.telemetry.traces();
        let delivery = |event: Arc<Event>| match is_traced(&event) {
            true => Delivery::traced(event, shards),
            false => Delivery::new(event),
        };
        let events: Arc<[_]> = events.map(|event| Arc::new(delivery(event))).collect();
        if events.is_empty() {
            return;
        }
        let bytes = events.iter().map(|delivery| delivery.event.size()).sum();
        self.node.shards().iter().for_each(|shard| shard.deliver(&events, bytes));
    }

    /// The window has an event before any shard does, so that a resume up to a shard's position finds it.
    fn keep(&self, batch: &Batch) {
        let events = &batch.events;
        let ends = [events.last().map(|event| event.offset), batch.commands.last().map(|placed| placed.offset)];
        let newest = ends.into_iter().flatten().max_by_key(|offset| offset.position);
        let Some(newest) = newest else { return };
        *self.announced(newest.line) = newest;
        let mut window = self.node.window.write(newest.line);
        let now = self.now();
        let interest = self.node.window.interest();
        // Before the window has them: nobody finds a position in it up to which something wanted is missing.
        for event in events.iter().filter(|event| interest.wants_event(event)) {
            window.push(event.clone(), now);
        }
        for placed in &batch.commands {
            window.push_command(placed.offset.position, placed.command.clone(), now);
        }
    }
}
