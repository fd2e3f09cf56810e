//! The thread of a shard: a current-thread runtime and one loop that takes messages, fires deadlines and flushes outboxes.

use crate::model::command::Action;
use crate::model::event::{Delivery, PlacedCommand};
use crate::model::offset::Position;
use crate::shard::context::{ShardContext, ShardObserver};
use crate::shard::ended::{Ended, EndedQueue};
use crate::shard::face::Shard;
use crate::shard::handle::{Backlog, ShardCommand, ShardHandle};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

/// Connections flushed before reads get their turn: some 4 µs each, so about half a millisecond.
const FLUSH_SLICE: usize = 128;
/// Commands taken at once: a bound on how long one round of deliveries may take.
const MAX_COMMANDS: usize = 256;
/// The receiving ends of a [`ShardHandle`].
pub type End<L> = (mpsc::UnboundedReceiver<ShardCommand<L>>, Arc<Backlog>);

/// Starts a shard's thread. `setup` runs on it first, and makes the value that work for the shard gets.
///
/// # Errors
/// When the system cannot start a thread.
pub fn spawn<L: 'static>(
    index: u8,
    context: Arc<ShardContext>,
    observer: Arc<dyn ShardObserver>,
    end: End<L>,
    setup: impl FnOnce(&Rc<Shard>, mpsc::Receiver<Ended>) -> Rc<L> + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        // A LocalSet would be woken through the driver, a system call for every readable socket.
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "shard {index} has no runtime"),
        };
        let (commands, backlog) = end;
        runtime.block_on(async move {
            let (ended, ended_receiver) = EndedQueue::new();
            let shard = Shard::new(index, context, observer, ended);
            let local = setup(&shard, ended_receiver);
            // As a task of its own: the future of block_on itself is woken through the driver too.
            if let Err(error) = tokio::task::spawn_local(run(shard, local, commands, backlog)).await {
                tracing::error!(%error, "shard {index} ended");
            }
        });
    })
}

