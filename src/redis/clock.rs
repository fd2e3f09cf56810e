//! The time by the clock of Redis: what is to be done before a moment is compared with it where it is done.

use crate::redis::connection::{Link, LinkError};
use crate::redis::reply::text;
use redis::Value;
use tokio::time::Instant;

/// What Redis' clock shows, never too late: it showed that much when we saw its answer, and a little more.
pub(crate) struct Clock {
    redis_us: u64,
    seen: Instant,
}

impl Clock {
    /// Asks for the time.
    pub(crate) async fn read(link: &mut Link) -> Result<Self, LinkError> {
        let wrong = || LinkError::Unexpected("TIME");
        let time = link.call(&redis::cmd("TIME")).await?;
        let Value::Array(time) = &time else { return Err(wrong()) };
        let number = |value: &Value| text(value).and_then(|text| text.parse::<u64>().ok());
        let [seconds, micros] = &time[..] else { return Err(wrong()) };
        let (seconds, micros) = (number(seconds).ok_or_else(wrong)?, number(micros).ok_or_else(wrong)?);
        Ok(Self::at(seconds * 1_000_000 + micros))
    }

    fn at(redis_us: u64) -> Self {
        Self { redis_us, seen: Instant::now() }
    }

    /// What it shows at that moment of ours, in ms.
    pub(crate) fn redis_ms(&self, when: Instant) -> u64 {
        let after = when.saturating_duration_since(self.seen).as_micros() as u64;
        let before = self.seen.saturating_duration_since(when).as_micros() as u64;
        (self.redis_us + after).saturating_sub(before) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments_are_told_in_the_time_of_redis() {
        let clock = Clock::at(5_000_000);
        assert_eq!(clock.redis_ms(clock.seen + Duration::from_millis(3)), 5003);
        assert_eq!(clock.redis_ms(clock.seen - Duration::from_millis(3)), 4997);
    }
}
