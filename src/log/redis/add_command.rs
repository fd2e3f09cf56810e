//! The commands that put a draft into the log: `XADD` into the stream or `PUBLISH` for a volatile event, by a script where it
//! has an idempotency id.

use crate::log::ID_LIFETIME;
use crate::log::redis::{RedisLog, entry, volatile};
use crate::model::draft::Draft;
use crate::redis::command::Arguments;

/// Bytes of a command besides the texts of its draft.
pub(super) const COMMAND_OVERHEAD: usize = 400;

/// Bytes of a draft's command, about.
pub(super) fn draft_bytes(draft: &Draft) -> usize {
    let rooms: usize = draft.rooms.iter().chain(&draft.except).map(|room| room.len() + 4).sum();
    draft.args.len() + draft.event.len() + rooms + COMMAND_OVERHEAD
}

/// When a command is built, by Redis' clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times<'a> {
    /// When the node accepted the draft, Unix microseconds.
    pub accepted_us: u64,
    /// The entry is void, and the script does nothing, after this (Unix milliseconds). `None` where something else keeps the
    /// command from being carried out later.
    pub until_ms: Option<u64>,
    /// Entries older than this are trimmed (Unix milliseconds); 0 for none.
    pub trim_before_ms: u64,
    /// What the entry comes after on other lines.
    pub after: Option<&'a str>,
}

/// Writes the command of a draft.
pub(super) fn write(log: &RedisLog, draft: &Draft, times: Times<'_>, command: &mut impl Arguments) {
    match &draft.id {
        Some(id) => write_once(log, id, draft, times, command),
        None => {
            command.text(if draft.volatile { "PUBLISH" } else { "XADD" });
            write_after_name(log, draft, times, command);
        }
    }
}

/// Everything after the command's name: the key or channel, then what there is to say.
pub(super) fn write_after_name(log: &RedisLog, draft: &Draft, times: Times<'_>, command: &mut impl Arguments) {
    command.text(if draft.volatile { &log.keys.volatile } else { &log.keys.events });
    write_content(log, draft, times, command);
}

/// The script decides by the deadline itself, so that an id never belongs to an entry that is void.
fn write_once(log: &RedisLog, id: &str, draft: &Draft, times: Times<'_>, command: &mut impl Arguments) {
    let scripts = &log.transactions;
    command.text("EVALSHA");
    if draft.volatile {
        command.text(scripts.publish_once());
        command.number(1);
    } else {
        command.text(scripts.add_once());
        command.number(2);
        command.text(&log.keys.events);
    }
    command.text(&log.keys.id(id));
    command.number(ID_LIFETIME.as_millis() as u64);
    command.number(times.until_ms.unwrap_or(u64::MAX));
    if draft.volatile {
        command.text(&log.keys.volatile);
    }
    write_content(log, draft, Times { until_ms: None, ..times }, command);
}

fn write_content(log: &RedisLog, draft: &Draft, times: Times<'_>, command: &mut impl Arguments) {
    if draft.volatile {
        command.text(&volatile::encode(draft, times.accepted_us, log.announced(), times.until_ms));
        return;
    }
    write_trim(times.trim_before_ms, command);
    entry::encode(draft, times.accepted_us, times.until_ms, command);
    entry::encode_after(times.after, command);
}

/// Writes the arguments of `XADD` between the stream and the fields.
pub(super) fn write_trim(trim_before_ms: u64, command: &mut impl Arguments) {
    if trim_before_ms > 0 {
        command.text("MINID");
        command.text("~");
        command.number(trim_before_ms);
    }
    command.text("*");
}
