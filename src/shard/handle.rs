//! How other threads reach a shard: by messages, with a bound on the bytes of events that wait.

use crate::model::event::{Delivery, PlacedCommand};
use crate::model::id::Id;
use crate::model::offset::Offset;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// The log begins at this offset, for the first time or after it was lost. Events follow.
    Reset(Offset),
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

/// Bytes of events that were sent to a shard and are not in outboxes yet.
#[derive(Default)]
pub struct Backlog {
    bytes: AtomicUsize,
    shrunk: Notify,
}

impl Backlog {
    /// The shard has put so many bytes into outboxes.
    pub fn took(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.shrunk.notify_one();
    }
}

impl<L: 'static> ShardHandle<L> {
    /// A handle, and the receiving ends for the shard.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<ShardCommand<L>>, Arc<Backlog>) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog::default());
        (Self { commands, backlog: backlog.clone() }, receiver, backlog)
    }

    /// Sends a message; one to a shard that has stopped is lost.
    pub fn tell(&self, command: ShardCommand<L>) {
        let _ = self.commands.send(command);
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
        while !self.has_room(max) {
            self.backlog.shrunk.notified().await;
        }
    }

    /// Sends events. The caller waits for [`ShardHandle::room`] first.
    pub fn deliver(&self, events: Arc<[Arc<Delivery>]>, bytes: usize) {
        self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.tell(ShardCommand::Events(events, bytes));
    }
}
