//! The table of keys. A new key needs a line here, a field in the `config.rs` of its module, and a line in
//! `config.example.toml` and in `docs/configuration.md` (tests check both).

use crate::backend::config::{BackendConfig, NOTIFICATIONS};
use crate::config::address::{
    AdminListen, FileMode, Listen, Networks, http_url, masked_url, origin, otlp_endpoint, redis_url, without_query,
};
use crate::config::algorithm::AlgorithmName;
use crate::config::claims::Claims;
use crate::config::file::{FilePath, InFile, LinesInFile};
use crate::config::kind::{
    Choice, Hidden, Kind, List, Masked, Maybe, OneOrList, Ratio, Size, Span, Switch, Text, count,
};
use crate::config::mistake::Faults;
use crate::config::node::Node;
use crate::config::rules::{OnRule, RoomRule};
use crate::config::settings::Config;
use crate::config::text;

/// One key of the configuration.
pub(super) struct Key {
    /// Its table; empty: the top of the file.
    pub section: &'static str,
    /// Its name in the table.
    pub name: &'static str,
    /// Reads and checks a value, and stores it.
    pub read: fn(&mut Config, &Node) -> Result<(), Faults>,
    /// Its value as TOML, secrets masked; `None`: not set.
    pub show: fn(&Config) -> Option<String>,
    /// Whether two configurations have the same value.
    pub is_same: fn(&Config, &Config) -> bool,
    /// Gives a configuration the value of another one.
    pub copy: fn(&mut Config, &Config),
}

impl Key {
    /// `redis.url`, `listen`.
    pub(super) fn full_name(&self) -> String {
        match self.section {
            "" => self.name.to_owned(),
            section => format!("{section}.{}", self.name),
        }
    }

    /// `ROOMCAST_REDIS__URL`.
    pub(super) fn environment_name(&self) -> String {
        let name = self.name.to_ascii_uppercase();
        match self.section {
            "" => format!("ROOMCAST_{name}"),
            section => format!("ROOMCAST_{}__{name}", section.to_ascii_uppercase()),
        }
    }

    /// The key whose value this gives: `redis.url` for `url` and `url_file`, `auth.secret` for `secrets` too.
    pub(super) fn slot(&self) -> String {
        let name = self.name.strip_suffix("_file").unwrap_or(self.name);
        let name = if name == "secrets" { "secret" } else { name };
        if self.section.is_empty() { name.to_owned() } else { format!("{}.{name}", self.section) }
    }

    /// Whether the value is the path of a file.
    pub(super) fn is_file(&self) -> bool {
        self.name.ends_with("_file")
    }

    /// Whether the effective configuration has a line for it. Rules have tables instead.
    pub(super) fn is_shown(&self) -> bool {
        let rules = self.section.is_empty() && matches!(self.name, "rooms" | "on");
        !rules && (!self.is_file() || self.name == "public_key_file" || self.section == "tls")
    }
}

/// The key of this name.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

const MASK: fn(&str) -> String = |_| "***".into();
const TOKEN_SECRET: Hidden = Hidden { check: text::token_secret, show: MASK };
const TOKEN_SECRETS: List<Hidden> = List { of: TOKEN_SECRET, least: 0 };
const BEARER_KEY: Hidden = Hidden { check: text::bearer_key, show: MASK };
const BACKEND_SECRET: Hidden = Hidden { check: text::filled, show: MASK };
const OTLP_HEADER: Hidden = Hidden { check: text::header_pair, show: MASK };
const REDIS_URL: Hidden = Hidden { check: redis_url, show: masked_url };
const HTTP_URL: Masked = Masked { check: http_url, show: without_query };
const TRANSPORTS: List<Choice> = List { of: Choice(&["polling", "websocket"]), least: 1 };

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const MB: u64 = 1_000_000;
const GB: u64 = 1_000 * MB;

