//! Which rules of the product are left out in a run, and what a run is like.

use crate::habits::Act;

/// Rules that a run breaks, to show that the oracle notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// A resume from before the window's floor gets what is left.
    pub ignore_floor: bool,
    /// A resume does not wait until the node has reached the offset that the client has seen.
    pub ignore_future: bool,
    /// Joins and leaves are answered before the session's record is written.
    pub answer_before_record: bool,
    /// A session is parked at the position where the log starts anew.
    pub park_after_reset: bool,
    /// How many of 1000 messages between nodes are lost; a live node may then count as dead.
    pub messages_lost: u32,
    /// How many of 1000 opportunities to write records are not used.
    pub records_late: u32,
    /// In how many of 1000 steps every connection to the store breaks; perhaps a lagging replica is promoted or a node
    /// dies.
    pub failovers: u32,
    /// Then a node dies each time, or comes back, and a replica is promoted that lags far behind.
    pub fails_together: bool,
    /// This happens more often than it would, so that what needs it is seen.
    pub often: Option<Act>,
    /// Faults are rare, and what there is to do is soon done.
    pub calm: bool,
    /// See [`crate::habits::Habits::long_replays`].
    pub long_replays: bool,
    /// Another program always trims the whole log.
    pub trimmed_short: bool,
    /// A record is used although another master may have had a newer one.
    pub trust_old_records: bool,
    /// Packets received before the CONNECT reply are kept for the next one, as in the stock client.
    pub stock_buffer: bool,
    /// Live events overtake what a session has still to get.
    pub live_overtakes: bool,
    /// A session that is behind is parked as if it had everything.
    pub parks_ahead: bool,
    /// A `/ws` client that left a room still gets what it had before.
    pub leaves_softly: bool,
    /// The log has partitions.
    pub partitions: bool,
    /// A join or leave is noted without the position in the room's partition.
    pub changes_on_control_only: bool,
    /// What a client gets names only the line that it came on.
    pub places_of_one_line: bool,
    /// Partitions that a session has left are not named any more.
    pub forgets_left_lines: bool,
    /// A line begins before others have read what its history comes after.
    pub begins_early: bool,
    /// Nobody is notified that a partition lost entries.
    pub tells_nobody_of_partitions: bool,
    /// Commands do not say where they were issued in partitions, and count from their start.
    pub commands_from_nowhere: bool,
    /// Events that except rooms of another partition are in that of their rooms.
    pub excepts_anywhere: bool,
    /// Rooms of a join command are not wanted before a session is in them.
    pub foresees_nothing: bool,
    /// A session joins before its shard has passed what was left out of the room.
    pub joins_early: bool,
    /// A session goes live before its shard has come to where the log was read again.
    pub lives_early: bool,
    /// A pass over the log that breaks off counts as complete.
    pub trusts_partial: bool,
    /// What a pass has read does not get into the window.
    pub fills_blindly: bool,
    /// A tail does not wait for what an entry comes after.
    pub tails_never_wait: bool,
    /// A replay does not wait for what an event comes after.
    pub replays_never_wait: bool,
    /// A replay does not look at when events were accepted.
    pub replays_have_no_clock: bool,
    /// The offset of a publish says where other lines are some time later.
    pub late_answers: bool,
}
