//! When which part of a line of the log was written to the clients of a shard: one small record for each turn of deliveries.

use crate::model::offset::Position;
use crate::model::partition::Line;
use std::collections::VecDeque;

/// Turns that are closer together than this become one record.
const STEP_MS: u64 = 10;
/// Records: with one each [`STEP_MS`] for the whole of a default recovery window, 400 KB.
const MAX: usize = 16_384;
/// The same for a partition, of which there may be many: for 20 s and more, or 50 KB.
const MAX_OF_PARTITION: usize = 2_048;

/// See the module.
pub(super) struct Turns {
    max: usize,
    /// Up to where, and when, in Unix milliseconds. Both grow.
    list: VecDeque<(Position, u64)>,
    forgotten: Option<Position>,
}

impl Turns {
    pub(super) fn new(line: Line) -> Self {
        let max = if line == Line::CONTROL { MAX } else { MAX_OF_PARTITION };
        Self { max, list: VecDeque::new(), forgotten: None }
    }

    /// What was delivered up to this position is written, or waits because its client is slow.
    pub(super) fn note(&mut self, up_to: Position, unix_ms: u64) {
        if let Some((last, at)) = self.list.back_mut()
            && unix_ms.saturating_sub(*at) < STEP_MS
        {
            *last = (*last).max(up_to);
            return;
        }
        if self.list.len() == self.max {
            self.forgotten = self.list.pop_front().map(|(position, _)| position);
        }
        self.list.push_back((up_to, unix_ms));
    }

    /// When the event at this position was written, within [`STEP_MS`].
    pub(super) fn at(&self, position: Position) -> Option<u64> {
        if self.forgotten.is_some_and(|forgotten| position <= forgotten) {
            return None;
        }
        let first = self.list.partition_point(|(up_to, _)| *up_to < position);
        self.list.get(first).map(|(_, at)| *at)
    }

    /// Forgets everything: the log begins anew.
    pub(super) fn clear(&mut self) {
        (self.list, self.forgotten) = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(ms: u64) -> Position {
        Position { ms, seq: 0 }
    }

    #[test]
    fn an_event_was_written_with_the_first_turn_that_came_to_it() {
        let mut turns = Turns::new(Line::CONTROL);
        turns.note(position(10), 100);
        turns.note(position(12), 105);
        turns.note(position(20), 130);
        let at = |ms| turns.at(position(ms));
        assert_eq!(
            [9, 10, 11, 12, 13, 20, 21].map(at),
            [Some(100), Some(100), Some(100), Some(100), Some(130), Some(130), None]
        );
    }

    #[test]
    fn bounded() {
        let mut turns = Turns::new(Line::CONTROL);
        (0..2 * MAX as u64).for_each(|n| turns.note(position(n), n * STEP_MS));
        assert_eq!((turns.list.len(), turns.at(position(MAX as u64 - 1))), (MAX, None));
        assert_eq!(turns.at(position(MAX as u64)), Some(MAX as u64 * STEP_MS));
    }
}
