//! What is refused, by the setting or the rule that refuses it, and what to do about it: one table for the counters, the log
//! and `roomcast dev`.

macro_rules! refusals {
    ($($name:ident, $label:literal, $doc:literal, $advice:literal;)*) => {
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

            /// What to do about it.
            pub fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice),* }
            }
        }
    };
}

refusals! {
    Origin, "origin", "A web page whose origin is not in `cors.origins`.",
        "add the page's origin to `cors.origins`; pages of this machine are let in by `roomcast dev` alone";
    Host, "host", "A request whose `Host` is not in `http.allowed_hosts`, or that has none or several.",
        "add the name by which the node is reached to `http.allowed_hosts`";
    Token, "token", "A client's token, or none.",
        "send a token, as in io(url, { auth: { token } }), that your API signs with the configured secret (JWT_SECRET), with the user in `sub` and an `exp` in the future; `roomcast token --user 1` prints a good one";
    PublishKey, "publish_key", "A key that is not in `publish.keys`, or none.",
        "send `Authorization: Bearer <key>` with one of `publish.keys` (ROOMCAST_PUBLISH__KEYS)";
    AdminUi, "admin_ui", "A page of Socket.IO's Admin UI that is not let in, or a command of one that is not carried out.",
        "its password is one of `publish.keys`; `[console]` has its limits (docs/admin-ui.md)";
    Connections, "connections", "`limits.connections` or `limits.connections_per_ip` is reached.",
        "raise the limit that the line names, or close what is not needed";
    Unauthenticated, "unauthenticated", "Closed without an accepted token: to make room for newer connections (`limits.unauthenticated`), or after `socketio.connect_timeout`.",
        "send the token as soon as the connection is open; raise `limits.unauthenticated` for many clients at once";
    Namespace, "namespace", "A namespace that is not in `socketio.namespaces`.",
        "add the namespace to `socketio.namespaces`, or connect to `/`";
    Transport, "transport", "A transport that is not in `socketio.transports`.",
        "add the transport to `socketio.transports`, or leave `transports` out in the client";
    Handshake, "handshake", "A handshake that is not one, or of another protocol version.",
        "connect with socket.io-client 3 or newer to `socketio.path`; /ws wants a WebSocket, /sse a GET";
    Parser, "parser", "A Socket.IO parser that is not spoken here.",
        "leave out the client's `parser` option: only the default parser is spoken here";
    Session, "session", "A request for a session that is not there (any more).",
        "nothing to do: the client opens a new session by itself; after a restart this is normal";
    PeerBusy, "peer_busy", "A polling request for a session of another node to which too much is on its way.",
        "nothing to do if it is rare; sticky sessions, or `transports: [\"websocket\"]` in the clients, save the way between nodes";
    Room, "room", "A room that no rule lets the client into.",
        "add a [[rooms]] rule that matches the room with join = \"allow\" (or \"ask\" for your backend), or name the room in the token: `roomcast token --user 1 --room NAME`";
    Event, "event", "A client's event that no rule takes, or that its rule cannot carry out.",
        "add an [[on]] rule for the event, or send the arguments that its rule names, as {0.chatId}; a client emits only to rooms that it has joined";
    Backend, "backend", "A join or an event that the backend refuses.",
        "see what your backend answers; `{\"allow\":true}` lets a client into a room with join = \"ask\"";
    Memory, "memory", "A connection, a session or a replay while the node is near `limits.memory`, or a connection that held much of it.",
        "raise `limits.memory`, add nodes, or see in `roomcast_memory_bytes` what holds it";
    Rate, "rate", "More events than `limits.events_per_second`.",
        "send less, or raise the limit that the line names";
    Size, "size", "A body, a message or an event over its limit.",
        "send less at once, or raise the limit that the line names";
    Headers, "headers", "A request with more or longer headers than are read.",
        "send fewer or shorter headers; cookies of other software on this host are the usual cause";
    Protocol, "protocol", "Bytes or messages that break the protocol.",
        "speak HTTP or WebSocket to this port, without TLS unless there is [tls]";
    Tls, "tls", "A TLS handshake that failed: no TLS, an old version, or a client that does not accept the certificate.",
        "use https:// and wss:// on this port, with TLS 1.2 or newer and a client that knows the certificate's authority";
    ProxyHeader, "proxy_header", "A connection without the header that `http.proxy_protocol` expects.",
        "let the proxy write it, or set http.proxy_protocol = false";
    Incomplete, "incomplete", "A request, a message or its attachments that did not arrive whole in time.",
        "send the whole request or message at once; connections that are opened in advance are normal";
    Unread, "unread", "An HTTP answer of which its client took nothing for `http.write_timeout`.",
        "read the answer; raise `http.write_timeout` for clients that pause for longer";
    Request, "request", "A request with a field or a body that cannot be used.",
        "the answer that the client got names the field";
    Revocations, "revocations", "More revoked users and tokens than `auth.max_revocations`.",
        "revoke for shorter, raise `auth.max_revocations`, or change the keys to refuse everybody";
    SignIn, "sign_in", "A sign-in to the console beyond `console.sign_ins_per_minute`.",
        "wait a minute, or raise `console.sign_ins_per_minute`";
    CrossSite, "cross_site", "A request with the console's cookie that another page than the console may have sent.",
        "open /console itself; a proxy in front must pass on the `Host` that the browser used. Programs send `Authorization: Bearer <key>`";
    Path, "path", "A path or a method that is not served here.",
        "see docs/http-api.md for the paths and methods";
    Slow, "slow_consumer", "A client that does not read what it is sent: closed for `limits.outbox_bytes` or `socketio.ping_timeout`.",
        "send it less, let it read faster, or raise `limits.outbox_bytes`; clients on sleeping devices are normal";
    NotReady, "not_ready", "A new client while this node is drained or stops, or has just started.",
        "nothing to do: the client tries again, and a load balancer that looks at /health sends it to another node";
    Traces, "traces", "More traces at once than `trace.max_open`, or payloads although `trace.payloads` is off.",
        "end a trace, or raise the setting that the line names";
}
