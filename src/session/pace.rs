//! How far a replay may run ahead of its client (sans-IO). Kernels and proxies on the way take megabytes, and a ping behind
//! those comes to a slow client too late. So a WebSocket client gets a ping with the replay, and only so much more before its
//! pong as it reads well within the ping timeout.

use crate::model::millis::Millis;
use std::time::Duration;

const FIRST: usize = 128 << 10;
const MIN: usize = 16 << 10;
/// Less than a client that was fast, and no longer is, reads within the ping timeout.
const MAX: usize = 512 << 10;
/// A pong within this fraction of the ping timeout lets the replay run further ahead.
const FAST: u32 = 8;
/// A pong that takes longer than this fraction of it, less far.
const SLOW: u32 = 4;

/// What one client has confirmed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    ahead: usize,
    unconfirmed: usize,
    /// The ping that is out: when it was sent, and how much its pong confirms.
    ping: Option<(Millis, usize)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { ahead: FIRST, unconfirmed: 0, ping: None }
    }
}

impl Pace {
    /// How many bytes may be sent now.
    pub fn room(&self) -> usize {
        self.ahead.saturating_sub(self.unconfirmed)
    }

    /// Notes bytes that are sent.
    pub fn sent(&mut self, bytes: usize) {
        self.unconfirmed += bytes;
    }

    /// Whether a ping should follow what was sent.
    pub fn wants_ping(&self) -> bool {
        self.unconfirmed > 0 && self.ping.is_none()
    }

    /// Notes that a ping follows all that was sent.
    pub fn pinged(&mut self, now: Millis) {
        self.ping = Some((now, self.unconfirmed));
    }

    /// Takes a pong. One that belongs to an earlier ping confirms nothing.
    pub fn pong(&mut self, now: Millis, ping_timeout: Duration) {
        let Some((at, bytes)) = self.ping.take() else { return };
        self.unconfirmed -= bytes;
        if now <= at.after(ping_timeout / FAST) {
            self.ahead = (self.ahead * 2).min(MAX);
        } else if now > at.after(ping_timeout / SLOW) {
            self.ahead = (self.ahead / 2).max(MIN);
        }
    }

    /// The client lives by what it sends, not by pongs: it is not waited for.
    pub fn trust(&mut self) {
        (self.unconfirmed, self.ping) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    /// How far the replay runs ahead of a client that reads so many bytes a second, after a while.
    fn settled(bytes_per_second: usize) -> usize {
        let (mut pace, mut now) = (Pace::default(), Millis::new(1));
        for _ in 0..50 {
            pace.sent(pace.room());
            assert!(pace.room() == 0 && pace.wants_ping());
            let took = Duration::from_secs_f64(pace.unconfirmed as f64 / bytes_per_second as f64);
            assert!(took < TIMEOUT, "{bytes_per_second} bytes a second are read too late: {took:?}");
            pace.pinged(now);
            now = now.after(took);
            pace.pong(now, TIMEOUT);
        }
        pace.ahead
    }

    #[test]
    fn it_runs_as_far_ahead_as_the_client_is_fast() {
        assert_eq!(settled(100_000_000), MAX);
        assert!((100_000..=500_000).contains(&settled(100_000)));
        assert!(settled(7_000) <= 64 << 10);
    }

    #[test]
    fn a_pong_confirms_what_was_before_its_ping() {
        let (mut pace, now) = (Pace::default(), Millis::new(1));
        pace.pong(now, TIMEOUT);
        pace.sent(60_000);
        pace.pinged(now);
        pace.sent(60_000);
        assert!(!pace.wants_ping());
        pace.pong(now, TIMEOUT);
        assert_eq!((pace.unconfirmed, pace.wants_ping()), (60_000, true));
        pace.trust();
        assert_eq!((pace.room(), pace.wants_ping()), (2 * FIRST, false));
    }
}
