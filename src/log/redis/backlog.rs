//! What waits in this node for Redis, in sum over all its connections that append.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes and commands that may wait. Above it appends get [`crate::log::AppendError::Overloaded`].
pub(super) const MAX_BYTES: usize = 64 << 20;
pub(super) const MAX_COMMANDS: usize = 200_000;

/// Counts what waits.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: AtomicUsize,
    commands: AtomicUsize,
}

impl Backlog {
    /// Counts an append, unless there is no room for it. One always fits.
    pub(super) fn try_add(&self, bytes: usize, commands: usize) -> bool {
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let before = self.commands.fetch_add(commands, Ordering::Relaxed);
        let fits = bytes_before + bytes <= MAX_BYTES && before + commands <= MAX_COMMANDS;
        if fits || before == 0 {
            return true;
        }
        self.remove(bytes, commands);
        false
    }

    /// An append that was counted waits no longer.
    pub(super) fn remove(&self, bytes: usize, commands: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.commands.fetch_sub(commands, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_is_bounded_but_one_append_always_fits() {
        let backlog = Backlog::default();
        assert!(backlog.try_add(MAX_BYTES * 2, 1));
        assert!(!backlog.try_add(1, 1));
        backlog.remove(MAX_BYTES * 2, 1);
        assert!(backlog.try_add(1, MAX_COMMANDS) && !backlog.try_add(1, 1));
        backlog.remove(1, MAX_COMMANDS);
        assert!(backlog.try_add(MAX_BYTES - 1, 1) && backlog.try_add(1, 1) && !backlog.try_add(1, 1));
    }
}
