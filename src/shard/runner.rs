//! A shard: one thread, one current-thread runtime, one hub. Whatever runs here may touch the hub without locks.

use crate::model::command::Action;
use crate::model::event::Delivery;
use crate::model::id::Id;
use crate::model::offset::{Epoch, Offset};
use crate::model::transport::Protocol;
use crate::session::connection::ConnectionKey;
use crate::session::timers::Millis;
use crate::shard::context::{ShardContext, ShardObserver};
use crate::shard::handle::{Backlog, ShardCommand, ShardHandle};
use crate::shard::state::{Ended, Hub};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc};

/// Connections flushed before reads get their turn: some 4 µs each, so about half a millisecond.
const FLUSH_SLICE: usize = 128;
/// Frames put into outboxes before others get their turn: some 50 ns each.
const PUSHES_PER_TURN: usize = 8_192;
/// Commands taken at once: a bound on how long one round of deliveries may take.
const MAX_COMMANDS: usize = 256;
/// How far behind another node this one may be: the time between two reads of their tails, generously.
const CATCH_UP: Duration = Duration::from_millis(500);
/// Bytes read from a socket at once, into the one buffer that all connections of a shard share.
const READ_BUFFER: usize = 64 << 10;

/// One shard.
pub struct Shard {
    /// Its number; sids carry it.
    pub index: u8,
    /// What all shards of the node share.
    pub context: Arc<ShardContext>,
    /// Hears what the shard reports.
    pub(super) observer: Arc<dyn ShardObserver>,
    /// Its tables. Borrowed for moments, never across an await.
    pub hub: RefCell<Hub>,
    /// Where sockets are read into.
    pub buffer: RefCell<Box<[u8]>>,
    started: Instant,
    rearm: Rc<Notify>,
    /// Told whenever the shard's position moves.
    advanced: Notify,
}

impl Shard {
    /// Milliseconds since the shard began, never 0.
    pub fn now(&self) -> Millis {
        Millis::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX / 4) + 1
    }

    /// Delivers one event; whether so much was delivered that others should have their turn.
    fn deliver(&self, delivery: &Arc<Delivery>) -> bool {
        let (now, mut hub) = (self.now(), self.hub.borrow_mut());
        hub.deliver(delivery, now);
        let long = hub.pushed >= PUSHES_PER_TURN;
        if long {
            hub.pushed = 0;
        }
        long
    }

    /// Waits until the shard has come to a position that a client has already seen, through a node that was ahead;
    /// for a bounded time. What is live from then on is new to that client.
    pub async fn catch_up_with(&self, offset: Offset) {
        let reached = async {
            loop {
                let advanced = self.advanced.notified();
                let here = self.hub.borrow().position;
                let begun = here.epoch != Epoch::default();
                if begun && (here.epoch != offset.epoch || here.position >= offset.position) {
                    return;
                }
                advanced.await;
            }
        };
        // In vain for an offset from the future: the resume then says so.
        let _ = tokio::time::timeout(CATCH_UP, reached).await;
    }

    /// The client of this connection has shown that it lives.
    pub fn pong(&self, key: ConnectionKey) {
        let now = self.now();
        self.hub.borrow_mut().pong(key, now);
    }

    /// A fresh identifier that leads back to this shard.
    pub fn fresh_id(&self) -> Id {
        Id::random_at(self.context.node_id, self.index)
    }

    /// A time of the wall clock (Unix seconds) on the shard's clock.
    pub fn at_unix(&self, seconds: u64) -> Millis {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_secs(seconds).saturating_sub(unix);
        self.now().saturating_add(Millis::try_from(left.as_millis()).unwrap_or(Millis::MAX / 4))
    }
}

/// What a shard's thread keeps of its handle.
pub type End<L> = (mpsc::UnboundedReceiver<ShardCommand<L>>, Arc<Backlog>);

/// Starts a shard's thread. `setup` runs on it first and makes what work for the shard gets.
///
/// # Errors
/// When the system gives no thread.
pub fn spawn<L: 'static>(
    index: u8,
    context: Arc<ShardContext>,
    observer: Arc<dyn ShardObserver>,
    end: End<L>,
    setup: impl FnOnce(&Rc<Shard>, mpsc::UnboundedReceiver<Ended>) -> Rc<L> + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        // A LocalSet would be woken through the driver, a system call for every readable socket.
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "shard {index} has no runtime"),
        };
        let (commands, backlog) = end;
        runtime.block_on(async move {
            let (ended, ended_receiver) = mpsc::unbounded_channel();
            let rearm = Rc::new(Notify::new());
            let shard = Rc::new(Shard {
                index,
                hub: RefCell::new(Hub::new(context.clone(), rearm.clone(), ended)),
                context,
                observer,
                buffer: RefCell::new(vec![0; READ_BUFFER].into()),
                started: Instant::now(),
                rearm,
                advanced: Notify::new(),
            });
            let local = setup(&shard, ended_receiver);
            // As a task of its own: the future of block_on itself is woken through the driver too.
            if let Err(error) = tokio::task::spawn_local(run(shard, local, commands, backlog)).await {
                tracing::error!(%error, "shard {index} ended");
            }
        });
    })
}

