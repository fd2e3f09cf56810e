//! Sessions in Redis: each node has a hash of its own, in which a record stands under the session's pid. It lives as long
//! as its node, and a recovery window longer; another node takes a record out when the client comes to it.

use crate::cluster::Keys;
use crate::cluster::membership::LIVE_MS;
use crate::model::id::{Id, NodeId};
use redis::{Cmd, Value};
use std::time::Duration;

/// Whose a session is: nobody else gets it. Written before its record, so that Redis can compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(String);

impl Owner {
    /// Of a user (their claim as JSON; `None` is anonymous) in a namespace.
    pub fn new(namespace: &str, user: Option<&str>) -> Self {
        // Neither can hold a line break: names of namespaces are checked, and JSON escapes it.
        Self(format!("{namespace}\n{}\n", user.unwrap_or("")))
    }

    /// From its written form.
    pub fn from_text(text: String) -> Self {
        Self(text)
    }

    /// The written form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is kept of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub owner: Owner,
    /// How often it was taken over: of two records, that of the node which had it last is right.
    pub moves: u32,
    /// What a resume needs; its form is the session's business.
    pub text: String,
}

/// Where the record of a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// On no node.
    Nowhere,
    /// On a node that is up, which knows more than its record.
    At(NodeId),
    /// Its node is gone. The record is taken out: no other node gets it.
    Taken(String),
    /// Its node beat a moment ago and has not yet come to this Redis, whose copy of the record may be an old one.
    Later,
}

/// Lua: the life of this Redis as a master. A failover, a restart and a loss of its data each begin another one, and
/// replicas do not have it. Where that may not be asked it is always the same.
macro_rules! life {
    () => {
        "local function life()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or '-'
end
"
    };
}
pub(super) use life;

/// The field of a node's hash that names the life in which it has written all of its records. In another one they may
/// be as an old replica had them.
pub(super) const MARK: &str = "@";

/// KEYS nodes; ARGV own name, prefix of the hashes, prefix of the channels, names that are believed gone, milliseconds
/// after which a node counts as gone, then owner and pid of each session that is looked for. One `HMGET` a node, however
/// many are looked for. Gone is who does not listen; who only missed its beats is asked first. A record out of another
/// life of this Redis is never taken: its node writes it anew, or it is lost.
const FIND: &str = concat!(
    life!(),
    "local pids, answers, best, moves, from = {'@'}, {}, {}, {}, {}
for at = 7, #ARGV, 2 do pids[#pids + 1] = ARGV[at] end
local taken, marks, beats = {}, {}, {}
local function take(node, pid)
  taken[node] = taken[node] or {}
  table.insert(taken[node], pid)
end
local nodes = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for at = 1, #nodes, 2 do
  local node = nodes[at]
  if node ~= ARGV[1] then
    local records = redis.call('HMGET', ARGV[2] .. node, unpack(pids))
    marks[node], beats[node] = records[1], tonumber(nodes[at + 1])
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
local now, time = life(), redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
for n = 2, #pids do
  local node, answer = from[n], {0, ''}
  if node then
    if gone[node] == nil then
      gone[node] = string.find(ARGV[4], node, 1, true) ~= nil
        or redis.call('PUBSUB', 'NUMSUB', ARGV[3] .. node)[2] == 0
    end
    answer = {1, node}
    if gone[node] and marks[node] == now then
      take(node, pids[n])
      answer = {2, best[n]}
    elseif gone[node] then
      answer = math.abs(clock - beats[node]) <= tonumber(ARGV[5]) and {3, ''} or {0, ''}
    end
  end
  answers[n - 1] = answer
end
for node, some in pairs(taken) do redis.call('HDEL', ARGV[2] .. node, unpack(some)) end
return answers"
);

/// Sessions that one script looks for: Lua takes some 8,000 values as arguments.
pub(super) const MAX_SOUGHT: usize = 1_000;

/// Looks for sessions, all in one go.
pub(super) fn find<'a>(
    keys: &Keys,
    me: NodeId,
    suspects: &[NodeId],
    sought: impl Iterator<Item = (&'a Owner, Id)>,
) -> Cmd {
    let mut command = redis::cmd("EVAL");
    let gone: Vec<String> = suspects.iter().map(NodeId::to_string).collect();
    command.arg(FIND).arg(1).arg(&keys.nodes).arg(me.to_string());
    command.arg(&keys.sessions).arg(&keys.channels).arg(gone.join(",")).arg(LIVE_MS);
    for (owner, pid) in sought {
        command.arg(owner.as_str()).arg(pid.to_string());
    }
    command
}

/// The answers of [`find`], in order; `None` where they are something else.
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
        1 => NodeId::parse(text).map(Found::At),
        3 => Some(Found::Later),
        // The number of moves stands before the record.
        _ => Some(Found::Taken(text.split_once('\n')?.1.to_owned())),
    }
}

/// A command that writes or removes records of this node.
pub(super) struct Keep {
    /// It.
    pub command: Cmd,
    /// Whether it writes them.
    pub writes: bool,
    /// Of these sessions.
    pub pids: Vec<Id>,
}

/// Forgets all records of this node; they are about to be written anew.
pub(super) fn forget(keys: &Keys, me: NodeId) -> Cmd {
    let mut command = redis::cmd("UNLINK");
    command.arg(keys.sessions_of(me));
    command
}

/// Says that all records of this node were written in the present life of this Redis. They live for `keep`.
pub(super) fn mark(keys: &Keys, me: NodeId, keep: Duration) -> Cmd {
    const SET_MARK: &str = concat!(
        life!(),
        "redis.call('HSET', KEYS[1], ARGV[1], life())
return redis.call('PEXPIRE', KEYS[1], ARGV[2])"
    );
    let mut command = redis::cmd("EVAL");
    command.arg(SET_MARK).arg(1).arg(keys.sessions_of(me)).arg(MARK).arg(keep.as_millis() as u64);
    command
}

/// Commands that write and remove records of this node.
pub(super) fn keep(keys: &Keys, me: NodeId, changes: &[(Id, Option<Record>)]) -> Vec<Keep> {
    const AT_ONCE: usize = 500;
    let key = keys.sessions_of(me);
    let kept: Vec<_> = changes.iter().filter_map(|(pid, record)| Some((pid, record.as_ref()?))).collect();
    let gone: Vec<_> = changes.iter().filter(|(_, record)| record.is_none()).collect();
    let mut commands = Vec::new();
    for some in kept.chunks(AT_ONCE) {
        let mut command = redis::cmd("HSET");
        command.arg(&key);
        for (pid, Record { owner, moves, text }) in some {
            command.arg(pid.to_string()).arg(format!("{}{moves}\n{text}", owner.as_str()));
        }
        commands.push(Keep { command, writes: true, pids: some.iter().map(|(pid, _)| **pid).collect() });
    }
    for some in gone.chunks(AT_ONCE) {
        let mut command = redis::cmd("HDEL");
        command.arg(&key);
        for (pid, _) in some {
            command.arg(pid.to_string());
        }
        commands.push(Keep { command, writes: false, pids: some.iter().map(|(pid, _)| *pid).collect() });
    }
    commands
}
