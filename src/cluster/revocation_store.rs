//! Revocations in Redis, for nodes that start later: a hash with a field for each user or token. Its key ends with the last of
//! them. Running nodes get them by the log.

use crate::auth::revocations::{Revocation, Revoked};
use crate::cluster::Cluster;
use crate::redis::reply::text;
use redis::Value;

/// KEYS: the hash. ARGV: the field, "before" and "until" in ms, now in ms, and how many fields may be. Two of one user or token
/// become one. The field `@` has the end of the last.
const ADD: &str = "local key, field = KEYS[1], ARGV[1]
local before, ends, now, max = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local function times(text) return string.match(text or '', '^(%d+) (%d+)$') end
local function full() return redis.call('HLEN', key) > max end
local known = redis.call('HGET', key, field)
if known then
  local earlier, until_then = times(known)
  before = math.max(before, tonumber(earlier) or 0)
  ends = math.max(ends, tonumber(until_then) or 0)
elseif full() then
  local all = redis.call('HGETALL', key)
  for at = 1, #all, 2 do
    local _, until_then = times(all[at + 1])
    if all[at] ~= '@' and (tonumber(until_then) or 0) <= now then redis.call('HDEL', key, all[at]) end
  end
  if full() then return 0 end
end
redis.call('HSET', key, field, string.format('%.0f %.0f', before, ends))
local last = math.max(ends, tonumber(redis.call('HGET', key, '@') or '0'))
redis.call('HSET', key, '@', string.format('%.0f', last))
redis.call('PEXPIRE', key, string.format('%.0f', math.max(1, last - now)))
return known and 1 or 2";

/// What became of a revocation that is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// There are too many.
    Full,
    /// It is kept, and one of the same user or token was.
    Known,
    /// It is kept, and none was.
    New,
}

/// Bytes of an entry besides its name, for the limit of what waits for Redis.
const ENTRY_BYTES: usize = 1_000;

impl Cluster {
    /// Keeps a revocation, of at most `max`.
    ///
    /// # Errors
    /// A text: Redis refused it, was not reached, or did not answer in time.
    pub async fn keep_revocation(&self, revocation: &Revocation, now_ms: u64, max: usize) -> Result<Kept, String> {
        let field = field(&revocation.who);
        let mut command = redis::cmd("EVAL");
        command.arg(ADD).arg(1).arg(&self.shared.keys.revoked).arg(&field);
        command.arg(revocation.before_ms).arg(revocation.until_ms).arg(now_ms).arg(max);
        Ok(match self.call(command, field.len() + ENTRY_BYTES).await? {
            Value::Int(1) => Kept::Known,
            Value::Int(2) => Kept::New,
            _ => Kept::Full,
        })
    }

    /// How many revocations are kept, those that have ended included.
    ///
    /// # Errors
    /// As [`Cluster::keep_revocation`], and where the key has another type.
    pub async fn count_revocations(&self) -> Result<usize, String> {
        let mut command = redis::cmd("HLEN");
        command.arg(&self.shared.keys.revoked);
        match self.call(command, ENTRY_BYTES).await? {
            // One field has the end of the last.
            Value::Int(fields) => Ok(usize::try_from(fields).unwrap_or(0).saturating_sub(1)),
            _ => Err("Redis answered HLEN with no number".into()),
        }
    }

    /// All revocations that are kept, also some that have ended. A key of another type, which no node writes, is removed:
    /// otherwise no node that starts could let anybody in. Running nodes then keep again what they know.
    ///
    /// # Errors
    /// As [`Cluster::keep_revocation`].
    pub async fn kept_revocations(&self) -> Result<Vec<Revocation>, String> {
        let mut command = redis::cmd("HGETALL");
        command.arg(&self.shared.keys.revoked);
        let mut reply = self.call(command.clone(), ENTRY_BYTES).await;
        if reply.as_ref().is_err_and(|error| error.contains("WRONGTYPE")) {
            tracing::error!(key = self.shared.keys.revoked, "the key of revocations had another type: it is made anew");
            let mut remove = redis::cmd("UNLINK");
            remove.arg(&self.shared.keys.revoked);
            self.call(remove, ENTRY_BYTES).await?;
            reply = self.call(command, ENTRY_BYTES).await;
        }
        let reply = reply?;
        let pairs = reply.into_map_iter().map_err(|_| "Redis answered HGETALL with no map".to_owned())?;
        Ok(pairs.filter_map(|(field, times)| read(text(&field)?, text(&times)?)).collect())
    }
}

fn field(who: &Revoked) -> String {
    match who {
        Revoked::User(name) => format!("u:{name}"),
        Revoked::Token(jti) => format!("t:{jti}"),
    }
}

fn read(field: &str, times: &str) -> Option<Revocation> {
    let who = match field.split_once(':')? {
        ("u", name) => Revoked::User(name.into()),
        ("t", jti) => Revoked::Token(jti.into()),
        _ => return None,
    };
    let (before, until) = times.split_once(' ')?;
    Some(Revocation { who, before_ms: before.parse().ok()?, until_ms: until.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_back_as_written() {
        for who in [Revoked::User("a:b".into()), Revoked::Token("é".into())] {
            let one = Revocation { who, before_ms: 5, until_ms: 7 };
            assert_eq!(read(&field(&one.who), "5 7"), Some(one));
        }
        for (field, times) in [("@", "7"), ("x:7", "1 2"), ("u:7", "1"), ("u:7", "1 x")] {
            assert_eq!(read(field, times), None, "{field}");
        }
    }
}