fn same_secrets(one: &Config, other: &Config) -> bool {
    (&one.auth.secret, &one.auth.other_secrets) == (&other.auth.secret, &other.auth.other_secrets)
}

fn copy_secrets(config: &mut Config, from: &Config) {
    config.auth.secret.clone_from(&from.auth.secret);
    config.auth.other_secrets.clone_from(&from.auth.other_secrets);
}

macro_rules! key {
    // `[backend]` exists only if one of its keys does.
    ($section:literal, $name:literal, backend.$field:ident, $kind:expr) => {
        Key {
            section: $section,
            name: $name,
            read: |config, node| {
                let value = $kind.read(node)?;
                config.backend.get_or_insert_default().$field = value;
                Ok(())
            },
            show: |config| config.backend.as_ref().and_then(|backend| $kind.write(&backend.$field)),
            is_same: |one, other| match (&one.backend, &other.backend) {
                (Some(one), Some(other)) => one.$field == other.$field,
                (Some(one), None) | (None, Some(one)) => one.$field == BackendConfig::default().$field,
                (None, None) => true,
            },
            copy: |config, from| {
                if let (Some(backend), Some(from)) = (&mut config.backend, &from.backend) {
                    backend.$field = from.$field.clone();
                }
            },
        }
    };
    ($section:literal, $name:literal, $($field:ident).+, $kind:expr) => {
        Key {
            section: $section,
            name: $name,
            read: |config, node| {
                config.$($field).+ = $kind.read(node)?;
                Ok(())
            },
            show: |config| $kind.write(&config.$($field).+),
            is_same: |one, other| one.$($field).+ == other.$($field).+,
            copy: |config, from| config.$($field).+ = from.$($field).+.clone(),
        }
    };
}

