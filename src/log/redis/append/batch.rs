//! All that waits as one script call: one round trip, and what comes too late is not done. A request may lie in the
//! socket of a Redis that hangs; its publisher was long told that the log is not reachable when Redis goes on.

use super::queue::Call;
use crate::log::redis::connection::{Link, LinkError};
use crate::log::redis::text;
use redis::{Arg, Cmd, Value};
use std::time::Duration;
use tokio::time::Instant;

/// Runs commands, each written as its length and its words, and answers the time in µs and one answer each. KEYS: the
/// stream and the keys of idempotency ids. `UNTIL time`: what follows is not done after that time and answered nil.
/// `ONCE key lifetime command…`: not done again while the key lives, but answered as the first time.
/// `IF key value command…`: not done unless the key has that value.
const RUN: &str = "local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local late = false
local answers = {string.format('%.0f', now)}
local function once(from, to)
local first = redis.pcall('GET', ARGV[from + 1])
if first then return first end
local answer = redis.pcall(unpack(ARGV, from + 3, to))
if type(answer) == 'table' then return answer end
if type(answer) == 'number' then answer = '-' end
redis.pcall('SET', ARGV[from + 1], answer, 'PX', ARGV[from + 2])
return answer end
local at, count = 1, #ARGV
while at <= count do
local from, to = at + 1, at + ARGV[at]
local name = ARGV[from]
if name == 'UNTIL' then late = now > tonumber(ARGV[to])
elseif late then answers[#answers + 1] = false
elseif name == 'ONCE' then answers[#answers + 1] = once(from, to)
elseif name == 'IF' then
if redis.pcall('GET', ARGV[from + 1]) == ARGV[from + 2] then answers[#answers + 1] = redis.pcall(unpack(ARGV, from + 3, to))
else answers[#answers + 1] = redis.error_reply('FENCED another node holds the lease') end
else answers[#answers + 1] = redis.pcall(unpack(ARGV, from, to)) end
at = to + 1 end
return answers";

/// The script and the name under which Redis keeps it.
pub(in crate::log::redis) struct Script {
    sha: String,
}

impl Default for Script {
    fn default() -> Self {
        Self { sha: redis::Script::new(RUN).get_hash().to_owned() }
    }
}

impl Script {
    /// The command that runs the calls' commands. `known`: Redis has the script.
    pub(super) fn request(
        &self,
        known: bool,
        events: &str,
        calls: &[Call],
        clock: &Clock,
        for_answer: Duration,
    ) -> Cmd {
        let mut request = redis::cmd(if known { "EVALSHA" } else { "EVAL" });
        request.arg(if known { &self.sha } else { RUN });
        let ids: Vec<&[u8]> = calls.iter().flat_map(|call| &call.commands).filter_map(id_key).collect();
        request.arg(1 + ids.len()).arg(events).arg(ids);
        for call in calls {
            request.arg(2).arg("UNTIL").arg(clock.redis_us(call.deadline - for_answer));
            for command in &call.commands {
                request.arg(command.args_iter().len());
                for word in words(command) {
                    request.arg(word);
                }
            }
        }
        request
    }
}

/// Has a command done once in the life of an id.
pub(super) fn once(key: &str, lifetime: Duration, command: &str) -> Cmd {
    let mut once = redis::cmd("ONCE");
    once.arg(key).arg(lifetime.as_millis() as u64).arg(command);
    once
}

/// Has a command done only while a key has this value.
pub(in crate::log::redis) fn only_if(key: &str, value: &str, command: &str) -> Cmd {
    let mut only_if = redis::cmd("IF");
    only_if.arg(key).arg(value).arg(command);
    only_if
}

/// The key that a command needs besides the stream.
fn id_key(command: &Cmd) -> Option<&[u8]> {
    let mut words = words(command);
    matches!(words.next(), Some(b"ONCE" | b"IF")).then(|| words.next()).flatten()
}

fn words(command: &Cmd) -> impl Iterator<Item = &[u8]> {
    command.args_iter().filter_map(|word| match word {
        Arg::Simple(word) => Some(word),
        _ => None,
    })
}

/// What Redis' clock shows, never too late: it showed that much when we saw its answer, and a little more.
pub(super) struct Clock {
    redis_us: u64,
    seen: Instant,
}

impl Clock {
    /// Asks for the time.
    pub async fn read(link: &mut Link) -> Result<Self, LinkError> {
        let wrong = || LinkError::Unexpected("TIME");
        let time = link.call(&redis::cmd("TIME")).await?;
        let Value::Array(time) = &time else { return Err(wrong()) };
        let number = |value: &Value| text(value).and_then(|text| text.parse::<u64>().ok());
        let [seconds, micros] = &time[..] else { return Err(wrong()) };
        let (seconds, micros) = (number(seconds).ok_or_else(wrong)?, number(micros).ok_or_else(wrong)?);
        Ok(Self::at(seconds * 1_000_000 + micros))
    }

    /// It showed this in an answer that came just now, in µs.
    pub fn at(redis_us: u64) -> Self {
        Self { redis_us, seen: Instant::now() }
    }

    /// What it shows at that moment of ours, in µs.
    fn redis_us(&self, when: Instant) -> u64 {
        let after = when.saturating_duration_since(self.seen).as_micros() as u64;
        let before = self.seen.saturating_duration_since(when).as_micros() as u64;
        (self.redis_us + after).saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_in_the_time_of_redis() {
        let clock = Clock::at(5_000_000);
        assert_eq!(clock.redis_us(clock.seen + Duration::from_millis(3)), 5_003_000);
        assert_eq!(clock.redis_us(clock.seen - Duration::from_millis(3)), 4_997_000);
    }

    #[test]
    fn the_keys_of_ids_are_told_to_a_cluster() {
        assert_eq!(id_key(&once("k", Duration::from_secs(1), "XADD")), Some(&b"k"[..]));
        assert_eq!(id_key(&only_if("k", "v", "XADD")), Some(&b"k"[..]));
        assert_eq!(id_key(redis::cmd("XADD").arg("k")), None);
    }
}
