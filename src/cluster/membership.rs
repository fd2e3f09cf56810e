//! Which nodes are up: every node writes the time by Redis' clock into one sorted set, once a second.

use crate::cluster::keys::{DEAD_AFTER_MS, GENERATION_FIELD, Keys, replication_id};
use crate::cluster::rpc::signer::KeyTexts;
use crate::log::redis::layout::layout_text;
use crate::model::id::{Id, NodeId};
use crate::model::partition::Partitions;
use crate::redis::reply::text;
use redis::{Cmd, Value};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Between two heartbeats.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Suspected nodes are passed to a script; there are never so many at once. Above it the oldest suspicion is dropped.
const MAX_SUSPECTS: usize = 100;

/// How long a new signing key is known to all nodes before they sign with it: until each has sent a heartbeat.
const KEY_LEAD_MS: u64 = 4_000;
/// How long the signing key before the present one verifies messages.
const KEY_OVERLAP_MS: u64 = 60_000;
/// What this release writes as its features: it makes and checks tagged ids, reads messages in pieces and knows several
/// signing keys. The log's partitions follow where there are several.
const FEATURES: &str = "1";

/// What this node writes as its features.
pub(super) fn features(partitions: Partitions) -> String {
    match partitions.is_one() {
        true => FEATURES.to_owned(),
        false => format!("{FEATURES} {}", layout_text(partitions)),
    }
}

/// KEYS: nodes, signing key, key ring, features. ARGV: own id, a fresh signing key, ms for which a dead node's data is
/// kept, prefix of the session hashes, ms after which a node counts as dead, prefix of the channels, field of the
/// replication id, ms after which the signing key is renewed, ms before a new one signs, ms for which the old one
/// verifies, a fresh key of ids, own features.
///
/// A node is live if its last heartbeat is recent and it subscribes to its channel: the connections of a killed process
/// close at once. Returns the signing key, the live nodes, whether this node had missed its heartbeats, whether its
/// records were written to this master, the key of ids, the next and the last signing key, the live nodes of the previous
/// release, and the time. Data of nodes that died long ago is unlinked, which does not block Redis.
///
/// Nodes of the previous release know only the present signing key, so it is not renewed while one of them is live. A time
/// in the future is of another master's clock, and counts as long ago.
const HEARTBEAT: &str = concat!(
    replication_id!(),
    "local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if redis.call('HGET', KEYS[4], ARGV[1]) ~= ARGV[12] then redis.call('HSET', KEYS[4], ARGV[1], ARGV[12]) end
redis.call('PEXPIRE', KEYS[4], ARGV[3])
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])) do
  redis.call('UNLINK', ARGV[4] .. node)
  redis.call('HDEL', KEYS[4], node)
  redis.call('ZREM', KEYS[1], node)
