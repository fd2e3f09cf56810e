//! Label values that are known beforehand. Their series exist from the start, at 0: a series that appears with its first
//! event has no increase that an alert could see.

/// `roomcast_connections`: transport and protocol.
pub(super) const CONNECTIONS: [[&str; 2]; 4] =
    [["websocket", "socketio"], ["polling", "socketio"], ["websocket", "ws"], ["sse", "sse"]];

/// `roomcast_handshakes_total`: `ok`, the codes of `AuthError`, and a parser that is not spoken.
pub(super) const HANDSHAKES: [&str; 18] = [
    "ok",
    "token_missing",
    "token_malformed",
    "token_algorithm",
    "token_unknown_key",
    "token_signature",
    "token_expired",
    "token_without_exp",
    "token_not_yet_valid",
    "token_time",
    "token_issuer",
    "token_audience",
    "token_claim",
    "token_user",
    "token_rooms",
    "revoked",
    "unsupported_parser",
    "auth_too_big",
];

/// `roomcast_tls_handshakes_total`: `ok`, the labels of `HandshakeError`, and what ends a handshake from outside.
pub(super) const TLS_HANDSHAKES: [&str; 13] = [
    "ok",
    "empty",
    "closed",
    "plain_http",
    "not_tls",
    "version",
    "parameters",
    "alpn",
    "alert",
    "malformed",
    "timeout",
    "evicted",
    "memory",
];

/// `roomcast_recoveries_total`.
pub(super) const RECOVERIES: [&str; 12] = [
    "recovered",
    "unknown_session",
    "too_old",
    "not_kept",
    "foreign_epoch",
    "future",
    "bad_offset",
    "rooms_unknown",
    "disconnected",
    "unreachable",
    "undecided",
    "gone",
];

/// `roomcast_gaps_total`.
pub(super) const GAPS: [&str; 6] = ["log_reset", "too_old", "not_kept", "foreign_epoch", "future", "bad_offset"];

/// `roomcast_backfills_total`.
pub(super) const BACKFILLS: [&str; 3] = ["complete", "partial", "unavailable"];

/// `roomcast_backend_requests_total` and `roomcast_backend_request_seconds`.
pub(super) const BACKEND_TYPES: [&str; 8] =
    ["join", "event", "connect", "disconnect", "online", "offline", "occupied", "vacated"];
pub(super) const BACKEND_RESULTS: [&str; 9] =
    ["ok", "timeout", "unreachable", "resting", "busy", "full", "status", "bad_answer", "refused"];

/// `roomcast_events_refused_total`: what a publisher, a stream entry or a client's event can be refused for.
pub(super) const EVENT_REASONS: [&str; 11] = [
    "no_room",
    "too_many_rooms",
    "bad_room",
    "bad_namespace",
    "bad_event_name",
    "reserved_event",
    "bad_id",
    "event_too_big",
    "bad_field",
    "bad_json",
    "too_many_attachments",
];
pub(super) const LOG_REASONS: [&str; 4] = ["unavailable", "overloaded", "log_refused", "not_replicated"];
pub(super) const HTTP_REASONS: [&str; 3] = ["body_too_big", "body_timeout", "bad_body"];
pub(super) const CLIENT_REASONS: [&str; 19] = [
    "rate_limited",
    "no_rule",
    "not_in_room",
    "forbidden",
    "missing_value",
    "not_text",
    "empty_value",
    "forbidden_character",
    "too_deep",
    "too_big",
    "gone",
    "refused",
    "backend_timeout",
    "backend_unavailable",
    "backend_full",
    "backend_error",
    "backend_bad_answer",
    "bad_room",
    "too_many_rooms",
];
pub(super) const EMITTER_REASONS: [&str; 4] = ["bad_msgpack", "pickle", "ack_unsupported", "bad_packet_type"];

/// `roomcast_publish_answers_total`: those that it has, besides `other`.
pub(super) const PUBLISH_STATUSES: [(u16, &str); 8] =
    [(200, "200"), (400, "400"), (401, "401"), (403, "403"), (405, "405"), (408, "408"), (413, "413"), (503, "503")];

/// `roomcast_config_reloads_total`.
pub(super) const RELOADS: [&str; 3] = ["applied", "unchanged", "refused"];

/// `roomcast_memberships_lost_total`.
pub(super) const LOSSES: [&str; 2] = ["token", "rules"];

/// `roomcast_telemetry_dropped_total`, in the order of `TelemetryDrop`.
pub(super) const TELEMETRY_DROPS: [&str; 3] = ["queue_full", "export_failed", "rejected"];

/// `roomcast_telemetry_exports_total`, in the order of `Signal`.
pub(super) const SIGNALS: [&str; 2] = ["traces", "metrics"];
pub(super) const EXPORT_RESULTS: [&str; 2] = ["ok", "failed"];
