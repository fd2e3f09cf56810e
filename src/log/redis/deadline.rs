//! Until when an append counts. Redis may carry out a command long after it was sent: a process that was stopped reads what
//! waits in its sockets once it goes on, and by then the publisher has its 503.
//!
//! An entry of a node carries `until`, milliseconds of Redis' clock. Its id says, by the same clock, when Redis added it.
//! Where the id is later, the entry is void: readers skip it, and its appender, whose reply is that id, does not
//! acknowledge it. Both compare the same two numbers, so they always agree, however wrong any clock is
//! (docs/decisions/20-late-appends-are-void.md).

use crate::model::offset::Position;

/// Tenths of `redis.timeout`: an append that was not sent in the first eight is not sent, Redis does not run it after the
/// ninth, and the last is for the reply.
pub(super) const TENTHS_TO_SEND: u32 = 8;
pub(super) const TENTHS_TO_RUN: u32 = 9;

/// The field with the deadline.
pub(super) const FIELD: &str = "until";

/// Whether an entry with this id came after its deadline.
pub(super) fn is_void(position: Position, until_ms: u64) -> bool {
    position.ms > until_ms
}

/// Whether an entry with these fields is void.
pub(super) fn is_void_entry(position: Position, fields: &[(&[u8], &[u8])]) -> bool {
    // Nodes write it after most other fields.
    let until = fields.iter().rev().find(|(name, _)| *name == FIELD.as_bytes());
    until.and_then(|(_, until)| read(until)).is_some_and(|until| is_void(position, until)) && is_of_node(fields)
}

/// Another publisher's `until` is an unknown field.
fn is_of_node(fields: &[(&[u8], &[u8])]) -> bool {
    let is_command = fields.first().is_some_and(|(name, _)| matches!(*name, b"order" | b"probe"));
    is_command || fields.iter().any(|(name, _)| *name == b"t")
}

fn read(until: &[u8]) -> Option<u64> {
    std::str::from_utf8(until).ok()?.parse().ok()
}
