//! A Redis stream that is trimmed, flushed and deleted, and fails over to a lagging replica.

use roomcast::log::redis::generation::{Observed, StreamInfo};
use roomcast::model::after::After;
use roomcast::model::command::SessionCommand;
use roomcast::model::draft::Draft;
use roomcast::model::event::Event;
use roomcast::model::offset::{Offset, Position};
use roomcast::model::partition::Line;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One entry of a line.
#[derive(Clone)]
pub(crate) struct Entry {
    pub position: Position,
    pub body: Body,
    /// What comes before it on other lines.
    pub after: After,
    /// All that was published before it to the same node on other lines, and is not lost.
    pub past: Vec<(Line, Position)>,
    /// When it was accepted, by the clock of the node that did it.
    pub accepted_us: u64,
    /// A node that died has read it; the only proof that it existed may be gone with the node.
    pub read_by_dead: bool,
}

/// The content of an entry.
#[derive(Clone)]
pub(crate) enum Body {
    Event(Draft),
    SessionCommand(Arc<SessionCommand>),
    Probe,
}

impl Entry {
    /// A line has only what is up to there.
    pub(crate) fn forget(&mut self, line: Line, last: Position) {
        for (of, position) in &mut self.past {
            if *of == line {
                *position = last.min(*position);
            }
        }
    }

    pub(crate) fn serial(&self) -> Option<u64> {
        let Body::Event(draft) = &self.body else { return None };
        draft.event.parse().ok()
    }

    /// The positions on other lines that it names.
    pub(crate) fn named(&self) -> impl Iterator<Item = (Line, Position)> {
        self.after.iter().map(|offset| (offset.line, offset.position))
    }

    /// As a tail reads it.
    pub(crate) fn event(&self, offset: Offset) -> Option<Event> {
        let Body::Event(draft) = &self.body else { return None };
        let after = self.after.clone().boxed();
        Some(Event { offset, draft: draft.clone(), accepted_us: self.accepted_us, after })
    }
}

/// The stream of one line and its epoch key.
pub(crate) struct Log {
    pub epoch: String,
    pub entries: Vec<Entry>,
    exists: bool,
    last: Position,
    added: i64,
    /// Every id that was ever assigned.
    used: BTreeSet<Position>,
    /// Whether it reports `entries-added`, as Redis does since 7.0.
    counts: bool,
}

impl Log {
    pub(crate) fn new(counts: bool) -> Self {
        Self {
            epoch: String::new(),
            entries: Vec::new(),
            exists: false,
            last: Position::default(),
            added: 0,
            used: BTreeSet::new(),
            counts,
        }
    }

    /// `XADD *`: ids rise within one generation, whatever the clock does.
    pub(crate) fn append(&mut self, clock_ms: u64, body: Body) -> Position {
        self.append_after(clock_ms, body, (After::default(), Vec::new()), 0)
    }

    /// The same, behind what is named on other lines.
    pub(crate) fn append_after(
        &mut self,
        clock_ms: u64,
        body: Body,
        (after, past): (After, Vec<(Line, Position)>),
        accepted_us: u64,
    ) -> Position {
        let mut position = match clock_ms > self.last.ms {
            true => Position { ms: clock_ms, seq: 0 },
            false => Position { ms: self.last.ms, seq: self.last.seq + 1 },
        };
        // Two masters do not assign the same id at the same time.
        while !self.used.insert(position) {
            position.seq += 1;
        }
        self.exists = true;
        self.last = position;
        self.added += 1;
        self.entries.push(Entry { position, body, after, past, accepted_us, read_by_dead: false });
        position
    }

    /// The last position that was given.
    pub(crate) fn last(&self) -> Position {
        self.last
    }

    pub(crate) fn observe(&self, asked: Option<Position>) -> Observed {
        let has = |asked: Position| self.entries.iter().any(|entry| entry.position == asked);
        let stream = self.exists.then(|| StreamInfo {
            last: self.last,
            length: self.entries.len() as i64,
            added: self.counts.then_some(self.added),
            first: self.entries.first().map(|entry| entry.position),
            newest: self.entries.last().map(|entry| entry.position),
            missing: asked.filter(|asked| !has(*asked)),
        });
        Observed { epoch_text: self.epoch.clone(), stream }
    }

    /// Sets the epoch unless another node has set it since it was read.
    pub(crate) fn agree(&mut self, replaced: &str, fresh: u32) -> u32 {
        if self.epoch == replaced {
            self.epoch = format!("{fresh:x}");
        }
        u32::from_str_radix(&self.epoch, 16).expect("nodes write hexadecimal epochs")
    }

    pub(crate) fn trim(&mut self, count: usize) {
        self.entries.drain(..count.min(self.entries.len()));
    }

    /// A replica that lacks the last entries becomes the master.
    pub(crate) fn fail_over(&mut self, lost: usize) -> Vec<Entry> {
        let kept = self.entries.len().saturating_sub(lost);
        let gone = self.entries.split_off(kept);
        if let Some(first) = gone.first() {
            self.last = self.used.range(..first.position).next_back().copied().unwrap_or_default();
            self.added -= gone.len() as i64;
        }
        gone
    }

    /// `DEL` of the stream; `FLUSHALL` also deletes the epoch.
    pub(crate) fn delete(&mut self, epoch_too: bool) -> Vec<Entry> {
        if epoch_too {
            self.epoch.clear();
        }
        (self.exists, self.last, self.added) = (false, Position::default(), 0);
        std::mem::take(&mut self.entries)
    }
}
