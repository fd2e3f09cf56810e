//! What is refused, by the setting or the rule that refuses it.

macro_rules! refusals {
    ($($name:ident, $label:literal, $doc:literal;)*) => {
        /// The reason of a refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Refusal { $(#[doc = $doc] $name,)* }

        impl Refusal {
            /// Every reason, in the order of their discriminants.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The `reason` label of `roomcast_refusals_total`, also in the log.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }
        }
    };
}

refusals! {
    Origin, "origin", "A web page whose origin is not in `cors.origins`.";
    Host, "host", "A request whose `Host` is not in `http.allowed_hosts`, or that has none or several.";
    Token, "token", "A client's token, or none.";
    PublishKey, "publish_key", "A key that is not in `publish.keys`, or none.";
    Connections, "connections", "`limits.connections` or `limits.connections_per_ip` is reached.";
    Unauthenticated, "unauthenticated", "Closed without an accepted token to make room for newer connections: `limits.unauthenticated`.";
    Namespace, "namespace", "A namespace that is not in `socketio.namespaces`.";
    Transport, "transport", "A transport that is not in `socketio.transports`.";
    Handshake, "handshake", "A handshake that is not one, or of another protocol version.";
    Parser, "parser", "A Socket.IO parser that is not spoken here.";
    Session, "session", "A request for a session that is not there (any more).";
    PeerBusy, "peer_busy", "A polling request for a session of another node to which too much is on its way.";
    Room, "room", "A room that no rule lets the client into.";
    Event, "event", "A client's event that no rule takes, or that its rule cannot carry out.";
    Backend, "backend", "A join or an event that the backend refuses.";
    Memory, "memory", "A connection, a session or a replay while the node is near `limits.memory`.";
    Rate, "rate", "More events than `limits.events_per_second`.";
    Size, "size", "A body, a message or an event over its limit.";
    Headers, "headers", "A request with more or longer headers than are read.";
    Protocol, "protocol", "Bytes or messages that break the protocol.";
    Tls, "tls", "A TLS handshake that failed: no TLS, an old version, or a client that does not accept the certificate.";
    ProxyHeader, "proxy_header", "A connection without the header that `http.proxy_protocol` expects.";
    Incomplete, "incomplete", "A request, a message or its attachments that did not arrive whole in time.";
    Request, "request", "A request with a field or a body that cannot be used.";
    Revocations, "revocations", "More revoked users and tokens than `auth.max_revocations`.";
    Path, "path", "A path or a method that is not served here.";
}