#[rustfmt::skip]
pub(super) static KEYS: &[Key] = &[
    key!("", "listen", listen.listen, Listen),
    key!("", "admin_listen", listen.admin_listen, Maybe(AdminListen)),
    key!("", "admin_socket_mode", listen.admin_socket_mode, FileMode),

    key!("redis", "url", redis.url, Maybe(REDIS_URL)),
    key!("redis", "url_file", redis.url, Maybe(InFile(REDIS_URL))),
    key!("redis", "prefix", redis.prefix, Text(text::key_prefix)),
    key!("redis", "timeout", redis.timeout, Span(10..=MINUTE)),
    key!("redis", "emitter_key", redis.emitter_key, Maybe(Text(text::redis_key))),
    key!("redis", "streams_key", redis.streams_key, Maybe(Text(text::redis_key))),
    key!("redis", "min_replicas", redis.min_replicas, count(0..=16)),
    key!("redis", "node_key_lifetime", redis.node_key_lifetime, Span(MINUTE..=30 * 24 * HOUR)),
    key!("redis", "partitions", redis.partitions, count(1..=64)),
    key!("redis", "partition_segments", redis.partition_segments, count(0..=16)),
    key!("redis", "max_stream_bytes", redis.max_stream_bytes, Size(MB..=1_000 * GB)),

    key!("http", "idle_timeout", http.idle_timeout, Span(SECOND..=24 * HOUR)),
    key!("http", "allowed_hosts", http.allowed_hosts, List { of: Text(text::host), least: 0 }),
    key!("http", "trusted_proxies", http.trusted_proxies, List { of: Networks, least: 0 }),
    key!("http", "proxy_protocol", http.proxy_protocol, Switch),
    key!("http", "head_timeout", http.head_timeout, Span(100..=10 * MINUTE)),
    key!("http", "write_timeout", http.write_timeout, Span(100..=10 * MINUTE)),

    key!("tls", "cert_file", tls.cert_file, Maybe(FilePath)),
    key!("tls", "key_file", tls.key_file, Maybe(FilePath)),

    Key {
        section: "auth",
        name: "secret",
        read: |config, node| {
            config.auth.set_secrets(Maybe(TOKEN_SECRET).read(node)?.into_iter());
            Ok(())
        },
        show: |config| Maybe(TOKEN_SECRET).write(&config.auth.secret).filter(|_| config.auth.other_secrets.is_empty()),
        is_same: same_secrets,
        copy: copy_secrets,
    },
    Key {
        section: "auth",
        name: "secret_file",
        read: |config, node| {
            config.auth.set_secrets(Maybe(InFile(TOKEN_SECRET)).read(node)?.into_iter());
            Ok(())
        },
        show: |_| None,
        is_same: same_secrets,
        copy: copy_secrets,
    },
    Key {
        section: "auth",
        name: "secrets",
        read: |config, node| {
            config.auth.set_secrets(TOKEN_SECRETS.read(node)?.into_iter());
            Ok(())
        },
        show: |config| {
            let all = config.auth.secret.iter().chain(&config.auth.other_secrets).cloned().collect();
            (!config.auth.other_secrets.is_empty()).then(|| TOKEN_SECRETS.write(&all)).flatten()
        },
        is_same: same_secrets,
        copy: copy_secrets,
    },
    Key {
        section: "auth",
        name: "secrets_file",
        read: |config, node| {
            config.auth.set_secrets(LinesInFile(TOKEN_SECRET).read(node)?.into_iter());
            Ok(())
        },
        show: |_| None,
        is_same: same_secrets,
        copy: copy_secrets,
    },
    Key {
        section: "auth",
        name: "public_key_file",
        read: |config, node| {
            config.auth.public_key = Maybe(InFile(Text(text::pem))).read(node)?;
            Ok(())
        },
        // The path of the file is not kept.
        show: |config| config.auth.public_key.as_ref().map(|_| "\"…\"".into()),
        is_same: |one, other| one.auth.public_key == other.auth.public_key,
        copy: |config, from| config.auth.public_key = from.auth.public_key.clone(),
    },
    key!("auth", "jwks_url", auth.jwks_url, Maybe(HTTP_URL)),
    key!("auth", "algorithms", auth.algorithms, List { of: AlgorithmName, least: 1 }),
    key!("auth", "user_claim", auth.user_claim, Text(text::claim_path)),
    key!("auth", "issuer", auth.issuer, OneOrList(Text(text::filled))),
    key!("auth", "audience", auth.audience, OneOrList(Text(text::filled))),
    key!("auth", "require", auth.require, Claims),
    key!("auth", "leeway", auth.leeway, Span(0..=HOUR)),
    key!("auth", "require_exp", auth.require_exp, Switch),
    key!("auth", "rooms_claim", auth.rooms_claim, Text(text::claim_path)),
    key!("auth", "anonymous", auth.anonymous, Switch),
    key!("auth", "revoke_for", auth.revoke_for, Span(SECOND..=31 * 24 * HOUR)),
    key!("auth", "max_revocations", auth.max_revocations, count(1..=10_000_000)),

    key!("publish", "keys", publish.keys, List { of: BEARER_KEY, least: 0 }),
    key!("publish", "keys_file", publish.keys, LinesInFile(BEARER_KEY)),
    key!("publish", "max_body", publish.max_body, Size(100..=GB)),
    key!("publish", "max_event", publish.max_event, Size(100..=GB)),

    key!("console", "enabled", console.enabled, Switch),
    key!("console", "session_ttl", console.session_ttl, Span(MINUTE..=31 * 24 * HOUR)),
    key!("console", "sign_ins_per_minute", console.sign_ins_per_minute, count(1..=60)),
    key!("console", "admin_ui", admin_ui.enabled, Switch),
    key!("console", "admin_ui_readonly", admin_ui.readonly, Switch),
    key!("console", "admin_ui_sockets", admin_ui.sockets, count(0..=5_000)),
    key!("console", "admin_ui_events", admin_ui.events, count(0..=500)),
    key!("console", "admin_ui_sessions", admin_ui.sessions, count(1..=100)),

    key!("cors", "origins", cors.origins, List { of: Text(origin), least: 0 }),

    key!("socketio", "path", socketio.path, Text(text::socketio_path)),
    key!("socketio", "ping_interval", socketio.ping_interval, Span(100..=HOUR)),
    key!("socketio", "ping_timeout", socketio.ping_timeout, Span(100..=HOUR)),
    key!("socketio", "max_payload", socketio.max_payload, Size(100..=GB)),
    key!("socketio", "connect_timeout", socketio.connect_timeout, Span(100..=HOUR)),
    Key {
        section: "socketio",
        name: "transports",
        read: |config, node| {
            let names = TRANSPORTS.read(node)?;
            config.socketio.polling = names.iter().any(|name| name == "polling");
            config.socketio.websocket = names.iter().any(|name| name == "websocket");
            Ok(())
        },
        show: |config| {
            let names = [("polling", config.socketio.polling), ("websocket", config.socketio.websocket)];
            TRANSPORTS.write(&names.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).to_owned()).collect())
        },
        is_same: |one, other| {
            (one.socketio.polling, one.socketio.websocket) == (other.socketio.polling, other.socketio.websocket)
        },
        copy: |config, from| {
            (config.socketio.polling, config.socketio.websocket) = (from.socketio.polling, from.socketio.websocket);
        },
    },
    key!("socketio", "namespaces", socketio.namespaces, List { of: Text(text::namespace), least: 1 }),

    key!("recovery", "window", recovery.window, Span(0..=24 * HOUR)),
    key!("recovery", "window_bytes", recovery.window_bytes, Size(1_000..=64 * GB)),
    key!("recovery", "room_bytes", recovery.room_bytes, Size(1_000..=64 * GB)),
    key!("recovery", "tenant_segments", recovery.tenant_segments, count(0..=16)),
    key!("recovery", "backfill_timeout", recovery.backfill_timeout, Span(100..=60 * SECOND)),

    key!("explain", "window", explain.window, Span(SECOND..=24 * HOUR)),
    key!("explain", "bytes", explain.bytes, Size(0..=GB)),

    key!("limits", "connections", limits.connections, count(1..=10_000_000)),
    key!("limits", "connections_per_ip", limits.connections_per_ip, count(0..=10_000_000)),
    key!("limits", "unauthenticated", limits.unauthenticated, count(1..=10_000_000)),
    key!("limits", "auth_bytes", limits.auth_bytes, Size(100..=MB)),
    key!("limits", "rooms_per_session", limits.rooms_per_session, count(1..=1_000_000)),
    key!("limits", "room_name_bytes", limits.room_name_bytes, count(16..=65_535)),
    key!("limits", "outbox_bytes", limits.outbox_bytes, Size(1_000..=GB)),
    key!("limits", "events_per_second", limits.events_per_second, count(1..=1_000_000)),
    key!("limits", "bytes_per_second", limits.bytes_per_second, Size(1_000..=GB)),
    key!("limits", "joins_per_second", limits.joins_per_second, count(1..=1_000_000)),
    key!("limits", "user_connections", limits.user_connections, count(0..=10_000_000)),
    key!("limits", "user_events_per_second", limits.user_events_per_second, Maybe(count(0..=10_000_000))),
    key!("limits", "user_bytes_per_second", limits.user_bytes_per_second, Size(0..=GB)),
    key!("limits", "user_connects_per_second", limits.user_connects_per_second, count(0..=1_000_000)),
    key!("limits", "user_joins_per_second", limits.user_joins_per_second, count(0..=1_000_000)),
    key!("limits", "tenant_claim", limits.tenant_claim, Maybe(Text(text::claim_path))),
    key!("limits", "tenant_connections", limits.tenant_connections, count(0..=10_000_000)),
    key!("limits", "tenant_events_per_second", limits.tenant_events_per_second, count(0..=10_000_000)),
    key!("limits", "tenant_bytes_per_second", limits.tenant_bytes_per_second, Size(0..=GB)),
    key!("limits", "tenant_joins_per_second", limits.tenant_joins_per_second, count(0..=1_000_000)),
    key!("limits", "memory", limits.memory, Maybe(Size(16 * MB..=16_000 * GB))),
    key!("limits", "headers", limits.headers, count(16..=1_000)),

    key!("presence", "grace", presence.grace, Span(0..=HOUR)),
    key!("presence", "lease", presence.lease, Span(SECOND..=HOUR)),
    key!("presence", "remember", presence.remember, Span(SECOND..=366 * 24 * HOUR)),
    key!("presence", "announce_limit", presence.announce_limit, count(0..=1_000_000)),

    key!("trace", "max_open", trace.max_open, count(0..=1_000)),
    key!("trace", "max_time", trace.max_time, Span(SECOND..=24 * HOUR)),
    key!("trace", "lines_per_second", trace.lines_per_second, count(1..=100_000)),
    key!("trace", "bytes_per_second", trace.bytes_per_second, Size(1_000..=100 * MB)),
    key!("trace", "payloads", trace.payloads, Switch),

    key!("telemetry", "otlp_endpoint", telemetry.otlp_endpoint, Maybe(Text(otlp_endpoint))),
    key!("telemetry", "service_name", telemetry.service_name, Text(text::filled)),
    key!("telemetry", "headers", telemetry.headers, List { of: OTLP_HEADER, least: 0 }),
    key!("telemetry", "headers_file", telemetry.headers, LinesInFile(OTLP_HEADER)),
    key!("telemetry", "traces", telemetry.traces, Switch),
    key!("telemetry", "traces_sample_ratio", telemetry.traces_sample_ratio, Ratio),
    key!("telemetry", "room_names", telemetry.room_names, Switch),
    key!("telemetry", "metrics_interval", telemetry.metrics_interval, Span(0..=HOUR)),
    key!("telemetry", "timeout", telemetry.timeout, Span(100..=MINUTE)),
    key!("telemetry", "queue", telemetry.queue, count(1..=1_000_000)),

    key!("log", "level", log.level, Text(text::log_filter)),
    key!("log", "format", log.format, Choice(&["text", "json"])),

    key!("shutdown", "pause", shutdown.pause, Span(0..=10 * MINUTE)),
    key!("shutdown", "drain", shutdown.drain, Span(0..=HOUR)),
    key!("shutdown", "timeout", shutdown.timeout, Span(0..=HOUR)),

    key!("", "rooms", rooms, List { of: RoomRule, least: 0 }),
    key!("", "on", on, List { of: OnRule, least: 0 }),

    key!("backend", "url", backend.url, Maybe(HTTP_URL)),
    key!("backend", "stream", backend.stream, Maybe(Text(text::redis_key))),
    key!("backend", "stream_limit", backend.stream_limit, count(1..=100_000_000)),
    key!("backend", "secret", backend.secret, Maybe(BACKEND_SECRET)),
    key!("backend", "secret_file", backend.secret, Maybe(InFile(BACKEND_SECRET))),
    key!("backend", "timeout", backend.timeout, Span(10..=5 * MINUTE)),
    key!("backend", "concurrency", backend.concurrency, count(1..=10_000)),
    key!("backend", "per_user", backend.per_user, count(1..=10_000)),
    key!("backend", "queue", backend.queue, count(1..=1_000_000)),
    key!("backend", "queue_per_user", backend.queue_per_user, count(1..=1_000_000)),
    key!("backend", "queue_bytes", backend.queue_bytes, Size(100_000..=64 * GB)),
    key!("backend", "notices_bytes", backend.notices_bytes, Size(100_000..=64 * GB)),
    key!("backend", "notify", backend.notify, List { of: Choice(&NOTIFICATIONS), least: 0 }),
];
