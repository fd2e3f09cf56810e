//! How other threads reach a shard: by messages, with a bound on the bytes of events that wait, or while its thread sleeps by
//! its tables.

use crate::model::event::{Delivery, PlacedCommand};
use crate::model::id::Id;
use crate::model::offset::Offset;
use crate::shard::hub::Hub;
use crate::shard::hub_cell::SharedHub;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Notify, mpsc, oneshot};

/// Work for a shard's thread. It gets what the node keeps beside the shard there.
pub type Work<L> = Box<dyn FnOnce(&Rc<L>) + Send>;

/// A message to a shard.
pub enum ShardCommand<L> {
    /// The next events, in log order, and their size in bytes.
    Events(Arc<[Arc<Delivery>]>, usize),
    /// A command to sessions, and its offset in the log.
    SessionCommand(PlacedCommand),
    /// A probe of this node.
    Probe(Id),
    /// Lines of the log begin at these offsets, for the first time or after they lost entries. Events follow.
    Reset(Box<[Offset]>),
    /// The log was read up to this offset, and there was no event since the last one.
    Advance(Offset),
    /// Work for the shard's thread.
    Run(Work<L>),
    /// End the shard's thread.
    Stop,
}

/// Reaches a shard from any thread. `L` is what the node keeps beside each shard, on the shard's thread.
pub struct ShardHandle<L> {
    commands: mpsc::UnboundedSender<ShardCommand<L>>,
    backlog: Arc<Backlog>,
}

impl<L> Clone for ShardHandle<L> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), backlog: self.backlog.clone() }
    }
}

impl<L> ShardCommand<L> {
    /// The bytes of what comes from the log, in its order; `None` of anything else.
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Self::Events(_, bytes) => Some(*bytes),
            Self::SessionCommand(_) | Self::Probe(_) | Self::Reset(_) | Self::Advance(_) => Some(0),
            Self::Run(_) | Self::Stop => None,
        }
    }
}

/// What was sent to a shard and is not carried out yet.
#[derive(Default)]
pub struct Backlog {
    /// Bytes of events.
    bytes: AtomicUsize,
    /// Messages of the log. Only the log's tail adds to them.
    messages: AtomicUsize,
    shrunk: Notify,
    hub: OnceLock<SharedHub>,
}

impl Backlog {
    /// The shard has carried out a message of so many bytes.
    pub(super) fn done(&self, bytes: usize) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shrunk.notify_one();
        }
    }

    /// The shard has started, and these are its tables.
    pub(super) fn share(&self, hub: SharedHub) {
        // A second call would be a bug of the runner and changes nothing.
        let _ = self.hub.set(hub);
    }
}

impl<L: 'static> ShardHandle<L> {
    /// A handle, and the receiving ends for the shard.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<ShardCommand<L>>, Arc<Backlog>) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog::default());
        (Self { commands, backlog: backlog.clone() }, receiver, backlog)
    }

    /// Sends a message; one to a shard that has stopped is lost. Messages of the log are only sent by its tail.
    pub fn tell(&self, command: ShardCommand<L>) {
        if let Some(bytes) = command.size() {
            self.backlog.messages.fetch_add(1, Ordering::Relaxed);
            self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        let _ = self.commands.send(command);
    }

    /// Uses the tables of the shard, if its thread sleeps and it has carried out all that it was sent of the log. Called by the
    /// log's tail.
    fn on_behalf<T>(&self, act: impl FnOnce(&mut Hub) -> T) -> Option<T> {
        let mut hub = self.backlog.hub.get()?.try_lock()?;
        // With the lock: what the shard did before is seen.
        if self.is_behind() { None } else { Some(act(&mut hub)) }
    }

    /// The same for the log's tail on the shard's own thread, which is awake.
    fn on_own_thread<T>(&self, act: impl FnOnce(&mut Hub) -> T) -> Option<T> {
        if self.is_behind() { None } else { self.backlog.hub.get()?.try_own(act) }
    }

    /// Whether the shard has not carried out all that it was sent of the log, or has stopped.
    fn is_behind(&self) -> bool {
        self.backlog.messages.load(Ordering::Relaxed) > 0 || self.commands.is_closed()
    }

    /// Runs work on the shard's thread.
    pub fn run(&self, work: impl FnOnce(&Rc<L>) + Send + 'static) {
        self.tell(ShardCommand::Run(Box::new(work)));
    }

    /// Runs work on the shard's thread and returns its result; `None` if the shard has stopped.
    pub fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Rc<L>) -> T + Send + 'static,
    ) -> Pin<Box<dyn Future<Output = Option<T>> + Send>> {
        let (reply, answer) = oneshot::channel();
        self.run(move |local| {
            let _ = reply.send(ask(local));
        });
        Box::pin(async move { answer.await.ok() })
    }

    /// Whether at most `max` bytes of events wait there, or the shard has stopped.
    pub fn has_room(&self, max: usize) -> bool {
        self.backlog.bytes.load(Ordering::Relaxed) <= max || self.commands.is_closed()
    }

    /// Completes when [`ShardHandle::has_room`] holds.
    pub async fn room(&self, max: usize) {
        if self.has_room(max) {
            return;
        }
        while !self.has_room(max) {
            self.backlog.shrunk.notified().await;
        }
        // The tail of another line may wait, too.
        self.backlog.shrunk.notify_one();
    }

    /// Delivers events, or sends them. The caller waits for [`ShardHandle::room`] first.
    pub fn deliver(&self, events: &Arc<[Arc<Delivery>]>, bytes: usize) {
        let delivered = self
            .on_behalf(|hub| hub.deliver_on_behalf(events, hub.context.now()))
            .or_else(|| self.on_own_thread(|hub| hub.deliver_few(events, hub.context.now())));
        if delivered != Some(true) {
            self.tell(ShardCommand::Events(events.clone(), bytes));
        }
    }

    /// Moves the shard to this offset, up to which there was no event since the last one.
    pub fn advance(&self, offset: Offset) {
        let moved = self.on_behalf(|hub| hub.move_to(offset));
        if moved.or_else(|| self.on_own_thread(|hub| hub.move_to(offset))).is_none() {
            self.tell(ShardCommand::Advance(offset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_tails_of_all_lines_go_on_once_there_is_room() {
        let (handle, _commands, backlog) = ShardHandle::<()>::new();
        handle.tell(ShardCommand::Events(Arc::from([]), 100));
        let both = async { tokio::join!(handle.room(10), handle.room(10), async { backlog.done(100) }) };
        tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
        handle.tell(ShardCommand::Events(Arc::from([]), 100));
        let early = tokio::time::timeout(Duration::from_millis(1), handle.room(10)).await;
        assert!(early.is_err(), "what an earlier one left behind lets nobody go on");
    }
}
