//! From entries where they arrived to a batch for the sink.

use crate::log::redis::entry::{Entry, RawEntry, StreamEntry};
use crate::log::redis::tail::Tail;
use crate::log::redis::tail::page::Page;
use crate::model::close::DropReason;
use crate::model::draft::Source;
use crate::model::event::{Event, PlacedCommand};
use crate::model::offset::Offset;
use std::sync::Arc;

impl Tail<'_> {
    /// Takes an entry. Events that nobody here wants are counted and not decoded; malformed ones become dead letters.
    pub(super) fn take(&mut self, entry: &Entry<'_>, page: &mut Page) {
        let (position, bytes) = (entry.position, entry.bytes());
        self.size.read(position, bytes, entry.fields.len());
        page.entries += 1;
        page.bytes += bytes;
        page.newest = Some(position);
        let (log, sink) = (self.log, self.sink);
        let at = Offset { position, ..page.offset };
        let decoded = entry.decode_wanted(&log.limits, |namespace, room| self.wants(entry, namespace, room, at));
        match decoded.and_then(|decoded| log.check_line(decoded)) {
            Ok(StreamEntry::Event(draft, _))
                if log.foreign_ids.is_repeat(draft.source, draft.id.as_deref(), position) => {}
            Ok(StreamEntry::Event(draft, accepted_us)) => {
                let after = self.hold(entry, page);
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
                self.hold(entry, page);
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
        self.page.learn(parts().map(|part| part.entries).sum(), parts().map(|part| part.bytes).sum());
        for part in earlier {
            self.deliver_part(part).await;
        }
        self.deliver_part(page).await;
    }

    async fn deliver_part(&mut self, page: Page) {
        self.wait_for(&page.comes_after).await;
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
}
