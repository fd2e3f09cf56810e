//! The checked configuration, and where each of its values is written.

use crate::auth::config::AuthConfig;
use crate::backend::config::BackendConfig;
use crate::config::address::url_of;
use crate::config::mistake::{Faults, Place};
use crate::config::node::{Node, Value};
use crate::explain::config::ExplainConfig;
use crate::feed::config::TraceConfig;
use crate::http::config::{ConsoleConfig, CorsConfig, HttpConfig, ListenAddress, ListenConfig, PublishConfig};
use crate::log::config::RecoveryConfig;
use crate::logging::LoggingConfig;
use crate::node::admin_ui::config::AdminUiConfig;
use crate::presence::config::PresenceConfig;
use crate::redis::config::RedisConfig;
use crate::rules::config::{OnRuleConfig, RoomRuleConfig};
use crate::session::config::{LimitsConfig, SocketIoConfig};
use crate::shutdown::ShutdownConfig;
use crate::telemetry::config::TelemetryConfig;
use crate::tls::config::TlsConfig;
use std::collections::BTreeMap;

/// The checked configuration of a node. `Debug` shows no secrets.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `listen` and `admin_listen`.
    pub listen: ListenConfig,
    /// `[http]`.
    pub http: HttpConfig,
    /// `[tls]`.
    pub tls: TlsConfig,
    /// `[redis]`.
    pub redis: RedisConfig,
    /// `[auth]`.
    pub auth: AuthConfig,
    /// `[publish]`.
    pub publish: PublishConfig,
    /// `[console]`.
    pub console: ConsoleConfig,
    /// `[cors]`.
    pub cors: CorsConfig,
    /// `[socketio]`.
    pub socketio: SocketIoConfig,
    /// `[recovery]`.
    pub recovery: RecoveryConfig,
    /// `[explain]`.
    pub explain: ExplainConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[presence]`.
    pub presence: PresenceConfig,
    /// `[trace]`.
    pub trace: TraceConfig,
    /// `[console] admin_ui` and its limits.
    pub admin_ui: AdminUiConfig,
    /// `[telemetry]`.
    pub telemetry: TelemetryConfig,
    /// `[log]`.
    pub log: LoggingConfig,
    /// `[shutdown]`.
    pub shutdown: ShutdownConfig,
    /// `[[rooms]]`, in order.
    pub rooms: Vec<RoomRuleConfig>,
    /// `[[on]]`, in order.
    pub on: Vec<OnRuleConfig>,
    /// `[backend]`, if one of its keys is given.
    pub backend: Option<BackendConfig>,
    places: Places,
}

/// Where each given key is written: `redis.url`, `rooms.0`, `rooms.0.join`.
type Places = BTreeMap<String, Place>;

/// What the configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A node in production: without a key for tokens, and without `anonymous`, it would refuse every client.
    Serve,
    /// Anything else: `demo` makes its own secret, and clients of a running node need none.
    Other,
}

impl Config {
    /// Ignores `JWT_SECRET` if no algorithm uses it: it may be for other software.
    pub(super) fn drop_foreign_secret(&mut self) {
        let unused = !self.auth.algorithms.iter().any(|algorithm| algorithm.is_symmetric());
        if unused && self.place("auth.secret", "").is_conventional() {
            self.auth.set_secrets(std::iter::empty());
            self.places.remove("auth.secret");
        }
    }

    /// Notes where a value is written. For rules, also where each of them and each of their keys is written.
    pub(super) fn remember(&mut self, slot: &str, node: &Node) {
        // An empty variable removes the value of a weaker source.
        if matches!(&node.value, Value::Plain(text) if text.trim().is_empty()) {
            self.places.remove(slot);
            return;
        }
        self.places.insert(slot.to_owned(), node.place.clone());
        if !matches!(slot, "rooms" | "on") {
            return;
        }
        for (index, rule) in node.items("a list").unwrap_or_default().iter().enumerate() {
            self.places.insert(format!("{slot}.{index}"), rule.place.clone());
            if let Value::Table(entries) = &rule.value {
                let places =
                    entries.iter().map(|entry| (format!("{slot}.{index}.{}", entry.key), entry.node.place.clone()));
                self.places.extend(places);
            }
        }
    }

    /// The URL of `listen` for clients of this machine.
    pub fn client_url(&self) -> String {
        url_of(self.listen.listen, self.tls.files().is_some())
    }

    /// The URL at which operators of this machine reach the node.
    pub fn admin_url(&self) -> String {
        match &self.listen.admin_listen {
            Some(ListenAddress::Tcp(address)) => url_of(*address, false),
            Some(ListenAddress::Unix(path)) => format!("unix:{}:", path.display()),
            None => self.client_url(),
        }
    }

    /// This key counts as written where another configuration has it.
    pub(super) fn copy_place(&mut self, slot: &str, from: &Self) {
        match from.places.get(slot) {
            Some(place) => drop(self.places.insert(slot.to_owned(), place.clone())),
            None => drop(self.places.remove(slot)),
        }
    }

    /// Whether a source has this key (`listen`, `redis.url`), even with the default value.
    pub fn is_given(&self, slot: &str) -> bool {
        self.places.contains_key(slot)
    }

    /// Where this key is written; `path` alone if it is not.
    pub(super) fn place(&self, slot: &str, path: &str) -> Place {
        self.places.get(slot).cloned().unwrap_or_else(|| Place::missing(path))
    }

    /// A fault at a key.
    pub(super) fn fault(&self, slot: &str, path: &str, message: impl Into<String>) -> Faults {
        self.place(slot, path).fault(message)
    }
}
