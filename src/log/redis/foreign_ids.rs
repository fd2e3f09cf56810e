//! Idempotency ids of entries that other programs added: a repeat is skipped, as in appends of nodes. It is in the stream all
//! the same, so whoever reads a part of the stream again skips it too.

use crate::log::recent_ids::RecentIds;
use crate::model::draft::Source;
use crate::model::event::Event;
use crate::model::offset::Position;
use parking_lot::Mutex;
use std::sync::Arc;

/// Bytes of remembered ids.
const BYTES: usize = 16 << 20;

/// The ids that the tail has read lately, each with the position of its first entry.
pub(super) struct ForeignIds(Mutex<RecentIds<Position>>);

impl Default for ForeignIds {
    fn default() -> Self {
        Self(Mutex::new(RecentIds::new(BYTES)))
    }
}

impl ForeignIds {
    /// Whether an entry that the tail reads repeats one before it; remembers it if not.
    pub(super) fn is_repeat(&self, source: Source, id: Option<&str>, position: Position) -> bool {
        id.filter(|_| source == Source::Stream).is_some_and(|id| is_repeat(&mut self.0.lock(), id, position))
    }

    /// The stream begins again with this history, from which repeats are removed.
    pub(super) fn restart(&self, history: &mut Vec<Arc<Event>>) {
        let mut ids = RecentIds::new(BYTES);
        remove_repeats(&mut ids, history);
        *self.0.lock() = ids;
    }

    /// Removes repeats from a part of the stream that was read again, oldest first. The first entry may be before that part;
    /// the tail knows it then.
    pub(super) fn remove_repeats(&self, events: &mut Vec<Arc<Event>>) {
        events.retain(|event| {
            let first = foreign_id(event).and_then(|id| self.0.lock().known(id));
            first.is_none_or(|first| first >= event.offset.position)
        });
        remove_repeats(&mut RecentIds::new(BYTES), events);
    }
}

fn foreign_id(event: &Event) -> Option<&str> {
    event.draft.id.as_deref().filter(|_| event.draft.source == Source::Stream)
}

fn remove_repeats(ids: &mut RecentIds<Position>, events: &mut Vec<Arc<Event>>) {
    events.retain(|event| !foreign_id(event).is_some_and(|id| is_repeat(ids, id, event.offset.position)));
}

fn is_repeat(ids: &mut RecentIds<Position>, id: &str, position: Position) -> bool {
    let is_known = ids.first(id, position.ms).is_some();
    if !is_known {
        ids.remember(id, position, position.ms);
    }
    is_known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::args::Args;
    use crate::model::draft::Draft;
    use crate::model::offset::Offset;

    fn event(source: Source, id: Option<&str>, ms: u64) -> Arc<Event> {
        let draft = Draft { id: id.map(Into::into), ..Draft::new("r", "e", Args::one("1").unwrap(), source) };
        let position = Position { ms, seq: 0 };
        Arc::new(Event { offset: Offset { position, ..Offset::default() }, draft, accepted_us: 0, after: None })
    }

    fn times(events: &[Arc<Event>]) -> Vec<u64> {
        events.iter().map(|event| event.offset.position.ms).collect()
    }

    #[test]
    fn a_part_that_is_read_again_has_each_id_once() {
        let ids = ForeignIds::default();
        for ms in [1, 2, 3] {
            assert_eq!(ids.is_repeat(Source::Stream, Some("a"), Position { ms, seq: 0 }), ms > 1);
        }
        let mut part: Vec<_> = (1..4).map(|ms| event(Source::Stream, Some("a"), ms)).collect();
        ids.remove_repeats(&mut part);
        assert_eq!(times(&part), [1]);
        let mut after_the_first = vec![event(Source::Stream, Some("a"), 2), event(Source::Stream, None, 4)];
        ids.remove_repeats(&mut after_the_first);
        assert_eq!(times(&after_the_first), [4]);
        // Nodes never add a repeat, and five minutes later it is none.
        let mut all: Vec<_> = [1, 2].map(|ms| event(Source::Http, Some("b"), ms)).into();
        all.extend([3, 4, 300_003].map(|ms| event(Source::Stream, Some("c"), ms)));
        ids.remove_repeats(&mut all);
        assert_eq!(times(&all), [1, 2, 3, 300_003]);
    }

    #[test]
    fn the_history_of_a_new_beginning_counts() {
        let ids = ForeignIds::default();
        ids.is_repeat(Source::Stream, Some("former"), Position { ms: 1, seq: 0 });
        let mut history: Vec<_> = [5, 6].map(|ms| event(Source::Stream, Some("a"), ms)).into();
        ids.restart(&mut history);
        assert_eq!(times(&history), [5]);
        assert!(ids.is_repeat(Source::Stream, Some("a"), Position { ms: 7, seq: 0 }));
        assert!(!ids.is_repeat(Source::Stream, Some("former"), Position { ms: 7, seq: 0 }));
    }
}