end
redis.call('PEXPIRE', ARGV[4] .. ARGV[1], ARGV[3])
local nodes = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local live, legacy = {}, {}
for n = 1, #nodes, 2 do
  if now - nodes[n + 1] <= tonumber(ARGV[5]) then
    local listeners = redis.call('PUBSUB', 'NUMSUB', ARGV[6] .. nodes[n])
    if listeners[2] > 0 then
      live[#live + 1] = nodes[n]
      if not redis.call('HGET', KEYS[4], nodes[n]) then legacy[#legacy + 1] = nodes[n] end
    end
  end
end
local key = redis.call('GET', KEYS[2])
if not key then
  key = ARGV[2]
  redis.call('SET', KEYS[2], key)
end
local ring, fields = {}, redis.call('HGETALL', KEYS[3])
for n = 1, #fields, 2 do ring[fields[n]] = fields[n + 1] end
local function age(since) return math.abs(now - (tonumber(ring[since]) or 0)) end
local function set(...) redis.call('HSET', KEYS[3], ...) end
if not ring.ids then
  ring.ids = ARGV[11]
  set('ids', ring.ids)
end
if not ring.since then
  set('since', now)
elseif ring.next and age('next_since') >= tonumber(ARGV[9]) then
  set('last', key, 'last_since', now, 'since', now)
  redis.call('HDEL', KEYS[3], 'next', 'next_since')
  ring.last, ring.last_since, key, ring.next = key, now, ring.next, nil
  redis.call('SET', KEYS[2], key)
elseif not ring.next and #legacy == 0 and age('since') >= tonumber(ARGV[8]) then
  ring.next = ARGV[2]
  set('next', ring.next, 'next_since', now)
end
if ring.last and age('last_since') >= tonumber(ARGV[10]) then
  redis.call('HDEL', KEYS[3], 'last', 'last_since')
  ring.last = nil
end
local late = not last or now - last > tonumber(ARGV[5])
local written_to = redis.call('HMGET', ARGV[4] .. ARGV[1], ARGV[7])[1]
return {key, live, late and 1 or 0, written_to == replication_id() and 1 or 0, ring.ids, ring.next or '', ring.last or '', legacy, now}"
);

/// KEYS: nodes, signing key, key ring, features, own records. Removes those of another type, which no node can have written:
/// the next heartbeat makes them again. Returns how many there were.
const REPAIR: &str = "local removed = 0
for n, read in ipairs({{'ZSCORE', '-'}, {'GET'}, {'HGET', '-'}, {'HGET', '-'}, {'HGET', '-'}}) do
  local answer = redis.pcall(read[1], KEYS[n], unpack(read, 2))
  if type(answer) == 'table' and answer.err and string.find(answer.err, 'WRONGTYPE', 1, true) then
    removed = removed + redis.call('UNLINK', KEYS[n])
  end
end
return removed";

/// KEYS: nodes. ARGV: own id, ms by which the heartbeat is dated back.
const LEAVE: &str = "local time = redis.call('TIME')
return redis.call('ZADD', KEYS[1], time[1] * 1000 - ARGV[2], ARGV[1])";

/// The nodes as of the last heartbeat. Sans-IO.
#[derive(Debug)]
pub(super) struct Membership {
    live: HashSet<NodeId>,
    /// Those of the previous release.
    legacy: HashSet<NodeId>,
    /// Nodes that did not respond since, and when that was noticed.
    suspects: HashMap<NodeId, u64>,
    /// After this a dead node's data is gone from Redis, and with it the reason to suspect it.
    forget_after_ms: u64,
}

/// What a heartbeat returns.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heartbeat {
    pub keys: KeyTexts,
    /// The key of ids.
    pub id_key: String,
    pub live: HashSet<NodeId>,
    /// Those of the live nodes that are of the previous release.
    pub legacy: HashSet<NodeId>,
    /// Unix milliseconds by the clock of Redis.
    pub redis_ms: u64,
    /// This node had missed its heartbeats, or this is its first.
    pub was_late: bool,
    /// Whether this node wrote all of its records to this master. If not, Redis may have what an old replica had of them.
    pub records_are_current: bool,
}

impl Membership {
    /// `record_lifetime`: how long Redis keeps a dead node's data.
    pub(super) fn new(record_lifetime: Duration) -> Self {
        let forget_after_ms = u64::try_from(record_lifetime.as_millis()).unwrap_or(u64::MAX);
        Self { live: HashSet::new(), legacy: HashSet::new(), suspects: HashMap::new(), forget_after_ms }
    }

    /// Takes over the result of a heartbeat.
    pub(super) fn update(&mut self, live: HashSet<NodeId>, legacy: HashSet<NodeId>, now_ms: u64) {
        // A node that hangs stays suspected until it sends a heartbeat again, or nothing is left of it.
        let forget_after_ms = self.forget_after_ms;
        self.suspects.retain(|node, since| !live.contains(node) && now_ms.saturating_sub(*since) < forget_after_ms);
        self.live = live;
        self.legacy = legacy;
    }

    /// Whether a node is live and of the previous release.
    pub(super) fn is_legacy(&self, node: NodeId) -> bool {
        self.legacy.contains(&node)
    }

    /// Counts a node as dead until its next heartbeat: it did not respond.
    pub(super) fn suspect(&mut self, node: NodeId, now_ms: u64) {
        self.suspects.insert(node, now_ms);
        if self.suspects.len() > MAX_SUSPECTS
            && let Some(oldest) = self.suspects.iter().min_by_key(|(_, since)| **since).map(|(node, _)| *node)
        {
            self.suspects.remove(&oldest);
        }
    }

    pub(super) fn suspects(&self) -> Vec<NodeId> {
        self.suspects.keys().copied().collect()
    }

    /// Whether a node is live, as far as is known.
    pub(super) fn is_live(&self, node: NodeId) -> bool {
        self.live.contains(&node) && !self.suspects.contains_key(&node)
    }

    pub(super) fn live(&self) -> impl Iterator<Item = NodeId> {
        self.live.iter().copied().filter(|node| !self.suspects.contains_key(node))
    }
}

