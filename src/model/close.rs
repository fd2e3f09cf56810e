//! Why a connection ends: one table with WebSocket close code, retry advice and metric label.

use std::time::Duration;

macro_rules! reasons {
    ($($name:ident, $label:literal, $code:expr, $retry:expr, $doc:literal;)*) => {
        /// Why a connection or session was closed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CloseReason { $(#[doc = $doc] $name,)* }

        impl CloseReason {
            /// Every reason, in the order of their discriminants.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The `reason` label of `roomcast_closes_total`, and the `reason` that `/ws` clients get.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }

            /// What it means.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $doc),* }
            }

            /// The WebSocket close code on `/ws`. `None`: a close frame without a code.
            /// Engine.IO always closes without a code, but for 1009 (docs/protocol/socketio.md sections 2.7 and 2.9).
            pub fn code(self) -> Option<u16> {
                match self { $(Self::$name => $code),* }
            }

            /// Whether its client may still be sending. Such a connection stays open until the client hangs up or is cut:
            /// a proxy would pass on a half-close at once, and drop the close frame.
            pub fn may_be_sending(self) -> bool {
                matches!(self, Self::RateLimit | Self::TooBig | Self::Memory)
            }

            /// When a client may reconnect. `None`: not by itself.
            pub fn retry(self) -> Option<Duration> {
                match self { $(Self::$name => $retry),* }
            }
        }
    };
}

const NOW: Option<Duration> = Some(Duration::ZERO);
const SOON: Option<Duration> = Some(Duration::from_secs(1));
const LATER: Option<Duration> = Some(Duration::from_secs(10));

reasons! {
    TransportClose, "transport_close", None, NOW, "The peer closed its connection, or the network did.";
    ClientClose, "client_close", Some(1000), None, "The client announced that it leaves.";
    PingTimeout, "ping_timeout", Some(1001), NOW, "No answer to a ping within `ping_timeout`.";
    ConnectTimeout, "connect_timeout", Some(4401), SOON, "No session joined or authenticated within `connect_timeout`.";
    ParseError, "parse_error", Some(1002), SOON, "Bytes that break the protocol.";
    InvalidText, "invalid_text", Some(1007), SOON, "A text message that is not UTF-8.";
    Incomplete, "incomplete", Some(1008), SOON, "A message, or the attachments of a packet, that did not arrive whole in time.";
    TooBig, "too_big", Some(1009), SOON, "A message over `max_payload`.";
    Overlap, "overlapping_requests", None, SOON, "Two polling GETs or two POSTs at once on one session.";
    Evicted, "evicted", Some(1013), SOON, "It had no accepted token, and made room for newer connections (`limits.unauthenticated`).";
    SlowConsumer, "slow_consumer", Some(4408), SOON, "More unsent bytes than `outbox_bytes`, or none of them taken for `ping_timeout`.";
    RateLimit, "rate_limit", Some(4429), LATER, "More events than the limit allows, or too many unhandled packets.";
    TooManyConnections, "too_many_connections", Some(4429), LATER, "The user or the tenant has all the connections it may have.";
    Unauthorized, "unauthorized", Some(4401), None, "No token, or a refused one.";
    TokenExpired, "token_expired", Some(4401), NOW, "The token expired on a live connection.";
    Refused, "refused", Some(4403), None, "Not allowed here: origin, user or limit.";
    Moved, "moved", None, NOW, "A polling session continues on a WebSocket of another node; its client notices nothing.";
    Replaced, "replaced", Some(4409), None, "The same session connected again.";
    Revoked, "revoked", Some(4401), None, "Its token was revoked.";
    Disconnected, "disconnected", Some(4403), None, "The backend asked for it by `/disconnect`.";
    Draining, "draining", Some(1001), SOON, "This node is shutting down.";
    Memory, "memory", Some(1013), LATER, "This node is near `limits.memory`, and the connection held much or was new.";
    Unreachable, "unreachable", Some(1013), SOON, "Its session may be on another node that cannot be reached.";
    LogReset, "log_reset", Some(1001), SOON, "The log lost accepted entries; clients start over.";
}

/// Between once and twice as long, so that clients that lose their connections together do not reconnect together.
pub fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(1.0..2.0))
}

/// Why an event or a message was not delivered; the `reason` of `roomcast_drops_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// A volatile event for a receiver that is not writable.
    VolatileNotWritable,
    /// Queued for a connection that was closed. A resume recovers it while the window has it.
    ClosedWithQueue,
    /// A stream or emitter entry that could not be read.
    Malformed,
    /// A client's event without a rule.
    NoRule,
    /// A notice that the backend did not take within five minutes.
    Notice,
    /// A notice that others pushed out: more than `backend.notices_bytes` waited.
    NoticeFull,
    /// A notice that a newer one about the same session, user or room replaced while it waited.
    NoticeMerged,
    /// The end of a session for which neither its `disconnect` rule ran nor the backend got a notice: too many waited.
    Disconnect,
    /// A session record that Redis refused. Its client cannot resume if this node dies.
    Record,
    /// A stream entry of a newer release, which this one does not know.
    Unsupported,
    /// A `joined` or `left` in a room with more members than `presence.announce_limit`.
    Crowd,
    /// A client's message that waited for its turn when its connection closed.
    Unhandled,
    /// A message between nodes that had been read before, or that was sent more than 30 seconds ago.
    Replayed,
    /// What Redis carried out only after its deadline, when its publisher had got an error.
    Late,
}

impl DropReason {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [Self; 14] = [
        Self::VolatileNotWritable,
        Self::ClosedWithQueue,
        Self::Malformed,
        Self::NoRule,
        Self::Notice,
        Self::NoticeFull,
        Self::NoticeMerged,
        Self::Disconnect,
        Self::Record,
        Self::Unsupported,
        Self::Crowd,
        Self::Unhandled,
        Self::Replayed,
        Self::Late,
    ];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::VolatileNotWritable => "volatile_not_writable",
            Self::ClosedWithQueue => "closed_with_queue",
            Self::Malformed => "malformed",
            Self::NoRule => "no_rule",
            Self::Notice => "notice",
            Self::NoticeFull => "notice_full",
            Self::NoticeMerged => "notice_merged",
            Self::Disconnect => "disconnect",
            Self::Record => "record",
            Self::Unsupported => "unsupported",
            Self::Crowd => "crowd",
            Self::Unhandled => "unhandled",
            Self::Replayed => "replayed",
            Self::Late => "late",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_documented_codes() {
        let code = |reason: CloseReason| reason.code();
        assert_eq!(code(CloseReason::TokenExpired), Some(4401));
        assert_eq!(code(CloseReason::Refused), Some(4403));
        assert_eq!(code(CloseReason::SlowConsumer), Some(4408));
        assert_eq!(code(CloseReason::Replaced), Some(4409));
        assert_eq!(code(CloseReason::RateLimit), Some(4429));
        assert_eq!(code(CloseReason::Draining), Some(1001));
        let mut labels: Vec<_> = CloseReason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), CloseReason::ALL.len());
    }
}
