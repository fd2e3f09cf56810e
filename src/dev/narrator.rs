//! Refusals in plain words, with what to do about each.

use crate::model::refusal::Refusal;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Different refusals that are counted. When there are more, all are shown again.
const MAX_KNOWN: usize = 1_000;

/// Tells each refusal once, and how often it has come back.
#[derive(Default)]
pub struct Narrator {
    counts: Mutex<HashMap<String, u64>>,
}

impl Narrator {
    /// What to print about a refusal; `None` for one that was shown and has come back a few times only.
    pub fn tell(&self, reason: Refusal, who: &str, why: &str) -> Option<String> {
        let line = format!("refused ({}): {who}: {why}", reason.label());
        let count = {
            let mut counts = self.counts.lock();
            if counts.len() >= MAX_KNOWN {
                counts.clear();
            }
            let count = counts.entry(line.clone()).or_default();
            *count += 1;
            *count
        };
        match count {
            1 => Some(format!("{line}\n    -> {}", advice(reason))),
            // 10, 100, 1000 …
            count if count >= 10 && count == 10_u64.pow(count.ilog10()) => {
                Some(format!("{line} ({count} times by now)"))
            }
            _ => None,
        }
    }
}

/// What to do about a refusal.
pub fn advice(reason: Refusal) -> &'static str {
    match reason {
        Refusal::Origin => {
            "add the page's origin to `cors.origins`; pages of this machine are let in by `roomcast dev` alone"
        }
        Refusal::Host => "add the name by which the node is reached to `http.allowed_hosts`",
        Refusal::Token => {
            "sign with the configured key and algorithm, and give the token an `exp`; `roomcast token --user 1` prints a \
             good one, `auth.anonymous = true` lets clients in without"
        }
        Refusal::PublishKey => "send `Authorization: Bearer <key>` with one of `publish.keys` (ROOMCAST_PUBLISH__KEYS)",
        Refusal::Connections => "raise the limit that the line names, or close what is not needed",
        Refusal::Unauthenticated => {
            "send the token as soon as the connection is open; raise `limits.unauthenticated` for many clients at once"
        }
        Refusal::Namespace => "add the namespace to `socketio.namespaces`, or connect to `/`",
        Refusal::Transport => "add the transport to `socketio.transports`, or leave `transports` out in the client",
        Refusal::Handshake => {
            "connect with socket.io-client 3 or newer to `socketio.path`; /ws wants a WebSocket, /sse a GET"
        }
        Refusal::Parser => "use the default parser or socket.io-msgpack-parser on both sides",
        Refusal::Session => "nothing to do: the client opens a new session by itself; after a restart this is normal",
        Refusal::PeerBusy => {
            "nothing to do if it is rare; sticky sessions, or `transports: [\"websocket\"]` in the clients, save the way \
             between nodes"
        }
        Refusal::Room => {
            "add a [[rooms]] rule that matches the room with join = \"allow\" (or \"ask\" for your backend), or name the \
             room in the token: `roomcast token --user 1 --room NAME`"
        }
        Refusal::Event => "add an [[on]] rule for the event: join, leave, reply, emit, ack or forward = true",
        Refusal::Backend => {
            "see what your backend answers; `{\"allow\":true}` lets a client into a room with join = \"ask\""
        }
        Refusal::Memory => "raise `limits.memory`, add nodes, or see in `roomcast_memory_bytes` what holds it",
        Refusal::Rate => "send less, or raise the limit that the line names",
        Refusal::Size => "send less at once, or raise the limit that the line names",
        Refusal::Headers => "send fewer or shorter headers; cookies of other software on this host are the usual cause",
        Refusal::Protocol => "speak HTTP or WebSocket to this port, without TLS unless there is [tls]",
        Refusal::Incomplete => {
            "send the whole request or message at once; connections that are opened in advance are normal"
        }
        Refusal::Request => "the answer that the client got names the field",
        Refusal::Revocations => {
            "revoke for shorter, raise `auth.max_revocations`, or change the keys to refuse everybody"
        }
        Refusal::Tls => {
            "use https:// and wss:// on this port, with TLS 1.2 or newer and a client that knows the certificate's authority"
        }
        Refusal::ProxyHeader => "let the proxy write it, or set http.proxy_protocol = false",
        Refusal::Path => "see docs/http-api.md for the paths and methods",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_shown_once_with_advice_and_then_at_powers_of_ten() {
        let narrator = Narrator::default();
        let shown: Vec<_> = (0..100).filter_map(|_| narrator.tell(Refusal::Origin, "::1 /ws", "origin x")).collect();
        assert_eq!(shown.len(), 3);
        assert!(shown[0].starts_with("refused (origin): ::1 /ws: origin x\n    -> add the page's origin"));
        assert_eq!(shown[1..].iter().map(|line| line.ends_with("times by now)")).collect::<Vec<_>>(), [true, true]);
        assert!(shown[2].ends_with("(100 times by now)"));
    }

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let narrator = Narrator::default();
        for number in 0..MAX_KNOWN * 3 {
            let _ = narrator.tell(Refusal::Path, "::1", &number.to_string());
        }
        assert!(narrator.counts.lock().len() <= MAX_KNOWN);
    }
}
