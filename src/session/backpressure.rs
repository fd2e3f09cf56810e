//! What a connection has only while its client takes less than there is for it (sans-IO).

use crate::budget::Held;
use crate::session::keys::SessionKey;
use crate::session::pace::Pace;
use crate::session::replay::Replay;

/// Most connections have none.
#[derive(Debug, Default)]
pub struct Backpressure {
    /// Bytes in the outbox that the limit for unsent bytes does not count: replayed events, and large answers.
    pub allowed: usize,
    /// Bytes to be written before the client is read further: answers to what it sent are among them.
    pub read_after: usize,
    /// How far replays run ahead of a WebSocket client.
    pub pace: Pace,
    /// What its sessions have still to get. They take turns.
    replays: Vec<(SessionKey, Box<Replay>)>,
    /// What the node's memory budget counts for each of them.
    held: Vec<(SessionKey, Held)>,
}

impl Backpressure {
    /// The session continues behind this cursor.
    pub fn begin(&mut self, session: SessionKey, replay: Replay, held: Held) {
        self.replays.push((session, Box::new(replay)));
        self.held.push((session, held));
    }

    /// Whether the session is behind.
    pub fn is_replaying(&self, session: SessionKey) -> bool {
        self.replays.iter().any(|(key, _)| *key == session)
    }

    /// The cursor of a session.
    pub fn replay(&self, session: SessionKey) -> Option<&Replay> {
        self.replays.iter().find(|(key, _)| *key == session).map(|(_, replay)| &**replay)
    }

    /// The cursor of a session.
    pub fn replay_mut(&mut self, session: SessionKey) -> Option<&mut Replay> {
        self.replays.iter_mut().find(|(key, _)| *key == session).map(|(_, replay)| &mut **replay)
    }

    /// Takes the cursor whose turn it is. If it is not over, the caller gives it back.
    pub fn take(&mut self) -> Option<(SessionKey, Box<Replay>)> {
        (!self.replays.is_empty()).then(|| self.replays.remove(0))
    }

    /// Gives back a cursor that was taken.
    pub fn give_back(&mut self, session: SessionKey, replay: Box<Replay>) {
        self.replays.push((session, replay));
    }

    /// Forgets the cursor of a session that ends.
    pub fn end(&mut self, session: SessionKey) {
        self.replays.retain(|(key, _)| *key != session);
        self.held.retain(|(key, _)| *key != session);
    }

    /// Forgets all cursors.
    pub fn end_all(&mut self) {
        self.replays.clear();
        self.held.clear();
    }

    /// Whether a session is behind.
    pub fn has_replays(&self) -> bool {
        !self.replays.is_empty()
    }
}
