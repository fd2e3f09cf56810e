//! The thread of a shard: a current-thread runtime and one loop that takes messages, fires deadlines and flushes outboxes.
//! While it sleeps, others may deliver for it ([`crate::shard::on_behalf`]).

use crate::model::command::Action;
use crate::model::event::{Delivery, PlacedCommand};
use crate::model::millis::Millis;
use crate::shard::context::{ShardContext, ShardObserver};
use crate::shard::ended::{Ended, EndedQueue};
use crate::shard::face::Shard;
use crate::shard::handle::{Backlog, ShardCommand, ShardHandle};
use crate::shard::hub_cell::HubCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
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
        let mut builder = Builder::new_current_thread();
        let runtime =
            match builder.enable_all().on_thread_park(HubCell::let_go_own).build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => return tracing::error!(%error, "shard {index} has no runtime"),
            };
        let (commands, backlog) = end;
        runtime.block_on(async move {
            let (ended, ended_receiver) = EndedQueue::new();
            let shard = Shard::new(index, context, observer, ended);
            backlog.share(shard.hub.share());
            shard.hub.enter();
            let local = setup(&shard, ended_receiver);
            // As a task of its own: the future of block_on itself is woken through the driver too.
            if let Err(error) = tokio::task::spawn_local(run(shard, local, commands, backlog)).await {
                tracing::error!(%error, "shard {index} ended");
            }
            HubCell::exit();
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
    let mut sleep = pin!(tokio::time::sleep_until(shard.started.into()));
    let mut asleep_until = None;
    loop {
        let next = {
            let mut hub = shard.hub.borrow_mut();
            hub.flusher.attend(false);
            let next = hub.next_deadline();
            hub.connections.arm(next);
            next
        };
        if let Some(at) = next.filter(|_| next != asleep_until) {
            sleep.as_mut().reset((shard.started + Duration::from_millis(at.get() - 1)).into());
        }
        asleep_until = next;
        tokio::select! {
            biased;
            count = commands.recv_many(&mut waiting, MAX_COMMANDS) => if count == 0 { return },
            () = shard.wake.notified() => {}
            () = &mut sleep, if next.is_some() => asleep_until = None,
        }
        // What is listed from here on is flushed below.
        shard.hub.borrow_mut().flusher.attend(true);
        loop {
            let mut now = shard.now();
            for command in waiting.drain(..) {
                let size = command.size();
                if !carry_out(&shard, &local, command, &mut now).await {
                    return;
                }
                if let Some(bytes) = size {
                    backlog.done(bytes);
                }
            }
            if !work_some(&shard) {
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
fn apply_command(shard: &Rc<Shard>, placed: PlacedCommand, now: Millis) {
    let (sessions, noted) = shard.hub.borrow_mut().carry_out(&placed.command, placed.offset, now);
    shard.hub.borrow().advanced.notify_waiters();
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

/// Handles one message; `false` for the last one.
async fn carry_out<L>(shard: &Rc<Shard>, local: &Rc<L>, command: ShardCommand<L>, now: &mut Millis) -> bool {
    match command {
        ShardCommand::Events(events, _) => {
            for delivery in &*events {
                if deliver(shard, delivery, now) {
                    // In a room of thousands, reads and deadlines get their turn between two events. Nothing is flushed
                    // yet, so that many events to one connection still become one write.
                    tokio::task::yield_now().await;
                }
            }
            shard.hub.borrow().advanced.notify_waiters();
        }
        ShardCommand::SessionCommand(placed) => apply_command(shard, placed, *now),
        ShardCommand::Probe(id) => shard.observer.probe_seen(id),
        ShardCommand::Reset(begun) => shard.hub.borrow_mut().reset(&begun, *now),
        ShardCommand::Advance(offset) => shard.hub.borrow_mut().move_to(offset),
        ShardCommand::Run(work) => work(local),
        ShardCommand::Stop => return false,
    }
    true
}

/// Delivers one event; whether so much was delivered that others should have their turn.
fn deliver(shard: &Shard, delivery: &Arc<Delivery>, now: &mut Millis) -> bool {
    let mut hub = shard.hub.borrow_mut();
    hub.deliver_and_note(delivery, *now);
    let is_turn_over = hub.flusher.is_turn_over();
    if is_turn_over {
        *now = shard.now();
        hub.fire(*now);
    }
    is_turn_over
}

/// Fires deadlines and flushes a slice of the outboxes. Answers whether more outboxes wait.
fn work_some(shard: &Shard) -> bool {
    let (now, mut hub) = (shard.now(), shard.hub.borrow_mut());
    hub.fire(now);
    hub.flush_slice(FLUSH_SLICE, now)
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