/// Takes messages, fires deadlines and flushes, until [`ShardCommand::Stop`].
async fn run<L: 'static>(
    shard: Rc<Shard>,
    local: Rc<L>,
    mut commands: mpsc::UnboundedReceiver<ShardCommand<L>>,
    backlog: Arc<Backlog>,
) {
    let mut waiting = Vec::new();
    let mut flushing = Flushing::default();
    loop {
        let next = {
            let mut hub = shard.hub.borrow_mut();
            let next = hub.next_deadline();
            hub.connections.arm(next);
            next
        };
        let sleep = async {
            match next {
                Some(at) => {
                    tokio::time::sleep_until((shard.started + Duration::from_millis(at.get() - 1)).into()).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            count = commands.recv_many(&mut waiting, MAX_COMMANDS) => if count == 0 { return },
            () = shard.wake.notified() => {}
            () = sleep => {}
        }
        loop {
            for command in waiting.drain(..) {
                if !flushing.carry_out(&shard, &local, command, &backlog).await {
                    return;
                }
            }
            if !flushing.work_some(&shard) {
                break;
            }
            tokio::task::yield_now().await;
            // Events that came meanwhile join the frames that are still waiting: that is what coalesces under load.
            while waiting.len() < MAX_COMMANDS
                && let Ok(command) = commands.try_recv()
            {
                waiting.push(command);
            }
        }
    }
}

/// Carries out a command. It is reported once the presence store has what it changed, because the caller may read presence as
/// soon as it has its answer.
fn apply_command(shard: &Rc<Shard>, placed: PlacedCommand) {
    let now = shard.now();
    let (sessions, noted) = shard.hub.borrow_mut().carry_out(&placed.command, placed.offset, now);
    shard.advanced.notify_waiters();
    if shard.context.presence.is_written(noted) {
        return shard.observer.command_applied(&placed.command, sessions);
    }
    let is_leave = matches!(placed.command.action, Action::Leave(_));
    let shard = shard.clone();
    tokio::task::spawn_local(async move {
        shard.context.presence.written_at_last(noted, is_leave).await;
        shard.observer.command_applied(&placed.command, sessions);
    });
}

/// A batch of events in outboxes.
struct Delivered {
    /// The count of flushed connections at which it is flushed.
    flushed_at: u64,
    /// When its events were accepted (Unix microseconds).
    accepted_us: Vec<u64>,
    /// Those of them whose way is recorded, with the number of their receivers here.
    traced: Vec<(Arc<Delivery>, u64)>,
    /// Where in the log it ends.
    up_to: Position,
}

/// Delivered events whose receivers are not all flushed yet.
#[derive(Default)]
struct Flushing {
    batches: VecDeque<Delivered>,
}

impl Flushing {
    /// Handles one message; `false` for the last one.
    async fn carry_out<L>(
        &mut self,
        shard: &Rc<Shard>,
        local: &Rc<L>,
        command: ShardCommand<L>,
        backlog: &Backlog,
    ) -> bool {
        match command {
            ShardCommand::Events(events, bytes) => {
                let (mut accepted, mut traced) = (Vec::new(), Vec::new());
                for delivery in &*events {
                    let before = shard.hub.borrow().flusher.pushed();
                    let is_wide = shard.deliver(delivery);
                    // Where nobody receives an event nothing is written.
                    let receivers = shard.hub.borrow().flusher.pushed() - before;
                    if receivers > 0 {
                        accepted.push(delivery.event.accepted_us);
                    }
                    if delivery.is_traced() {
                        match receivers {
                            0 => wrote(shard, delivery, 0),
                            receivers => traced.push((delivery.clone(), receivers as u64)),
                        }
                    }
                    if is_wide {
                        // In a room of thousands, reads and deadlines get their turn between two events. Nothing is flushed
                        // yet, so that many events to one connection still become one write.
                        let now = shard.now();
                        shard.hub.borrow_mut().fire(now);
                        tokio::task::yield_now().await;
                    }
                }
                shard.advanced.notify_waiters();
                backlog.took(bytes);
                self.note(shard, accepted, traced);
            }
            ShardCommand::SessionCommand(placed) => apply_command(shard, placed),
            ShardCommand::Probe(id) => shard.observer.probe_seen(id),
            ShardCommand::Reset(offset) => {
                let now = shard.now();
                shard.hub.borrow_mut().reset(offset, now);
                shard.advanced.notify_waiters();
            }
            ShardCommand::Advance(offset) => {
                shard.hub.borrow_mut().position.set(offset);
                shard.advanced.notify_waiters();
            }
            ShardCommand::Run(work) => work(local),
            ShardCommand::Stop => return false,
        }
        true
    }

    /// Remembers a batch until its receivers, which are listed now, have been flushed.
    fn note(&mut self, shard: &Shard, accepted_us: Vec<u64>, traced: Vec<(Arc<Delivery>, u64)>) {
        if !accepted_us.is_empty() {
            let hub = shard.hub.borrow();
            let (flushed_at, up_to) = (hub.flusher.flushed_when_empty(), hub.position.control().position);
            self.batches.push_back(Delivered { flushed_at, accepted_us, traced, up_to });
        }
    }

    /// Fires deadlines and flushes a slice of the outboxes. Answers whether more outboxes wait.
    fn work_some(&mut self, shard: &Shard) -> bool {
        let (now, mut hub) = (shard.now(), shard.hub.borrow_mut());
        hub.fire(now);
        let more = hub.flush_some(FLUSH_SLICE, now);
        let (flushed, delivered) = (hub.flusher.flushed(), hub.flusher.take_delivered());
        drop(hub);
        let metrics = &shard.context.metrics;
        delivered.for_each(|(protocol, count)| metrics.delivered(protocol, count));
        while self.batches.front().is_some_and(|batch| batch.flushed_at <= flushed || !more) {
            let Some(Delivered { accepted_us, traced, up_to, .. }) = self.batches.pop_front() else { break };
            let unix_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
            shard.hub.borrow_mut().history.wrote(up_to, (unix_us / 1000) as u64);
            traced.iter().for_each(|(delivery, receivers)| wrote(shard, delivery, *receivers));
            for accepted_us in accepted_us {
                // Every frame is written, or waits because its client is slow.
                metrics.publish_to_write.observe(unix_us.saturating_sub(u128::from(accepted_us)) as f64 / 1e6);
            }
        }
        more
    }
}

/// This shard has written a traced event; the last one to do so ends its span.
fn wrote(shard: &Shard, delivery: &Delivery, receivers: u64) {
    if let Some(receivers) = delivery.shard_wrote(receivers) {
        shard.context.telemetry.delivered(&delivery.event, receivers);
    }
}

/// One shard for each core, at most 255: a sid has one byte for its shard.
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(usize::from(u8::MAX))
}

/// Handles for so many shards, and what their threads are started with.
pub fn handles<L: 'static>(count: usize) -> (Vec<ShardHandle<L>>, Vec<End<L>>) {
    (0..count)
        .map(|_| {
            let (handle, commands, backlog) = ShardHandle::new();
            (handle, (commands, backlog))
        })
        .unzip()
}
