//! Records of sessions in Redis: each node has a hash, with the record of each session under its pid. The hash is kept a
//! recovery window longer than its node lives. Another node takes a record out when the session's client comes to it.
//!
//! A large record is in parts: its head is under the pid, the others under the pid, a colon and their numbers. One command
//! writes all that changes of a record.

use crate::cluster::keys::{DEAD_AFTER_MS, GENERATION_FIELD, Keys, replication_id};
use crate::model::id::{Id, NodeId};
use redis::{Cmd, Value};
use std::time::Duration;

/// Whose a session is: nobody else can resume it. It is written before the record, so that scripts can compare it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner(String);

impl Owner {
    /// A user (the claim as JSON; `None` is anonymous) in a namespace.
    pub fn new(namespace: &str, user: Option<&str>) -> Self {
        // Neither can contain a line break: namespaces are checked, and JSON escapes it.
        Self(format!("{namespace}\n{}\n", user.unwrap_or("")))
    }

    /// From the written form.
    pub fn from_text(text: String) -> Self {
        Self(text)
    }

    /// The written form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is stored of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub owner: Owner,
    /// How often it was taken over: of two records, the one with more moves is right.
    pub moves: u32,
    /// What a resume needs; the session has its form. A record in parts begins with `+`, the number of the last part and
    /// a space; what follows its first line break has no other line break.
    pub text: String,
    /// Parts that are written besides, by their numbers.
    pub parts: Vec<(u8, String)>,
    /// Whether this replaces all that was written before.
    pub starts_over: bool,
    /// Numbers of parts from here on that may be there are without a meaning.
    pub stale_parts: u8,
}

impl Record {
    /// Whether it is not in parts.
    fn is_whole(&self) -> bool {
        self.starts_over && self.parts.is_empty()
    }

    /// Bytes that it is written with, near enough for limits.
    pub fn size(&self) -> usize {
        self.text.len() + self.parts.iter().map(|(_, part)| part.len() + 30).sum::<usize>() + 100
    }
}

/// A record's new content, or its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordChange {
    /// What is to be written.
    Write(Record),
    /// It goes, with so many parts that may be there.
    Remove(u8),
}

impl RecordChange {
    /// Bytes that it is written with, near enough for limits.
    pub fn size(&self) -> usize {
        match self {
            Self::Write(record) => record.size(),
            Self::Remove(_) => 0,
        }
    }

    /// This change, and before it one that is not written yet.
    pub(super) fn after(self, earlier: Self) -> Self {
        match (earlier, self) {
            (Self::Write(earlier), Self::Write(mut record)) => {
                record.stale_parts = record.stale_parts.max(earlier.stale_parts);
                if !record.starts_over {
                    record.starts_over = earlier.starts_over;
                    record.parts.splice(0..0, earlier.parts);
                }
                Self::Write(record)
            }
            (Self::Remove(parts), Self::Write(mut record)) => {
                record.stale_parts = record.stale_parts.max(parts);
                Self::Write(record)
            }
            (Self::Write(earlier), Self::Remove(parts)) => Self::Remove(parts.max(earlier.stale_parts)),
            (Self::Remove(earlier), Self::Remove(parts)) => Self::Remove(parts.max(earlier)),
        }
    }
}

/// Where the record of a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// On no node.
    Nowhere,
    /// On a live node, which knows more than its record says.
    OnNode(NodeId),
    /// Its node is dead. This is the record; no other node can get it any more.
    Taken(String),
    /// Its node sent a heartbeat a moment ago and has not written to this master yet, which may have an old record.
    RetryLater,
}

