//! The deadlines of one connection (sans-IO); the shard's table holds only the nearest.

use std::time::Duration;

/// Milliseconds on the shard's monotonic clock; 0 is "none".
pub type Millis = u64;

/// A duration of the configuration on the shard's clock.
pub fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 4)
}

/// Where the heartbeat stands. Engine.IO 4: the server pings, the client answers (docs/protocol/socketio.md section
/// 2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heartbeat {
    /// Not beating: SSE, or not open yet.
    #[default]
    Off,
    /// The next ping is due then.
    PingAt(Millis),
    /// A ping is out; the pong is due then.
    PongBy(Millis),
}

/// All deadlines of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timers {
    /// Pings and pongs.
    pub heartbeat: Heartbeat,
    /// Something must be joined or authenticated by then.
    pub connect_by: Millis,
    /// The earliest expiry among the connection's tokens.
    pub expires: Millis,
    /// A closing connection is cut then, flushed or not.
    pub cut: Millis,
}

/// What has come due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Send a ping; the timer already waits for the pong.
    Ping,
    /// The pong did not come.
    PingTimeout,
    /// Nothing was joined in time.
    ConnectTimeout,
    /// A token's time is over.
    Expired,
    /// Cut the connection.
    Cut,
}

impl Timers {
    /// The nearest deadline, 0 for none.
    pub fn next(&self) -> Millis {
        let beat = match self.heartbeat {
            Heartbeat::Off => 0,
            Heartbeat::PingAt(at) | Heartbeat::PongBy(at) => at,
        };
        [beat, self.connect_by, self.expires, self.cut].into_iter().filter(|at| *at != 0).min().unwrap_or(0)
    }

    /// Takes one thing that is due.
    pub fn due(&mut self, now: Millis, ping_timeout: Millis) -> Option<Due> {
        let come = |at: Millis| at != 0 && at <= now;
        if come(self.cut) {
            self.cut = 0;
            return Some(Due::Cut);
        }
        if come(self.connect_by) {
            self.connect_by = 0;
            return Some(Due::ConnectTimeout);
        }
        if come(self.expires) {
            self.expires = 0;
            return Some(Due::Expired);
        }
        match self.heartbeat {
            Heartbeat::PongBy(at) if come(at) => {
                self.heartbeat = Heartbeat::Off;
                Some(Due::PingTimeout)
            }
            Heartbeat::PingAt(at) if come(at) => {
                self.heartbeat = Heartbeat::PongBy(now + ping_timeout);
                Some(Due::Ping)
            }
            _ => None,
        }
    }

    /// A pong came: the next ping is one interval from now, not from the last ping (docs/protocol/socketio.md section
    /// 2.5).
    pub fn pong(&mut self, now: Millis, ping_interval: Millis) {
        if matches!(self.heartbeat, Heartbeat::PongBy(_)) {
            self.heartbeat = Heartbeat::PingAt(now + ping_interval);
        }
    }

    /// Stops everything but the cut: the connection is closing.
    pub fn closing(&mut self, cut: Millis) {
        *self = Self { cut, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heartbeat_of_the_reference() {
        let mut timers = Timers { heartbeat: Heartbeat::PingAt(1000), ..Timers::default() };
        assert_eq!((timers.next(), timers.due(999, 700)), (1000, None));
        assert_eq!(timers.due(1005, 700), Some(Due::Ping));
        assert_eq!(timers.next(), 1705);
        timers.pong(1300, 1000);
        assert_eq!(timers.next(), 2300);
        assert_eq!(timers.due(2300, 700), Some(Due::Ping));
        assert_eq!((timers.due(2999, 700), timers.due(3000, 700)), (None, Some(Due::PingTimeout)));
        assert_eq!(timers.next(), 0);
    }

    #[test]
    fn a_closing_connection_only_waits_for_its_cut() {
        let mut timers = Timers { connect_by: 5, expires: 6, heartbeat: Heartbeat::PongBy(7), cut: 0 };
        assert_eq!(timers.next(), 5);
        timers.closing(50);
        assert_eq!(timers.next(), 50);
        assert_eq!((timers.due(49, 1), timers.due(50, 1), timers.due(60, 1)), (None, Some(Due::Cut), None));
    }
}
