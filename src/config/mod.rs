//! The configuration: one TOML file, the environment and flags become a checked [`Config`], or the list of all
//! mistakes at once, each with its place.
//!
//! `sources` finds who says what, `keys` is the table of what can be said, `kind`, `text`, `address` and `rules`
//! read values, and `checks` sees contradictions.

mod address;
mod checks;
mod environment;
mod file;
mod keys;
mod kind;
mod mistake;
mod node;
mod rules;
mod show;
mod sources;
mod text;

pub use address::url_of;
pub use environment::Environment;
pub use mistake::Mistake;

use crate::auth::config::AuthConfig;
use crate::backend::config::BackendConfig;
use crate::http::config::{CorsConfig, HttpConfig, ListenConfig, PublishConfig};
use crate::log::config::RecoveryConfig;
use crate::logging::LoggingConfig;
use crate::presence::config::PresenceConfig;
use crate::redis::config::RedisConfig;
use crate::rules::config::{OnRuleConfig, RoomRuleConfig};
use crate::session::config::{LimitsConfig, SocketIoConfig};
use crate::shutdown::ShutdownConfig;
use mistake::{Faults, Place, in_order};
use node::{Node, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a node is told, checked. `Debug` shows no secrets.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `listen` and `admin_listen`.
    pub listen: ListenConfig,
    /// `[http]`.
    pub http: HttpConfig,
    /// `[redis]`.
    pub redis: RedisConfig,
    /// `[auth]`.
    pub auth: AuthConfig,
    /// `[publish]`.
    pub publish: PublishConfig,
    /// `[cors]`.
    pub cors: CorsConfig,
    /// `[socketio]`.
    pub socketio: SocketIoConfig,
    /// `[recovery]`.
    pub recovery: RecoveryConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[presence]`.
    pub presence: PresenceConfig,
    /// `[log]`.
    pub log: LoggingConfig,
    /// `[shutdown]`.
    pub shutdown: ShutdownConfig,
    /// `[[rooms]]`, in order.
    pub rooms: Vec<RoomRuleConfig>,
    /// `[[on]]`, in order.
    pub on: Vec<OnRuleConfig>,
    /// `[backend]`, where one of its keys is given.
    pub backend: Option<BackendConfig>,
    places: Places,
}

/// Where each key that is not at its default was written: `redis.url`, `rooms.0`, `rooms.0.join`.
type Places = BTreeMap<String, Place>;

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--redis-url`.
    pub redis_url: Option<String>,
}

/// What the configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A node in earnest: without a key for tokens (and without `anonymous`) it would refuse everybody.
    Serve,
    /// Anything else: `demo` makes its own secret, and clients of a running node need none.
    Other,
}

/// Every key as `section.key`, for tests of what documents them.
pub fn key_names() -> Vec<String> {
    let name = |key: &keys::Key| match key.section {
        "" => key.name.to_owned(),
        section => format!("{section}.{}", key.name),
    };
    keys::KEYS.iter().map(name).collect()
}

impl Config {
    /// Reads all sources. `Err` holds every mistake: the file's from its top, then the environment's, then flags'.
    pub fn load(flags: &Flags, environment: &Environment, purpose: Purpose) -> Result<Self, Vec<Mistake>> {
        let sources = sources::read(flags, environment);
        let mut faults = sources.faults;
        let mut config = Self::default();
        faults.extend(sources::apply(sources.candidates, &mut config));
        config.drop_foreign_secret();
        if sources.whole {
            faults.extend(checks::contradictions(&config, purpose));
            if !config.is_given("redis.url") {
                faults.extend(environment::redis_parts_without_host(environment));
            }
        }
        if faults.is_empty() { Ok(config) } else { Err(in_order(faults)) }
    }

    /// Everything that is in force, as TOML; secrets and passwords in URLs are `***`, keys that are not set comments.
    pub fn effective_toml(&self) -> String {
        show::effective(self)
    }

    /// What is allowed but probably not meant.
    pub fn warnings(&self) -> Vec<Mistake> {
        in_order(checks::warnings(self))
    }

    /// `JWT_SECRET` is left alone where no algorithm uses it: it may be there for other software.
    fn drop_foreign_secret(&mut self) {
        let unused = !self.auth.algorithms.iter().any(|name| name.starts_with("HS"));
        if unused && self.place("auth.secret", "").is_conventional() {
            self.auth.secret = None;
            self.places.remove("auth.secret");
        }
    }

    /// Notes where a value was written; of rules, where each of them and each of their keys was.
    fn remember(&mut self, slot: &str, node: &Node) {
        // An empty variable takes back what a weaker source gave.
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

    /// Whether a source says this key (`listen`, `redis.url`), be it the default's value.
    pub fn is_given(&self, slot: &str) -> bool {
        self.places.contains_key(slot)
    }

    /// Where this key was written, or the path alone where it was not.
    fn place(&self, slot: &str, path: &str) -> Place {
        self.places.get(slot).cloned().unwrap_or_else(|| Place::missing(path))
    }

    /// A fault at a key.
    fn fault(&self, slot: &str, path: &str, message: impl Into<String>) -> Faults {
        self.place(slot, path).fault(message)
    }
}
