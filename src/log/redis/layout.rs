//! How many partitions the log has, on which all nodes must agree: a key holds `8/0`, partitions and segments. Without it
//! the log has one.
//!
//! A node with another value does not touch the log. Where no live node has the former value, the first that starts with
//! a new one sets the key, and replaces the epoch of every line: no offset of the former layout proves anything in the new
//! one. The key says `new` until that is done. A node that sees another value while it runs stops reading and appending,
//! and its clients hear that they may have missed something.

use crate::log::redis::RedisLog;
use crate::model::partition::Partitions;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reply::text;
use parking_lot::Mutex;
use redis::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often a node tries that may not start.
pub(super) const RETRY: Duration = Duration::from_millis(100);
/// A node without a heartbeat for this long counts as dead, as for the cluster's other purposes.
const DEAD_AFTER_MS: u64 = 3_500;
/// How long the node that has set a new layout has for that.
const RENEWED_WITHIN: Duration = Duration::from_secs(5);
/// The layout of a log without the key.
const ONE: &str = "1/0";
/// After the value while the epochs are being replaced.
const NEW: &str = " new";

/// Sets the layout unless a live node has another. KEYS: the layout, when each node sent its last heartbeat, what each node
/// understands, whose second word is its layout. ARGV: the layout, ms after which a node counts as dead, prefix of the nodes'
/// channels. Answers what the layout is now, how many live nodes have another, and 1 where this call has set it.
const CLAIM: &str = "local is = redis.call('GET', KEYS[1]) or '1/0'
local value = string.match(is, '^%S+') or ''
if value == ARGV[1] then return {is, 0, 0} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local others = 0
local nodes = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for n = 1, #nodes, 2 do
  if now - nodes[n + 1] <= tonumber(ARGV[2]) and redis.call('PUBSUB', 'NUMSUB', ARGV[3] .. nodes[n])[2] > 0 then
    local of = string.match(redis.call('HGET', KEYS[3], nodes[n]) or '', '^%S+ (%S+)') or '1/0'
    if of ~= ARGV[1] then others = others + 1 end
  end
end
if others > 0 then return {is, others, 0} end
redis.call('SET', KEYS[1], ARGV[1] .. ' new')
return {ARGV[1] .. ' new', 0, 1}";

/// Says that the epochs are replaced. KEYS: the layout. ARGV: what it is until then, and from now on.
const SETTLE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end return 1";

/// The text of a layout. On one line all rooms are together, whatever their names.
pub(crate) fn layout_text(partitions: Partitions) -> String {
    match partitions.is_one() {
        true => ONE.to_owned(),
        false => format!("{}/{}", partitions.count(), partitions.segments()),
    }
}

/// Whether this node's layout is that of the log.
pub(super) struct Layout {
    own: String,
    state: Mutex<State>,
    /// Since when another node replaces the epochs.
    new_since: Mutex<Option<Instant>>,
    lost: Notify,
}

enum State {
    /// Redis was not asked yet.
    Unknown,
    Agreed,
    /// The log has another: why this node does not work.
    Other(String),
}

impl Layout {
    pub(super) fn new(partitions: Partitions) -> Self {
        Self {
            own: layout_text(partitions),
            state: Mutex::new(State::Unknown),
            new_since: Mutex::default(),
            lost: Notify::new(),
        }
    }

    /// Why this node must not use the log, if that is known.
    pub(super) fn problem(&self) -> Option<String> {
        match &*self.state.lock() {
            State::Other(why) => Some(why.clone()),
            State::Unknown | State::Agreed => None,
        }
    }

    pub(super) fn is_agreed(&self) -> bool {
        matches!(&*self.state.lock(), State::Agreed)
    }

