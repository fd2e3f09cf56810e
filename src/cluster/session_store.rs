//! Records of sessions in Redis: each node has a hash, with the record of each session under its pid. The hash is kept a
//! recovery window longer than its node lives. Another node takes a record out when the session's client comes to it.

use crate::cluster::keys::{DEAD_AFTER_MS, GENERATION_FIELD, Keys, replication_id};
use crate::model::id::{Id, NodeId};
use redis::{Cmd, Value};
use std::time::Duration;

/// Whose a session is: nobody else can resume it. It is written before the record, so that scripts can compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// What a resume needs; the session has its form.
    pub text: String,
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
/// before it writes the session itself.
const FIND: &str = concat!(
    replication_id!(),
    "local pids, answers, best, moves, from = {'@'}, {}, {}, {}, {}
for at = 7, #ARGV, 2 do pids[#pids + 1] = ARGV[at] end
local taken, written_to, heartbeats = {}, {}, {}
local function take(node, pid)
  taken[node] = taken[node] or {}
  table.insert(taken[node], pid)
end
local nodes = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for at = 1, #nodes, 2 do
  local node = nodes[at]
  if node ~= ARGV[1] then
    local records = redis.call('HMGET', ARGV[2] .. node, unpack(pids))
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
pub(super) fn write(keys: &Keys, me: NodeId, changes: &[(Id, Option<Record>)]) -> Vec<RecordCommand> {
    const RECORDS_PER_COMMAND: usize = 500;
    let key = keys.sessions_of(me);
    let written: Vec<_> = changes.iter().filter_map(|(pid, record)| Some((pid, record.as_ref()?))).collect();
    let removed: Vec<_> = changes.iter().filter(|(_, record)| record.is_none()).collect();
    let mut commands = Vec::new();
    for chunk in written.chunks(RECORDS_PER_COMMAND) {
        let mut command = redis::cmd("HSET");
        command.arg(&key);
        for (pid, Record { owner, moves, text }) in chunk {
            command.arg(pid.to_string()).arg(format!("{}{moves}\n{text}", owner.as_str()));
        }
        commands.push(RecordCommand { command, writes: true, pids: chunk.iter().map(|(pid, _)| **pid).collect() });
    }
    for chunk in removed.chunks(RECORDS_PER_COMMAND) {
        let mut command = redis::cmd("HDEL");
        command.arg(&key);
        for (pid, _) in chunk {
            command.arg(pid.to_string());
        }
        commands.push(RecordCommand { command, writes: false, pids: chunk.iter().map(|(pid, _)| *pid).collect() });
    }
    commands
}
