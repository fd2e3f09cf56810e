//! The clock of Redis. A write that must not happen after a deadline carries the deadline in Redis' time, and Redis
//! compares it.

use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reply::text;
use redis::Value;
use std::time::Duration;
use tokio::time::Instant;

/// Redis' clock as it was when its reply arrived, so it never runs ahead of Redis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RedisClock {
    redis_us: u64,
    read_at: Instant,
}

impl RedisClock {
    /// Asks Redis for its time.
    pub(crate) async fn read(connection: &mut RedisConnection) -> Result<Self, RedisError> {
        let wrong = || RedisError::UnexpectedReply("TIME");
        let time = connection.call(&redis::cmd("TIME")).await?;
        let Value::Array(time) = &time else { return Err(wrong()) };
        let number = |value: &Value| text(value).and_then(|text| text.parse::<u64>().ok());
        let [seconds, micros] = &time[..] else { return Err(wrong()) };
        let (seconds, micros) = (number(seconds).ok_or_else(wrong)?, number(micros).ok_or_else(wrong)?);
        Ok(Self::now(seconds * 1_000_000 + micros))
    }

    /// A clock that shows this now.
    pub(crate) fn now(redis_us: u64) -> Self {
        Self { redis_us, read_at: Instant::now() }
    }

    /// Redis' Unix microseconds now.
    pub(crate) fn now_us(&self) -> u64 {
        self.redis_us + self.read_at.elapsed().as_micros() as u64
    }

    /// Redis' Unix milliseconds at a moment of this process.
    pub(crate) fn redis_ms(&self, when: Instant) -> u64 {
        self.redis_us(when) / 1000
    }

    /// Redis' Unix microseconds at a moment of this process.
    pub(crate) fn redis_us(&self, when: Instant) -> u64 {
        let after = when.saturating_duration_since(self.read_at).as_micros() as u64;
        let before = self.read_at.saturating_duration_since(when).as_micros() as u64;
        (self.redis_us + after).saturating_sub(before)
    }

    /// How long ago Redis was asked.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.read_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_converted_to_the_time_of_redis() {
        let clock = RedisClock::now(5_000_000);
        assert_eq!(clock.redis_ms(clock.read_at + Duration::from_millis(3)), 5003);
        assert_eq!(clock.redis_ms(clock.read_at - Duration::from_millis(3)), 4997);
    }
}
