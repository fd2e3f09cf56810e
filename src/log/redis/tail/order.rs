//! Order between lines: an entry that names positions on other lines is delivered after those, and so is what follows it.

use crate::log::Sink;
use crate::log::redis::RedisLog;
use crate::log::redis::entry::Entry;
use crate::log::redis::lines::GivenUp;
use crate::log::redis::tail::page::Page;
use crate::model::after::After;
use crate::model::offset::{Offset, Position};

/// Whether the sink wants an entry for this room, or may when what comes before it on other lines was delivered: a session
/// may join the room by that.
pub(super) fn wants(
    log: &RedisLog,
    sink: &dyn Sink,
    entry: &Entry<'_>,
    (namespace, room): (&str, &str),
    at: Offset,
) -> bool {
    if sink.wants(namespace, room, at) {
        return true;
    }
    let lines = &log.lines;
    if lines.partitions.is_one() {
        return false;
    }
    let after = entry.after();
    // Asked again: it may have been delivered just now.
    !after.is_empty() && (!lines.has_delivered(log.line, &after) || sink.wants(namespace, room, at))
}

/// Begins another page with an entry that other lines have to be read for. It was counted already. Answers what comes
/// before it.
pub(super) fn hold(log: &RedisLog, entry: &Entry<'_>, page: &mut Page) -> After {
    let after = log.after_of(entry);
    if log.lines.has_delivered(log.line, &after) {
        return after;
    }
    let bytes = entry.bytes();
    let mut held = Page { entries: 1, bytes, newest: page.newest, ..Page::after(page.offset) };
    std::mem::swap(page, &mut held);
    let mut before = held;
    before.entries -= 1;
    before.bytes -= bytes;
    page.earlier = std::mem::take(&mut before.earlier);
    if before.entries > 0 {
        before.newest = Some(before.offset.position);
        page.earlier.push(before);
    }
    page.comes_after = after.clone();
    after
}

/// Waits until other lines are delivered up to there, but not for long.
pub(super) async fn wait_for(log: &RedisLog, after: &After, given_up: &mut GivenUp) {
    if !log.lines.wait_for(log.line, after, given_up).await {
        log.metrics.log.out_of_order.inc();
    }
}

/// Waits until other lines have read, or delivered, what comes before a history that ends at `head`: where a session
/// continues on all lines of a node, it must not be ahead on one of them.
pub(super) async fn wait_to_begin(log: &RedisLog, head: Position, comes_after: &After) {
    log.lines.note_read(log.line, head);
    if !log.lines.wait_to_begin(log.line, comes_after).await {
        log.metrics.log.out_of_order.inc();
    }
}