    /// Completes when the log's layout is no longer this node's.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    fn is_other(&self, is: &str, others: i64) {
        let value = is.strip_suffix(NEW).unwrap_or(is);
        let live = match others {
            0 => "it was changed while this node ran; restart this node with the same".to_owned(),
            1 => "a live node has another; stop it, or give this node the same".to_owned(),
            more => format!("{more} live nodes have another; stop them, or give this node the same"),
        };
        let why = format!(
            "the log has {value} redis.partitions/redis.partition_segments and this node {}: {live} \
             (docs/scaling.md, \"Changing the number of partitions\")",
            self.own
        );
        let mut state = self.state.lock();
        if !matches!(&*state, State::Other(known) if *known == why) {
            tracing::error!("{why}");
        }
        *state = State::Other(why);
    }

    /// What to write where the log has lost the key: a log that is flushed is noticed by each line.
    pub(super) fn lost_text(&self, value: &Value) -> Option<&str> {
        (*value == Value::Nil && self.own != ONE).then_some(&*self.own)
    }

    /// Compares the key's value with this node's; `false` where it is another.
    pub(super) fn check(&self, value: &Value) -> bool {
        let is = text(value).unwrap_or(ONE);
        if is == self.own || is.strip_suffix(NEW) == Some(&self.own) || self.problem().is_some() {
            return self.problem().is_none();
        }
        self.is_other(is, 0);
        self.lost.notify_one();
        false
    }

    /// Whether the log has this node's layout now; sets it where no live node has another. `logs` are all lines.
    pub(super) async fn try_agree(&self, logs: &[Arc<RedisLog>]) -> Result<bool, RedisError> {
        let Some(control) = logs.first() else { return Ok(false) };
        let mut connection = RedisConnection::open(&control.connector, control.timeout).await?;
        let (is, others, is_own) = self.claim(control, &mut connection).await?;
        if is != self.own && is.strip_suffix(NEW) != Some(&self.own) {
            self.is_other(&is, others);
            return Ok(false);
        }
        if !is.ends_with(NEW) {
            *self.new_since.lock() = None;
        } else if !is_own && self.new_since.lock().get_or_insert_with(Instant::now).elapsed() < RENEWED_WITHIN {
            // The node that has set it does that. It may have died.
            return Ok(false);
        } else {
            for log in logs {
                let mut own = RedisConnection::open(&log.connector, log.timeout).await?;
                own.call(redis::cmd("DEL").arg(&log.keys.epoch)).await?;
            }
            let mut settle = redis::cmd("EVAL");
            settle.arg(SETTLE).arg(1).arg(&control.keys.layout).arg(&is).arg(&self.own);
            connection.call(&settle).await?;
            tracing::warn!(
                layout = self.own,
                "the partitions of the log are set anew: no client can resume from before"
            );
        }
        *self.state.lock() = State::Agreed;
        Ok(true)
    }

    async fn claim(&self, log: &RedisLog, connection: &mut RedisConnection) -> Result<(String, i64, bool), RedisError> {
        let is = connection.call(redis::cmd("GET").arg(&log.keys.layout)).await?;
        let is = text(&is).unwrap_or(ONE);
        if is == self.own {
            return Ok((is.to_owned(), 0, false));
        }
        // The keys of `cluster`, which are in the slot of the control line.
        let cluster = |name: &str| format!("{}:{name}", log.keys.tagged);
        let mut command = redis::cmd("EVAL");
        command.arg(CLAIM).arg(3).arg(&log.keys.layout).arg(cluster("nodes")).arg(cluster("features"));
        command.arg(&self.own).arg(DEAD_AFTER_MS).arg(format!("{}:node:", log.config.prefix));
        match connection.call(&command).await? {
            Value::Array(answer) => match &answer[..] {
                [is, Value::Int(others), Value::Int(own)] => {
                    let is = text(is).ok_or(RedisError::UnexpectedReply("the partitions"))?;
                    Ok((is.to_owned(), *others, *own == 1))
                }
                _ => Err(RedisError::UnexpectedReply("the partitions")),
            },
            _ => Err(RedisError::UnexpectedReply("the partitions")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn another_layout_is_a_problem_that_says_what_to_do() {
        let layout = Layout::new(Partitions::new(8, 1));
        assert!(!layout.is_agreed() && layout.problem().is_none(), "nothing is known yet");
        assert!(layout.check(&bulk("8/1")) && layout.check(&bulk("8/1 new")));
        assert!(!layout.check(&bulk("4/1")));
        let problem = layout.problem().unwrap();
        assert!(problem.contains("has 4/1") && problem.contains("this node 8/1"), "{problem}");
        assert!(!layout.check(&bulk("8/1")), "until it was agreed on again");
        assert!(Layout::new(Partitions::ONE).check(&Value::Nil), "a log without the key has one");
        assert!(!Layout::new(Partitions::new(2, 0)).check(&Value::Nil));
        assert!(Layout::new(Partitions::new(1, 2)).check(&Value::Nil), "segments decide nothing on one line");
    }
}
