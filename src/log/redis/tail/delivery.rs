//! From entries where they arrived to batches for the sink.

use crate::log::redis::dead_letters::DeadLetters;
use crate::log::redis::entry::{Entry, RawEntry, StreamEntry};
use crate::log::redis::generation::{self, StreamInfo, TailState};
use crate::log::redis::lines::GivenUp;
use crate::log::redis::reply::PageSize;
use crate::log::redis::tail::early::EarlyEvents;
use crate::log::redis::tail::order;
use crate::log::redis::tail::page::Page;
use crate::log::redis::tail::trim::Trimmer;
use crate::log::redis::{RedisLog, history};
use crate::log::{Sink, Snapshot};
use crate::model::close::DropReason;
use crate::model::draft::Source;
use crate::model::event::{Batch, Event, PlacedCommand};
use crate::model::offset::{Epoch, Offset};
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use std::sync::Arc;

/// Where the tail is, and what it hands over.
pub(super) struct Delivery<'a> {
    log: &'a RedisLog,
    sink: &'a dyn Sink,
    /// `None` before the first snapshot.
    state: Option<TailState>,
    page_size: PageSize,
    trimmer: Trimmer<'a>,
    dead_letters: DeadLetters,
    /// Lines that were waited for in vain.
    given_up: GivenUp,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(log: &'a RedisLog, sink: &'a dyn Sink) -> Self {
        Self {
            log,
            sink,
            state: None,
            page_size: PageSize::default(),
            trimmer: Trimmer::new(log),
            dead_letters: DeadLetters::new(),
            given_up: GivenUp::default(),
        }
    }

    /// Where the tail is. Before the first snapshot nothing is read.
    pub(super) fn offset(&self) -> Offset {
        let state = self.state.as_ref();
        let (epoch, position) = state.map_or_else(Default::default, |state| (state.epoch.0, state.position));
        Offset { epoch: Epoch(epoch), position, line: self.log.line }
    }

    /// What is known of the stream; `None` before the first snapshot.
    pub(super) fn state(&mut self) -> Option<&mut TailState> {
        self.state.as_mut()
    }

    /// How much is read at once.
    pub(super) fn page_size(&mut self) -> &mut PageSize {
        &mut self.page_size
    }

    pub(super) fn trimmer(&mut self) -> &mut Trimmer<'a> {
        &mut self.trimmer
    }

    /// Takes an entry. Events that nobody here wants are counted and not decoded; malformed ones become dead letters.
    pub(super) fn take(&mut self, entry: &Entry<'_>, page: &mut Page) {
        let (position, bytes) = (entry.position, entry.bytes());
        self.trimmer.count(entry, bytes);
        page.entries += 1;
        page.bytes += bytes;
        page.newest = Some(position);
        let (log, sink) = (self.log, self.sink);
        let at = Offset { position, ..page.offset };
        let decoded = entry.decode_wanted(&log.limits, |source, namespace, room| {
            // What is astray on this line must be decoded to be refused; nodes know the lines.
            let is_astray = source == Source::Stream && !log.lines.partitions.may_bring(log.line, room);
            is_astray || order::wants(log, sink, entry, (namespace, room), at)
        });
        match decoded.and_then(|decoded| log.check_line(decoded)) {
            Ok(StreamEntry::Event(draft, _))
                if log.foreign_ids.is_repeat(draft.source, draft.id.as_deref(), position) => {}
            Ok(StreamEntry::Event(draft, accepted_us)) => {
                let after = order::hold(log, entry, page);
                page.foreign += u64::from(draft.source == Source::Stream);
                let accepted_us = accepted_us.unwrap_or(position.ms.saturating_mul(1000));
                let accepted_us = log.clock_offset.local_us(accepted_us);
                // A volatile event has the position of the entry before it, however it was published.
                let position = if draft.volatile { page.offset.position } else { position };
                let offset = Offset { position, ..page.offset };
                page.batch.events.push(Arc::new(Event { offset, draft, accepted_us, after: after.boxed() }));
            }
            Ok(StreamEntry::Unwanted(source, id)) => {
                page.unwanted += 1;
                // Its id counts: the room of a repeat may be wanted by then.
                page.foreign += u64::from(!log.foreign_ids.is_repeat(source, id, position) && source == Source::Stream);
            }
            Ok(StreamEntry::SessionCommand(command)) => {
                order::hold(log, entry, page);
                let offset = Offset { position, ..page.offset };
                let after = page.batch.events.len();
                sink.foresee(&command);
                page.batch.commands.push(PlacedCommand { after, offset, command: Arc::new(command) });
            }
            Ok(StreamEntry::Probe(id)) => page.batch.probes.push(id),
            Ok(StreamEntry::Unsupported) => page.unsupported += 1,
            Ok(StreamEntry::Void) => page.void += 1,
            Err(error) => self.dead_letters.push(log, entry, error),
        }
        page.offset.position = position;
    }

    /// Takes entries that were copied.
    pub(super) fn take_all(&mut self, entries: &[RawEntry]) -> Page {
        let mut page = Page::after(self.offset());
        for raw in entries {
            self.take(&raw.entry(&raw.borrowed()), &mut page);
        }
        page
    }

    /// Hands a page over to the sink. From then on the tail is behind it.
    pub(super) async fn deliver(&mut self, mut page: Page) {
        let earlier = std::mem::take(&mut page.earlier);
        let parts = || earlier.iter().chain([&page]);
        self.page_size.learn(parts().map(|part| part.entries).sum(), parts().map(|part| part.bytes).sum());
        for part in earlier {
            self.deliver_part(part).await;
        }
        self.deliver_part(page).await;
    }

    async fn deliver_part(&mut self, page: Page) {
        order::wait_for(self.log, &page.comes_after, &mut self.given_up).await;
        let Page { entries, newest, batch, foreign, unwanted, unsupported, void, .. } = page;
        if let Some(newest) = newest {
            self.log.note_newest(newest.ms);
            // Ids are of Redis' clock.
            let now_ms = self.log.clock_offset.redis_now_us() / 1000;
            self.log.lines.note_lag(self.log.line, now_ms.saturating_sub(newest.ms));
        }
        // Events of nodes were counted when they were accepted. What others added is counted by every node.
        self.log.metrics.events.accepted(Source::Stream, foreign);
        self.log.metrics.log.read(batch.events.len() as u64, unwanted);
        self.log.metrics.events.dropped(DropReason::Late, void);
        if unsupported > 0 {
            self.log.metrics.events.dropped(DropReason::Unsupported, unsupported);
            tracing::warn!(entries = unsupported, "entries of a newer release are skipped; upgrade this node");
        }
        if !batch.is_empty() {
            self.sink.deliver(batch).await;
        }
        if let (Some(newest), Some(state)) = (newest, &mut self.state) {
            state.read(entries, newest);
        }
        let Offset { line, position, .. } = self.offset();
        self.sink.advanced_to(line, position);
        self.log.lines.note_delivered(line, position);
    }

    /// Delivers volatile events.
    pub(super) async fn deliver_volatile(&self, early: &mut EarlyEvents) {
        let events = early.take_due(self.log, self.offset());
        if !events.is_empty() {
            self.sink.deliver(Batch { events, ..Batch::default() }).await;
        }
    }

    /// Writes the dead letters of what was taken.
    pub(super) async fn write_dead_letters(&mut self, connection: &mut RedisConnection) -> Result<(), RedisError> {
        self.dead_letters.write(self.log, connection).await
    }

    /// Reads the history up to where the tail goes on in this stream, and waits until other lines have what comes before it.
    pub(super) async fn read_history(
        &mut self,
        connection: &mut RedisConnection,
        epoch: Epoch,
        stream: Option<StreamInfo>,
    ) -> Result<Snapshot, RedisError> {
        let head = generation::head(self.state.as_ref(), stream.as_ref());
        let (page_size, dead_letters) = (&mut self.page_size, &mut self.dead_letters);
        let read = history::read(self.log, connection, epoch, head, stream, page_size, dead_letters).await?;
        let (mut snapshot, comes_after) = read;
        order::wait_to_begin(self.log, head, &comes_after).await;
        self.log.foreign_ids.restart(&mut snapshot.history);
        Ok(snapshot)
    }

    /// Starts over with this history.
    pub(super) async fn start_over(&mut self, snapshot: Snapshot, stream: Option<&StreamInfo>, begin: Begin) {
        let head = snapshot.head;
        self.state = Some(TailState::new(snapshot.epoch, head, stream));
        self.trimmer.reset();
        match begin {
            Begin::Renewed => self.sink.renewed(snapshot),
            Begin::First => self.sink.reset(snapshot),
            Begin::AfterLoss => self.log.lines.losses.tell(snapshot, self.sink).await,
        }
        self.log.lines.note_delivered(self.log.line, head);
    }
}

/// How the tail comes to start over.
#[derive(Clone, Copy)]
pub(super) enum Begin {
    /// The node has just started.
    First,
    /// The stream was renewed, and all of the old one was delivered.
    Renewed,
    /// Entries were lost.
    AfterLoss,
}
