//! The session commands of the last minutes, for sessions that had no connection when they were given. Sans-IO.

use crate::model::command::SessionCommand;
use crate::model::offset::Position;
use std::collections::VecDeque;
use std::sync::Arc;

/// Why some commands are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// They were too old, or too many.
    Dropped,
    /// They are from before the beginning.
    NotRead,
}

/// Commands in log order, bounded by age and bytes.
#[derive(Debug)]
pub(super) struct RecentCommands {
    max_age_ms: u64,
    max_bytes: usize,
    /// All commands after this position are kept.
    floor: Position,
    /// Nothing was dropped since the beginning, so that older ones may be read again.
    is_whole: bool,
    kept: VecDeque<(u64, Position, Arc<SessionCommand>)>,
    bytes: usize,
}

impl RecentCommands {
    pub(super) fn new(max_age_ms: u64, max_bytes: usize) -> Self {
        Self { max_age_ms, max_bytes, floor: Position::default(), is_whole: true, kept: VecDeque::new(), bytes: 0 }
    }

    /// Forgets all commands. Those after `floor` follow.
    pub(super) fn reset(&mut self, floor: Position) {
        self.kept.clear();
        self.bytes = 0;
        self.floor = floor;
        self.is_whole = true;
    }

    /// Takes the commands in (`after`, `up_to`] that were read again, oldest first.
    pub(super) fn fill(
        &mut self,
        after: Position,
        up_to: Position,
        commands: Vec<(u64, Position, Arc<SessionCommand>)>,
        now_ms: u64,
    ) {
        if !self.is_whole || self.floor > up_to || after >= self.floor {
            return;
        }
        let floor = self.floor;
        for older in commands.into_iter().rev().filter(|(_, position, _)| *position <= floor) {
            self.bytes += older.2.size();
            self.kept.push_front(older);
        }
        self.floor = after;
        self.expire(now_ms);
    }

    /// Takes the next command in log order.
    pub(super) fn push(&mut self, position: Position, command: Arc<SessionCommand>, now_ms: u64) {
        self.bytes += command.size();
        self.kept.push_back((now_ms, position, command));
        self.expire(now_ms);
    }

    /// Drops what is too old or too much.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some((pushed_ms, position, command)) = self.kept.front() {
            if now_ms.saturating_sub(*pushed_ms) < self.max_age_ms && self.bytes <= self.max_bytes {
                break;
            }
            self.bytes -= command.size();
            self.floor = *position;
            self.is_whole = false;
            self.kept.pop_front();
        }
    }

    /// The commands after a position.
    pub(super) fn after(
        &self,
        position: Position,
    ) -> Result<impl Iterator<Item = (Position, &Arc<SessionCommand>)>, Missing> {
        let from = self.kept.partition_point(|(_, at, _)| *at <= position);
        match position >= self.floor {
            true => Ok(self.kept.range(from..).map(|(_, at, command)| (*at, command))),
            false if self.is_whole => Err(Missing::NotRead),
            false => Err(Missing::Dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::command::{Action, Selector};
    use crate::model::id::{Id, NodeId};

    #[test]
    fn kept_for_their_time_and_never_silently_less() {
        let command = || {
            let selector = Selector::User("7".into());
            let (id, from) = (Id::random(), NodeId::random());
            Arc::new(SessionCommand { id, from, selector, namespace: None, action: Action::Disconnect, at: Vec::new() })
        };
        let at = |ms| Position { ms, seq: 0 };
        let mut commands = RecentCommands::new(100, 1000);
        commands.reset(at(5));
        assert!(commands.after(at(4)).is_err(), "commands before it are unknown");
        commands.push(at(10), command(), 1_000);
        commands.push(at(20), command(), 1_050);
        let count = |commands: &RecentCommands, ms| commands.after(at(ms)).ok().map(Iterator::count);
        assert_eq!([5, 10, 20].map(|ms| count(&commands, ms)), [Some(2), Some(1), Some(0)]);
        commands.expire(1_100);
        assert_eq!([9, 10].map(|ms| count(&commands, ms)), [None, Some(1)]);
        for ms in 30..40 {
            commands.push(at(ms), command(), 1_100);
        }
        assert!(commands.bytes <= 1000 && count(&commands, 20).is_none());
    }
}
