//! The last entries that publishers got acknowledged. After a failover the new master may lack one that no tail has read.

use crate::model::offset::Position;
use parking_lot::Mutex;

/// The connection of the control thread. The shards' follow.
pub(super) const CONTROL: usize = 0;
/// Closed connections whose last acknowledged entry is not verified yet, besides one for each connection. The tail verifies
/// them at least once a second.
const MAX_UNVERIFIED: usize = 16;

/// Of each connection that appends.
pub(super) struct AcknowledgedPositions {
    /// The last one on each present connection.
    current: Box<[Mutex<Option<Position>>]>,
    /// The last ones on closed connections, until the tail has verified that they are in the stream. Each connection may
    /// have been to another master, so each is verified.
    unverified: Mutex<Vec<Position>>,
}

impl AcknowledgedPositions {
    pub(super) fn new(connections: usize) -> Self {
        Self { current: (0..connections).map(|_| Mutex::default()).collect(), unverified: Mutex::default() }
    }

    pub(super) fn note(&self, connection: usize, position: Position) {
        let mut current = self.current[connection].lock();
        // A repeated idempotency id has an old position.
        *current = current.max(Some(position));
    }

    /// The connection is closed; the next one may be to another master.
    pub(super) fn disconnected(&self, connection: usize) {
        let Some(last) = self.current[connection].lock().take() else { return };
        let mut unverified = self.unverified.lock();
        if unverified.len() < MAX_UNVERIFIED + self.current.len() {
            unverified.push(last);
        }
    }

    pub(super) fn unverified(&self) -> Vec<Position> {
        self.unverified.lock().clone()
    }

    /// The tail has looked for the oldest `count` of them.
    pub(super) fn verified(&self, count: usize) {
        self.unverified.lock().drain(..count);
    }

    /// The log has a discontinuity, of which all clients hear.
    pub(super) fn forget(&self) {
        self.current.iter().for_each(|current| *current.lock() = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_each_closed_connection_is_verified() {
        let at = |ms| Position { ms, seq: 0 };
        let acknowledged = AcknowledgedPositions::new(3);
        acknowledged.note(CONTROL, at(1));
        acknowledged.note(1, at(3));
        acknowledged.note(1, at(2));
        acknowledged.disconnected(1);
        acknowledged.disconnected(2);
        assert_eq!(acknowledged.unverified(), [at(3)]);
        acknowledged.disconnected(CONTROL);
        acknowledged.verified(1);
        assert_eq!(acknowledged.unverified(), [at(1)]);
        acknowledged.note(2, at(5));
        acknowledged.forget();
        acknowledged.disconnected(2);
        assert_eq!(acknowledged.unverified(), [at(1)]);
    }
}