/// Sends a heartbeat. A dead node's data is kept for `record_lifetime`, and the signing key is renewed after
/// `key_lifetime`.
pub(super) fn heartbeat(
    keys: &Keys,
    me: NodeId,
    record_lifetime: Duration,
    key_lifetime: Duration,
    features: &str,
) -> Cmd {
    let fresh_key = || format!("{}{}", Id::random(), Id::random());
    let mut command = redis::cmd("EVAL");
    command.arg(HEARTBEAT).arg(4).arg(&keys.nodes).arg(&keys.signing_key).arg(&keys.key_ring).arg(&keys.features);
    command.arg(me.to_string()).arg(fresh_key()).arg(record_lifetime.as_millis() as u64).arg(&keys.sessions);
    command.arg(DEAD_AFTER_MS).arg(&keys.channels).arg(GENERATION_FIELD);
    command.arg(key_lifetime.as_millis() as u64).arg(KEY_LEAD_MS).arg(KEY_OVERLAP_MS).arg(fresh_key()).arg(features);
    command
}

/// Removes keys of the cluster that have another type.
pub(super) fn repair(keys: &Keys, me: NodeId) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(REPAIR).arg(5).arg(&keys.nodes).arg(&keys.signing_key).arg(&keys.key_ring).arg(&keys.features);
    command.arg(keys.sessions_of(me));
    command
}

/// Says that this node stops: it counts as dead at once, and its records stay for the nodes its clients move to.
pub(super) fn leave(keys: &Keys, me: NodeId) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(LEAVE).arg(1).arg(&keys.nodes).arg(me.to_string()).arg(DEAD_AFTER_MS + 1000);
    command
}

/// The reply to [`heartbeat`]; `None` where it has another form.
pub(super) fn read_heartbeat(reply: &Value) -> Option<Heartbeat> {
    let Value::Array(reply) = reply else { return None };
    let [key, live, Value::Int(late), Value::Int(current), id_key, next, last, legacy, Value::Int(now)] = &reply[..]
    else {
        return None;
    };
    let other = |key: &Value| Some(text(key)?.to_owned()).map(|key| Some(key).filter(|key| !key.is_empty()));
    Some(Heartbeat {
        keys: KeyTexts { present: text(key)?.to_owned(), next: other(next)?, last: other(last)? },
        id_key: text(id_key)?.to_owned(),
        live: nodes(live)?,
        legacy: nodes(legacy)?,
        redis_ms: u64::try_from(*now).ok()?,
        was_late: *late == 1,
        records_are_current: *current == 1,
    })
}

fn nodes(names: &Value) -> Option<HashSet<NodeId>> {
    let Value::Array(names) = names else { return None };
    names.iter().map(|node| NodeId::parse(text(node)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(130);

    #[test]
    fn a_heartbeats_reply_is_read() {
        let nodes = [NodeId::random(), NodeId::random()];
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let live = nodes.map(|node| bulk(&node.to_string())).to_vec();
        let legacy = vec![live[1].clone()];
        let flags = [Value::Int(0), Value::Int(1), bulk("s"), bulk(""), bulk("l"), Value::Array(legacy), Value::Int(7)];
        let reply = [bulk("k"), Value::Array(live)].into_iter().chain(flags).collect();
        let reply = Value::Array(reply);
        let expected = Heartbeat {
            keys: KeyTexts { present: "k".into(), next: None, last: Some("l".into()) },
            id_key: "s".into(),
            live: HashSet::from(nodes),
            legacy: HashSet::from([nodes[1]]),
            redis_ms: 7,
            was_late: false,
            records_are_current: true,
        };
        assert_eq!(read_heartbeat(&reply), Some(expected));
        assert_eq!(read_heartbeat(&Value::Array(vec![bulk("k")])), None);
    }

    #[test]
    fn a_suspected_node_is_dead_until_its_next_heartbeat() {
        let (node, other) = (NodeId::random(), NodeId::random());
        let mut membership = Membership::new(LIFETIME);
        membership.update(HashSet::from([node]), HashSet::new(), 0);
        assert!(membership.is_live(node) && !membership.is_live(other));
        membership.suspect(node, 1);
        assert!(!membership.is_live(node));
        assert_eq!((membership.live().count(), membership.suspects()), (0, vec![node]));
        membership.update(HashSet::from([node]), HashSet::new(), 2);
        assert!(membership.is_live(node) && membership.suspects().is_empty());
    }

    #[test]
    fn suspects_are_forgotten_when_nothing_is_left_of_them_and_new_ones_always_count() {
        let mut membership = Membership::new(LIFETIME);
        for since in 0..MAX_SUSPECTS as u64 {
            membership.suspect(NodeId::random(), since);
        }
        let newest = NodeId::random();
        membership.suspect(newest, 1_000);
        assert_eq!(membership.suspects().len(), MAX_SUSPECTS);
        assert!(membership.suspects().contains(&newest), "the oldest made room");
        membership.update(HashSet::new(), HashSet::new(), 130_999);
        assert_eq!(membership.suspects(), [newest]);
        membership.update(HashSet::new(), HashSet::new(), 131_000);
        assert!(membership.suspects().is_empty());
    }
}
