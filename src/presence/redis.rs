//! Presence of all nodes, in Redis. One script carries out each step as a whole: it decides, exactly once, what the step
//! means for the cluster, and appends `joined` and `left` to the log.
//!
//! | key (after `{prefix}:{{prefix}:events}:presence:`) | what |
//! |---|---|
//! | `nodes` | hash: node → number of its last write (`left`: it stopped; `reaped`: it counted as dead; `<number>@<what it was>`: reset, and nothing written since), when that was, and since when it writes without a break, or when it stopped (ms) |
//! | `node:<node>` | hash: the node's facts, to be removed when it dies |
//! | `user:<user>` | hash: node → connections |
//! | `room:<namespace>\n<room>` | hash: `<node>\n=<user>` (or `<node>\n`: no user) → connections, line break, `left` as fields |
//! | `seen:<user>` | when a user was last seen (ms); without meaning while the user is online |
//! | `reply:<node>` | the answer to the node's last write, in case it was lost on its way |
//! | `epoch` | changes when Redis has lost everything |
//!
//! No name contains a control character, so line breaks and tabs separate names. Scripts declare the keys that are known
//! before they run: while a slot moves to another member of a Redis Cluster, Redis then refuses a script instead of showing
//! it a part of the data. (The keys of a dead node's facts are not declared: the script finds them in the node's hash.)

mod text;

use crate::cluster::Cluster;
use crate::log::{BoxFuture, EventLog};
use crate::metrics::Metrics;
use crate::model::close::DropReason;
use crate::model::draft::Draft;
use crate::model::id::Id;
use crate::presence::config::PresenceConfig;
use crate::presence::redis::text::{Reply, fact_text, fields, place_key, read_fact, read_reply};
use crate::presence::{Applied, Change, Fact, Known, RoomStatus, Store, StoreError, UserStatus};
use crate::redis::script::Script;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Facts of a dead node that one step removes: some 10 µs each.
const MAX_REAPED: usize = 200;
/// How long the answer to a write is kept for its node.
const REPLY_LIFE: Duration = Duration::from_secs(60);

/// KEYS stream; ARGV prefix of the keys, own name, number of this write and of the one before, a fresh epoch, ms after
/// which a node counts as dead, ms for which it is known who was seen last, facts removed of a dead node at most, ms that
/// the stream keeps, ms for which a reply is kept, ms between two writes that are a break, members above which nobody is
/// announced, nodes at most; then of each change: fact, count (empty: no longer), 1 if it is news, fields of `joined`
/// (or, no longer: what `left` comes after on other lines of the log), fields of `left`, when the last connection went in ms of Redis' clock (empty: now).
const APPLY: &str = concat!(include_str!("repair.lua"), include_str!("redis.lua"));
/// Nodes that there may be. More were not written by nodes.
const MAX_NODES: usize = 1000;

/// ARGV prefix of the keys, own name, the number to write, a fresh epoch. Answers the epoch, the number that was there, and
/// the node's facts. What was there stays known until the next write: the answer may be lost.
const RESET: &str = concat!(
    include_str!("repair.lua"),
    "local P = ARGV[1]
if not call('GET', P .. 'epoch') then redis.call('SET', P .. 'epoch', ARGV[4]) end
local line = call('HGET', P .. 'nodes', ARGV[2])
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local state = line and string.match(line, '^%S+') or ''
local was = string.match(state, '@(.*)$') or state
redis.call('HSET', P .. 'nodes', ARGV[2], ARGV[3] .. '@' .. was .. ' ' .. now .. ' ' .. now)
return {redis.call('GET', P .. 'epoch'), was, call('HKEYS', P .. 'node:' .. ARGV[2])}"
);

/// ARGV prefix of the keys, own name, ms after which a node counts as dead, ms of the grace: it is to be dead after that.
const LEAVE: &str = "if not redis.call('HGET', ARGV[1] .. 'nodes', ARGV[2]) then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('HSET', ARGV[1] .. 'nodes', ARGV[2], string.format('left %.0f %.0f', now - ARGV[3] + ARGV[4], now))";

