//! The deadlines of one connection (sans-IO); the shard's table holds only the nearest.

use crate::model::millis::Millis;
use std::time::Duration;

/// Where the heartbeat stands. Engine.IO 4: the server pings, the client answers (docs/protocol/socketio.md section 2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heartbeat {
    /// Not beating: SSE, or not open yet.
    #[default]
    Off,
    /// The next ping is due then.
    PingAt(Millis),
    /// A ping is out; the pong is due then.
    PongBy(Millis),
    /// A closing connection, which has no heartbeat any more, is cut then, flushed or not.
    CutAt(Millis),
}

/// All deadlines of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timers {
    /// Pings and pongs.
    pub heartbeat: Heartbeat,
    /// Something must be joined or authenticated by then.
    pub connect_by: Option<Millis>,
    /// The earliest expiry among the connection's tokens.
    pub expires: Option<Millis>,
    /// Something waits to be written, and some of it must be taken by then.
    pub write_by: Option<Millis>,
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
    /// Nothing of what waits was taken in time.
    WriteTimeout,
    /// Cut the connection.
    Cut,
}

impl Timers {
    /// The nearest deadline.
    pub fn next(&self) -> Option<Millis> {
        let heartbeat = match self.heartbeat {
            Heartbeat::Off => None,
            Heartbeat::PingAt(at) | Heartbeat::PongBy(at) | Heartbeat::CutAt(at) => Some(at),
        };
        [heartbeat, self.connect_by, self.expires, self.write_by].into_iter().flatten().min()
    }

    /// Takes one thing that is due.
    pub fn due(&mut self, now: Millis, ping_timeout: Duration) -> Option<Due> {
        let take = |deadline: &mut Option<Millis>| deadline.take_if(|at| *at <= now).is_some();
        if matches!(self.heartbeat, Heartbeat::CutAt(at) if at <= now) {
            self.heartbeat = Heartbeat::Off;
            return Some(Due::Cut);
        }
        if take(&mut self.connect_by) {
            return Some(Due::ConnectTimeout);
        }
        if take(&mut self.expires) {
            return Some(Due::Expired);
        }
        if take(&mut self.write_by) {
            return Some(Due::WriteTimeout);
        }
        match self.heartbeat {
            Heartbeat::PongBy(at) if at <= now => {
                self.heartbeat = Heartbeat::Off;
                Some(Due::PingTimeout)
            }
            Heartbeat::PingAt(at) if at <= now => {
                self.heartbeat = Heartbeat::PongBy(now.after(ping_timeout));
                Some(Due::Ping)
            }
            _ => None,
        }
    }

    /// The heartbeat and the connect timeout begin, unless the connection is closing already.
    pub fn start(&mut self, ping_at: Millis, connect_by: Option<Millis>) {
        if !matches!(self.heartbeat, Heartbeat::CutAt(_)) {
            self.heartbeat = Heartbeat::PingAt(ping_at);
            self.connect_by = connect_by;
        }
    }

    /// A pong came: the next ping is one interval from now, not from the last ping (docs/protocol/socketio.md section 2.5).
    pub fn pong(&mut self, now: Millis, ping_interval: Duration) {
        if matches!(self.heartbeat, Heartbeat::PongBy(_)) {
            self.heartbeat = Heartbeat::PingAt(now.after(ping_interval));
        }
    }

    /// The client takes bytes, but slowly, and a ping waits behind them: its pong may be so late.
    pub fn await_pong(&mut self, by: Millis) {
        self.heartbeat = Heartbeat::PongBy(by);
    }

    /// Stops everything but the cut: the connection is closing.
    pub fn closing(&mut self, cut: Millis) {
        *self = Self { heartbeat: Heartbeat::CutAt(cut), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Millis = Millis::new;
    const TIMEOUT: Duration = Duration::from_millis(700);

    #[test]
    fn a_ping_is_due_one_interval_after_the_pong() {
        let mut timers = Timers { heartbeat: Heartbeat::PingAt(AT(1000)), ..Timers::default() };
        assert_eq!((timers.next(), timers.due(AT(999), TIMEOUT)), (Some(AT(1000)), None));
        assert_eq!(timers.due(AT(1005), TIMEOUT), Some(Due::Ping));
        assert_eq!(timers.next(), Some(AT(1705)));
        timers.pong(AT(1300), Duration::from_secs(1));
        assert_eq!(timers.next(), Some(AT(2300)));
        assert_eq!(timers.due(AT(2300), TIMEOUT), Some(Due::Ping));
        assert_eq!((timers.due(AT(2999), TIMEOUT), timers.due(AT(3000), TIMEOUT)), (None, Some(Due::PingTimeout)));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_closing_connection_only_waits_for_its_cut() {
        let heartbeat = Heartbeat::PongBy(AT(7));
        let (connect_by, expires, write_by) = (Some(AT(5)), Some(AT(6)), Some(AT(8)));
        let mut timers = Timers { connect_by, expires, heartbeat, write_by };
        assert_eq!(timers.next(), Some(AT(5)));
        timers.closing(AT(50));
        timers.start(AT(70), Some(AT(60)));
        timers.pong(AT(8), TIMEOUT);
        assert_eq!(timers.next(), Some(AT(50)));
        let due: Vec<_> = [49, 50, 60].map(|now| timers.due(AT(now), TIMEOUT)).into();
        assert_eq!(due, [None, Some(Due::Cut), None]);
    }

    #[test]
    fn they_are_small() {
        assert_eq!(size_of::<Timers>(), 40, "every idle connection has them");
    }
}