/// Commands in, deadlines, bytes out: until told to stop.
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
            hub.armed = next.unwrap_or(Millis::MAX);
            next
        };
        let sleep = async {
            match next {
                Some(at) => tokio::time::sleep_until((shard.started + Duration::from_millis(at - 1)).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            count = commands.recv_many(&mut waiting, MAX_COMMANDS) => if count == 0 { return },
            () = shard.rearm.notified() => {}
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

/// Delivered events whose receivers are not all flushed yet.
#[derive(Default)]
struct Flushing {
    /// When each batch is flushed, in the hub's count of flushed connections, and when its events were accepted (Unix
    /// microseconds).
    batches: VecDeque<(u64, Vec<u64>)>,
}

impl Flushing {
    /// Does one command; `false` for the last.
    async fn carry_out<L>(
        &mut self,
        shard: &Rc<Shard>,
        local: &Rc<L>,
        command: ShardCommand<L>,
        backlog: &Backlog,
    ) -> bool {
        match command {
            ShardCommand::Events(events, bytes) => {
                for delivery in &*events {
                    if shard.deliver(delivery) {
                        // A room of thousands: reads and deadlines have their turn between two events. Nothing is flushed
                        // yet, so that many events to one connection still become one write.
                        let now = shard.now();
                        shard.hub.borrow_mut().fire(now);
                        tokio::task::yield_now().await;
                    }
                }
                shard.advanced.notify_waiters();
                backlog.took(bytes);
                self.note(shard, &events);
            }
            ShardCommand::SessionCommand(placed) => {
                let now = shard.now();
                let (met, noted) = shard.hub.borrow_mut().carry_out(&placed.command, placed.offset, now);
                shard.advanced.notify_waiters();
                let is_leave = matches!(placed.command.action, Action::Leave(_));
                if shard.context.presence.is_written(noted) {
                    shard.observer.command_applied(&placed.command, met);
                } else {
                    // Whoever asked may read what became of it as soon as it is answered.
                    let shard = shard.clone();
                    tokio::task::spawn_local(async move {
                        shard.context.presence.written_at_last(noted, is_leave).await;
                        shard.observer.command_applied(&placed.command, met);
                    });
                }
            }
            ShardCommand::Probe(id) => shard.observer.probe_seen(id),
            ShardCommand::Reset(offset) => {
                let now = shard.now();
                shard.hub.borrow_mut().reset(offset, now);
                shard.advanced.notify_waiters();
            }
            ShardCommand::Advance(offset) => {
                shard.hub.borrow_mut().position = offset;
                shard.advanced.notify_waiters();
            }
            ShardCommand::Run(work) => work(local),
            ShardCommand::Stop => return false,
        }
        true
    }

    /// Remembers a batch until its receivers, which are listed now, have been flushed.
    fn note(&mut self, shard: &Shard, events: &[Arc<Delivery>]) {
        let hub = shard.hub.borrow();
        let accepted = events.iter().map(|delivery| delivery.event.accepted_us).collect();
        self.batches.push_back((hub.flushed + hub.dirty.len() as u64, accepted));
    }

    /// Does what is due and flushes a slice of the outboxes; whether more of them wait.
    fn work_some(&mut self, shard: &Shard) -> bool {
        let (now, mut hub) = (shard.now(), shard.hub.borrow_mut());
        hub.fire(now);
        let more = hub.flush_some(FLUSH_SLICE, now);
        let (flushed, delivered) = (hub.flushed, std::mem::take(&mut hub.delivered));
        drop(hub);
        let metrics = &shard.context.metrics;
        for (protocol, count) in [Protocol::SocketIo, Protocol::PlainWs, Protocol::Sse].into_iter().zip(delivered) {
            if count > 0 {
                metrics.delivered(protocol, count);
            }
        }
        while self.batches.front().is_some_and(|(at, _)| *at <= flushed || !more) {
            let Some((_, accepted)) = self.batches.pop_front() else { break };
            let unix_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
            for accepted_us in accepted {
                // Every frame is written, or waits for its client.
                metrics.publish_to_write.observe(unix_us.saturating_sub(u128::from(accepted_us)) as f64 / 1e6);
            }
        }
        more
    }
}

/// One shard for each core; their numbers fit a byte of a sid.
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