/// ARGV prefix of the keys, then users. Answers of each: connections (-1: offline) and when they were last seen.
const USERS: &str = concat!(
    include_str!("repair.lua"),
    "local answers = {}
for n = 2, #ARGV do
  local counts = call('HVALS', ARGV[1] .. 'user:' .. ARGV[n])
  local sum, seen = 0, false
  for _, count in ipairs(counts) do sum = sum + math.min(tonumber(count) or 0, 4294967295) end
  if #counts == 0 then
    sum = -1
    seen = call('GET', ARGV[1] .. 'seen:' .. ARGV[n])
  end
  answers[#answers + 1] = sum
  answers[#answers + 1] = seen or ''
end
return answers"
);

/// ARGV prefix of the keys, namespace and room. Answers connections, then users.
const ROOM: &str = concat!(
    include_str!("repair.lua"),
    "local members = call('HGETALL', ARGV[1] .. 'room:' .. ARGV[2] .. '\\n' .. ARGV[3])
local sum, known, answer = 0, {}, {0}
for n = 1, #members, 2 do
  sum = sum + math.min(tonumber(string.match(members[n + 1], '^%d+')) or 0, 4294967295)
  local user = string.match(members[n], '\\n=(.*)$')
  if user and not known[user] then
    known[user] = true
    answer[#answer + 1] = user
  end
end
answer[1] = sum
return answer"
);

/// The cluster's twin of [`crate::presence::memory::MemoryStore`].
pub struct RedisPresence {
    cluster: Arc<Cluster>,
    log: Arc<dyn EventLog>,
    config: PresenceConfig,
    stream: String,
    keys: String,
    /// How long the stream keeps its entries.
    kept: Duration,
    known: Mutex<Progress>,
    apply: Script,
    metrics: Arc<Metrics>,
}

/// What the store has of this node, as far as it is known.
#[derive(Default)]
struct Progress {
    /// The number of the last write; empty before the first.
    number: String,
    epoch: Option<Vec<u8>>,
    /// Redis' clock in ms, noted together with this node's: a step that waited while Redis was away still says when a
    /// connection ended.
    clock: Option<(Instant, u64)>,
}

impl Progress {
    fn redis_ms(&self) -> Option<u64> {
        self.clock.map(|(at, at_ms)| at_ms.saturating_add(ms(at.elapsed())))
    }
}

impl RedisPresence {
    /// `log` is in the stream that announcements are added to; `prefix` is that of all keys; `kept` is how long the
    /// stream keeps its entries.
    pub fn new(
        cluster: Arc<Cluster>,
        log: Arc<dyn EventLog>,
        prefix: &str,
        config: &PresenceConfig,
        kept: Duration,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let stream = format!("{prefix}:events");
        let keys = format!("{prefix}:{{{stream}}}:presence:");
        let apply = Script::new(APPLY);
        Arc::new(Self {
            cluster,
            log,
            config: config.clone(),
            stream,
            keys,
            kept,
            known: Mutex::default(),
            apply,
            metrics,
        })
    }

    fn script(&self, text: &str, keys: &[String]) -> Cmd {
        self.start("EVAL", text, keys)
    }

    /// Keys are named by what follows the prefix.
    fn start(&self, verb: &str, script: &str, keys: &[String]) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(1 + keys.len()).arg(&self.stream);
        keys.iter().for_each(|key| {
            command.arg(format!("{}{key}", self.keys));
        });
        command.arg(&self.keys);
        command
    }

    /// Keys of this node itself.
    fn own_keys(&self) -> Vec<String> {
        let me = self.cluster.id();
        vec!["nodes".into(), "epoch".into(), format!("node:{me}"), format!("reply:{me}")]
    }

    async fn call(&self, command: Cmd, bytes: usize) -> Result<Value, StoreError> {
        self.cluster.call(command, bytes).await.map_err(StoreError)
    }

    /// `now_ms` is Redis' time when the changes were taken.
    fn apply_command(&self, mut command: Cmd, number: u64, changes: &[Change], now_ms: Option<u64>) -> (Cmd, usize) {
        command.arg(self.cluster.id().to_string()).arg(number).arg(&self.known.lock().number);
        command.arg(Id::random().to_string()).arg(ms(self.config.lease + self.config.grace));
        command.arg(ms(self.config.remember)).arg(MAX_REAPED).arg(ms(self.kept)).arg(ms(REPLY_LIFE));
        command.arg(ms(self.config.lease / 2)).arg(self.config.announce_limit).arg(MAX_NODES);
        let mut bytes = 0;
        for change in changes {
            let messages = change.messages.as_deref();
            let joined = messages.and_then(|m| m.joined.as_ref());
            let joined = match (&change.fact, change.count) {
                (Fact::Inside(inside), None) => self.log.before(std::slice::from_ref(&inside.room)).unwrap_or_default(),
                _ => joined.map_or_else(String::new, |draft| fields(draft, self.log.before(&draft.rooms))),
            };
            let left = messages.and_then(|m| m.left.as_ref()).map_or_else(String::new, |draft| fields(draft, None));
            let fact = fact_text(&change.fact);
            bytes += fact.len() + joined.len() + left.len() + 100;
            command.arg(fact).arg(change.count.map_or_else(String::new, |count| count.to_string()));
            command.arg(u8::from(change.news)).arg(joined).arg(left);
            command.arg(now_ms.map_or_else(String::new, |now| now.saturating_sub(change.age).to_string()));
        }
        (command, bytes)
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn unexpected() -> StoreError {
    StoreError("Redis answered something unexpected".into())
}

impl RedisPresence {
    async fn apply_now(&self, number: u64, changes: &[Change]) -> Result<Applied, StoreError> {
        let keys = [self.own_keys(), changes.iter().map(|change| place_key(&change.fact)).collect()].concat();
        let now_ms = self.known.lock().redis_ms();
        let known = self.start("EVALSHA", &self.apply.sha, &keys);
        let (command, bytes) = self.apply_command(known, number, changes, now_ms);
        let answer = match self.call(command, bytes).await {
            // Once in the life of a Redis.
            Err(StoreError(error)) if error.contains("NoScript") || error.contains("NOSCRIPT") => {
                let (command, bytes) = self.apply_command(self.script(self.apply.text, &keys), number, changes, now_ms);
                self.call(command, bytes + self.apply.text.len()).await?
            }
            answer => answer?,
        };
        let Value::Array(answer) = answer else { return Err(unexpected()) };
        match &answer[..] {
            [Value::BulkString(epoch), reply] => {
                let read = text(reply).and_then(read_reply);
                // The step is done, whoever has written over its answer.
                let mut reply = read.unwrap_or_else(|| Reply { repaired: 1, ..Reply::default() });
                self.announce(number, &mut reply).await?;
                reply.newest.into_iter().for_each(|position| self.log.note_announced(position));
                self.count(&reply);
                let mut known = self.known.lock();
                // The answer may be that of a step whose first answer was lost.
                let clock = Some((Instant::now(), reply.at_ms.max(known.redis_ms().unwrap_or(0))));
                *known = Progress { number: number.to_string(), epoch: Some(epoch.clone()), clock };
                Ok(Applied::Done { transitions: reply.transitions, events: reply.events, more: reply.more })
            }
            [] => Ok(Applied::Behind),
            _ => Err(unexpected()),
        }
    }

    /// Adds what the stream did not take: its next one may. A repeat, after an answer that was lost, adds nothing twice.
    async fn announce(&self, number: u64, reply: &mut Reply) -> Result<(), StoreError> {
        let me = self.cluster.id();
        let drafts: Vec<Draft> = std::mem::take(&mut reply.unannounced)
            .into_iter()
            .enumerate()
            .map(|(at, draft)| Draft { id: Some(format!("presence:{me}:{number}:{at}")), ..draft })
            .collect();
        for appended in self.log.append(drafts).await {
            let accepted = appended.map_err(|error| StoreError(error.to_string()))?;
            reply.events += 1;
            reply.newest = accepted.offset.map(|offset| offset.position).or(reply.newest);
        }
        Ok(())
    }

    fn count(&self, reply: &Reply) {
        self.metrics.events.dropped(DropReason::Crowd, reply.silent);
        self.note_repairs(reply.repaired);
    }

    fn note_repairs(&self, repaired: u64) {
        if repaired > 0 {
            self.metrics.sessions.presence_repairs.inc_by(repaired);
            tracing::warn!(
                repaired,
                keys = self.keys,
                "contents of presence keys that no node has written were removed"
            );
        }
    }

    async fn reset_now(&self, number: u64) -> Result<Known, StoreError> {
        let mut command = self.script(RESET, &self.own_keys());
        command.arg(self.cluster.id().to_string()).arg(number).arg(Id::random().to_string());
        let Value::Array(answer) = self.call(command, 0).await? else { return Err(unexpected()) };
        let [Value::BulkString(epoch), before, Value::Array(facts)] = &answer[..] else { return Err(unexpected()) };
        let facts = facts.iter().filter_map(|fact| read_fact(text(fact)?)).collect();
        let mut known = self.known.lock();
        // Whoever counted as dead was taken out of a store that has lost nothing.
        let before = text(before).ok_or_else(unexpected)?;
        let lost = match before {
            "" => known.epoch.as_ref() != Some(epoch),
            number => !matches!(number, "reaped" | "left"),
        };
        *known = Progress { number: format!("{number}@{before}"), epoch: Some(epoch.clone()), clock: known.clock };
        Ok(Known { facts, lost })
    }

    async fn leave_now(&self) -> Result<(), StoreError> {
        let mut command = self.script(LEAVE, &["nodes".to_owned()]);
        let dead = ms(self.config.lease + self.config.grace);
        command.arg(self.cluster.id().to_string()).arg(dead).arg(ms(self.config.grace));
        self.call(command, 0).await.map(drop)
    }

    async fn users_now(&self, users: &[String]) -> Result<Vec<UserStatus>, StoreError> {
        let keys: Vec<String> = users.iter().map(|user| format!("user:{user}")).collect();
        let mut command = self.script(USERS, &keys);
        command.arg(users);
        let bytes = users.iter().map(|user| user.len() + 20).sum();
        let Value::Array(answer) = self.call(command, bytes).await? else { return Err(unexpected()) };
        let read = |pair: &[Value]| match pair {
            [Value::Int(count), seen] => Some(UserStatus {
                online: *count >= 0,
                connections: u64::try_from(*count).unwrap_or(0),
                seen_ms: text(seen)?.parse().ok(),
            }),
            _ => None,
        };
        answer.chunks(2).map(read).collect::<Option<_>>().ok_or_else(unexpected)
    }

    async fn room_now(&self, namespace: &str, room: &str) -> Result<RoomStatus, StoreError> {
        let mut command = self.script(ROOM, &[format!("room:{namespace}\n{room}")]);
        command.arg(namespace).arg(room);
        let Value::Array(answer) = self.call(command, room.len()).await? else { return Err(unexpected()) };
        let [Value::Int(connections), users @ ..] = &answer[..] else { return Err(unexpected()) };
        let users = users.iter().map(|user| Some(text(user)?.to_owned())).collect::<Option<_>>();
        let connections = u64::try_from(*connections).unwrap_or(0);
        Ok(RoomStatus { connections, users: users.ok_or_else(unexpected)? })
    }
}

impl Store for RedisPresence {
    fn apply<'a>(&'a self, number: u64, changes: &'a [Change]) -> BoxFuture<'a, Result<Applied, StoreError>> {
        Box::pin(self.apply_now(number, changes))
    }

    fn reset(&self, number: u64) -> BoxFuture<'_, Result<Known, StoreError>> {
        Box::pin(self.reset_now(number))
    }

    fn leave(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.leave_now())
    }

    fn users<'a>(&'a self, users: &'a [String]) -> BoxFuture<'a, Result<Vec<UserStatus>, StoreError>> {
        Box::pin(self.users_now(users))
    }

    fn room<'a>(&'a self, namespace: &'a str, room: &'a str) -> BoxFuture<'a, Result<RoomStatus, StoreError>> {
        Box::pin(self.room_now(namespace, room))
    }
}
