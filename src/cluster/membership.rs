//! Who is up: every node writes the time by Redis' clock into one sorted set, once a second.

use crate::cluster::Keys;
use crate::cluster::session_store::{MARK, life};
use crate::model::id::NodeId;
use redis::{Cmd, Value};
use std::collections::HashSet;
use std::time::Duration;

/// Between two beats.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// A node that has missed three beats counts as gone.
pub(super) const LIVE_MS: u64 = 3_500;

/// Nodes that are doubted at once; there are never so many.
const MAX_SUSPECTS: usize = 100;

/// KEYS nodes, seal; ARGV own name, a fresh seal, milliseconds after which nothing is kept of a node, prefix of the
/// hashes of sessions, milliseconds after which a node counts as gone, prefix of the channels, and the field of the mark.
/// Up is who beat lately and listens: the connections of a process that was killed are gone at once. A node is told whether
/// it has missed its beats, and whether its records are of this life of Redis. What is left of nodes that are long gone is
/// removed without making Redis wait for it.
const BEAT_SCRIPT: &str = concat!(
    life!(),
    "local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])) do
  redis.call('UNLINK', ARGV[4] .. node)
  redis.call('ZREM', KEYS[1], node)
end
redis.call('PEXPIRE', ARGV[4] .. ARGV[1], ARGV[3])
local seal = redis.call('GET', KEYS[2])
if not seal then
  seal = ARGV[2]
  redis.call('SET', KEYS[2], seal)
end
local nodes = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local live = {}
for n = 1, #nodes, 2 do
  if now - nodes[n + 1] <= tonumber(ARGV[5]) then
    local listeners = redis.call('PUBSUB', 'NUMSUB', ARGV[6] .. nodes[n])
    if listeners[2] > 0 then live[#live + 1] = nodes[n] end
  end
end
local late = not last or now - last > tonumber(ARGV[5])
local mark = redis.call('HMGET', ARGV[4] .. ARGV[1], ARGV[7])[1]
return {seal, live, late and 1 or 0, mark == life() and 1 or 0}"
);

/// The nodes as of the last beat.
#[derive(Debug, Default)]
pub(super) struct Membership {
    live: HashSet<NodeId>,
    /// Did not answer since: their channel had no listener, or a call was in vain.
    suspects: HashSet<NodeId>,
}

/// What a beat brings back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heartbeat {
    /// The key of the seal.
    pub signer: String,
    /// Nodes that have beaten lately.
    pub live: HashSet<NodeId>,
    /// This node had missed its beats, or this is its first.
    pub late: bool,
    /// Whether its records are those that it wrote, and not what an old replica had of them.
    pub whole: bool,
}

impl Membership {
    /// Takes over what a beat brought.
    pub(super) fn update(&mut self, live: HashSet<NodeId>) {
        // Who hangs is doubted until it beats again.
        self.suspects.retain(|node| !live.contains(node));
        self.live = live;
    }

    /// Doubts a node that has a record or is up, until it beats again.
    pub(super) fn suspect(&mut self, node: NodeId) {
        if self.suspects.len() < MAX_SUSPECTS {
            self.suspects.insert(node);
        }
    }

    /// Those that are doubted.
    pub(super) fn suspects(&self) -> Vec<NodeId> {
        self.suspects.iter().copied().collect()
    }

    /// Whether a node is up, as far as is known.
    pub(super) fn is_live(&self, node: NodeId) -> bool {
        self.live.contains(&node) && !self.suspects.contains(&node)
    }

    /// All nodes that are up.
    pub(super) fn live(&self) -> impl Iterator<Item = NodeId> {
        self.live.iter().copied().filter(|node| !self.suspects.contains(node))
    }
}

/// A beat. What is left of a node is kept for `keep`.
pub(super) fn heartbeat(keys: &Keys, me: NodeId, keep: Duration, fresh_seal: &str) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(BEAT_SCRIPT).arg(2).arg(&keys.nodes).arg(&keys.signer);
    command.arg(me.to_string()).arg(fresh_seal).arg(keep.as_millis() as u64).arg(&keys.sessions);
    command.arg(LIVE_MS).arg(&keys.channels).arg(MARK);
    command
}

/// A node's last words: it counts as gone at once, and its records stay for those who come for them.
pub(super) fn leave(keys: &Keys, me: NodeId) -> Cmd {
    const LEAVE: &str = "local time = redis.call('TIME')
return redis.call('ZADD', KEYS[1], time[1] * 1000 - ARGV[2], ARGV[1])";
    let mut command = redis::cmd("EVAL");
    command.arg(LEAVE).arg(1).arg(&keys.nodes).arg(me.to_string()).arg(LIVE_MS + 1000);
    command
}

/// The answer of [`heartbeat`]; `None` where it is something else.
pub(super) fn read_beat(value: &Value) -> Option<Heartbeat> {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        _ => None,
    };
    let Value::Array(answer) = value else { return None };
    let [signer, Value::Array(live), Value::Int(late), Value::Int(whole)] = &answer[..] else { return None };
    let live = live.iter().map(|node| NodeId::parse(&text(node)?)).collect::<Option<_>>()?;
    Some(Heartbeat { signer: text(signer)?, live, late: *late == 1, whole: *whole == 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_beat_lately_are_up() {
        let (here, late, gone) = (NodeId::random(), NodeId::random(), NodeId::random());
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let live = [here, late].map(|node| bulk(&node.to_string())).to_vec();
        let heartbeat =
            read_beat(&Value::Array(vec![bulk("k"), Value::Array(live), Value::Int(0), Value::Int(1)])).unwrap();
        assert_eq!(
            heartbeat,
            Heartbeat { signer: "k".into(), live: HashSet::from([here, late]), late: false, whole: true }
        );
        let mut membership = Membership::default();
        membership.update(heartbeat.live.clone());
        assert!(membership.is_live(late) && !membership.is_live(gone));
        membership.suspect(late);
        assert_eq!(
            (membership.is_live(late), membership.live().count(), membership.suspects()),
            (false, 1, vec![late])
        );
        membership.update(heartbeat.live);
        assert!(membership.is_live(late), "it has beaten since");
    }
}