/// KEYS: nodes. ARGV: own id, prefix of the hashes, prefix of the channels, suspected nodes, ms after which a node counts
/// as dead, then owner and pid of each session.
///
/// One `HMGET` per node, however many sessions are looked for. Only a node that does not subscribe to its channel is dead
/// here; one that only missed its heartbeats is asked first. A record that was written to another master is never taken:
/// its node writes it again, or it is lost. One that is taken moves to the hash of the node that takes it, which may die
/// before it writes the session itself. There its parts are behind it, one a line.
const FIND: &str = concat!(
    replication_id!(),
    "local pids, answers, best, moves, from = {'@'}, {}, {}, {}, {}
for at = 7, #ARGV, 2 do pids[#pids + 1] = ARGV[at] end
local taken, written_to, heartbeats = {}, {}, {}
local function whole(node, pid, record)
  local last = string.match(record, '^%d+\\n%+(%d+) [^\\n]*\\n[^\\n]*$')
  if not last then return record end
  local fields = {}
  for part = 0, tonumber(last) do fields[part + 1] = pid .. ':' .. part end
  local parts = redis.call('HMGET', ARGV[2] .. node, unpack(fields))
  for n, part in ipairs(parts) do parts[n] = part or '' end
  return record .. '\\n' .. table.concat(parts, '\\n')
end
local function take(node, pid)
  taken[node] = taken[node] or {}
  table.insert(taken[node], pid)
end
local nodes = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for at = 1, #nodes, 2 do
  local node = nodes[at]
  if node ~= ARGV[1] then
    local records = redis.pcall('HMGET', ARGV[2] .. node, unpack(pids))
    -- Of another type, which no node writes: without its removal nobody's session would be found.
    if records.err then
      redis.call('UNLINK', ARGV[2] .. node)
      records = {}
    end
    written_to[node], heartbeats[node] = records[1], tonumber(nodes[at + 1])
    for n, record in ipairs(records) do
      local owner = ARGV[2 + 2 * n]
      if n > 1 and record and string.sub(record, 1, #owner) == owner then
        local count = tonumber(string.match(record, '^%d+', #owner + 1)) or 0
        if not best[n] or count > moves[n] then
          if best[n] then take(from[n], pids[n]) end
          best[n], moves[n], from[n] = string.sub(record, #owner + 1), count, node
        else
          take(node, pids[n])
        end
      end
    end
  end
end
local gone = {}
local current, time = replication_id(), redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
for n = 2, #pids do
  local node, answer = from[n], {0, ''}
  if node then
    if gone[node] == nil then
      gone[node] = string.find(ARGV[4], node, 1, true) ~= nil
        or redis.call('PUBSUB', 'NUMSUB', ARGV[3] .. node)[2] == 0
    end
    answer = {1, node}
    if gone[node] and written_to[node] == current then
      take(node, pids[n])
      best[n] = whole(node, pids[n], best[n])
      redis.call('HSET', ARGV[2] .. ARGV[1], pids[n], ARGV[2 + 2 * n] .. best[n])
      answer = {2, best[n]}
    elseif gone[node] then
      answer = math.abs(clock - heartbeats[node]) <= tonumber(ARGV[5]) and {3, ''} or {0, ''}
    end
  end
  answers[n - 1] = answer
end
for node, some in pairs(taken) do redis.call('HDEL', ARGV[2] .. node, unpack(some)) end
return answers"
);

/// Sessions that one script looks for: Lua takes about 8,000 arguments.
pub(super) const MAX_FIND: usize = 1_000;

/// Looks for sessions, with one script.
pub(super) fn find<'a>(
    keys: &Keys,
    me: NodeId,
    suspects: &[NodeId],
    sessions: impl Iterator<Item = (&'a Owner, Id)>,
) -> Cmd {
    let mut command = redis::cmd("EVAL");
    let suspects: Vec<String> = suspects.iter().map(NodeId::to_string).collect();
    command.arg(FIND).arg(1).arg(&keys.nodes).arg(me.to_string());
    command.arg(&keys.sessions).arg(&keys.channels).arg(suspects.join(",")).arg(DEAD_AFTER_MS);
    for (owner, pid) in sessions {
        command.arg(owner.as_str()).arg(pid.to_string());
    }
    command
}

/// The replies of [`find`], in order; `None` where they have another form.
pub(super) fn read_found(value: Value) -> Option<Vec<Found>> {
    let Value::Array(answers) = value else { return None };
    answers.into_iter().map(read_one).collect()
}

fn read_one(value: Value) -> Option<Found> {
    let Value::Array(answer) = value else { return None };
    let [Value::Int(kind), Value::BulkString(bytes)] = &answer[..] else { return None };
    let text = std::str::from_utf8(bytes).ok()?;
    match kind {
        0 => Some(Found::Nowhere),
        1 => NodeId::parse(text).map(Found::OnNode),
        3 => Some(Found::RetryLater),
        // The number of moves stands before the record.
        _ => Some(Found::Taken(text.split_once('\n')?.1.to_owned())),
    }
}

/// A command that writes or removes records of this node.
pub(super) struct RecordCommand {
    pub command: Cmd,
    /// Whether it writes them; else it removes them.
    pub writes: bool,
    pub pids: Vec<Id>,
}

/// Removes all records of this node, before they are written again.
pub(super) fn remove_all(keys: &Keys, me: NodeId) -> Cmd {
    let mut command = redis::cmd("UNLINK");
    command.arg(keys.sessions_of(me));
    command
}

/// Notes that all records of this node were written to this master. They are kept for `lifetime`.
pub(super) fn mark_current(keys: &Keys, me: NodeId, lifetime: Duration) -> Cmd {
    const SET_MARK: &str = concat!(
        replication_id!(),
        "redis.call('HSET', KEYS[1], ARGV[1], replication_id())
return redis.call('PEXPIRE', KEYS[1], ARGV[2])"
    );
    let mut command = redis::cmd("EVAL");
    command.arg(SET_MARK).arg(1).arg(keys.sessions_of(me)).arg(GENERATION_FIELD).arg(lifetime.as_millis() as u64);
    command
}

/// The commands that write and remove records of this node.
pub(super) fn write(keys: &Keys, me: NodeId, changes: &[(Id, RecordChange)]) -> Vec<RecordCommand> {
    const RECORDS_PER_COMMAND: usize = 500;
    let key = keys.sessions_of(me);
    let (mut written, mut removed) = (Vec::new(), Vec::new());
    for (pid, change) in changes {
        match change {
            RecordChange::Write(record) => {
                written.push((*pid, record));
                // Parts of a base that goes on are overwritten in time.
                if record.is_whole() && record.stale_parts > 0 {
                    removed.push((*pid, 0..record.stale_parts, false));
                }
            }
            RecordChange::Remove(parts) => removed.push((*pid, 0..*parts, true)),
        }
    }
    let mut commands = Vec::new();
    for chunk in written.chunks(RECORDS_PER_COMMAND) {
        let mut command = redis::cmd("HSET");
        command.arg(&key);
        for (pid, Record { owner, moves, text, parts, .. }) in chunk {
            command.arg(pid.to_string()).arg(format!("{}{moves}\n{text}", owner.as_str()));
            for (number, part) in parts {
                command.arg(part_field(*pid, *number)).arg(part);
            }
        }
        commands.push(RecordCommand { command, writes: true, pids: chunk.iter().map(|(pid, _)| *pid).collect() });
    }
    for chunk in removed.chunks(RECORDS_PER_COMMAND) {
        let mut command = redis::cmd("HDEL");
        command.arg(&key);
        for (pid, parts, with_head) in chunk {
            with_head.then(|| command.arg(pid.to_string()));
            for number in parts.clone() {
                command.arg(part_field(*pid, number));
            }
        }
        commands.push(RecordCommand { command, writes: false, pids: chunk.iter().map(|(pid, ..)| *pid).collect() });
    }
    commands
}

/// The field of a part of a record, as [`FIND`] names it.
fn part_field(pid: Id, number: u8) -> String {
    format!("{pid}:{number}")
}
