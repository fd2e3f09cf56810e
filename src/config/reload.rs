//! What a running node can take over from a configuration that was read again.

use crate::backend::config::BackendConfig;
use crate::config::checks;
use crate::config::keys::{KEYS, Key};
use crate::config::mistake::{Mistake, in_order};
use crate::config::settings::{Config, Purpose};
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::BTreeSet;

/// Keys that take effect while the node runs. All others need a restart.
const LIVE: &[&str] = &[
    "http.idle_timeout",
    "http.allowed_hosts",
    "http.trusted_proxies",
    "http.proxy_protocol",
    "http.head_timeout",
    "http.write_timeout",
    "tls.cert",
    "tls.key",
    "auth.secret",
    "auth.public_key",
    "auth.jwks_url",
    "auth.algorithms",
    "auth.user_claim",
    "auth.issuer",
    "auth.audience",
    "auth.require",
    "auth.leeway",
    "auth.require_exp",
    "auth.rooms_claim",
    "auth.anonymous",
    "auth.revoke_for",
    "auth.max_revocations",
    "publish.keys",
    "publish.max_body",
    "cors.origins",
    "limits.connections",
    "limits.unauthenticated",
    "limits.auth_bytes",
    "limits.rooms_per_session",
    "limits.outbox_bytes",
    "limits.events_per_second",
    "limits.bytes_per_second",
    "limits.joins_per_second",
    "limits.user_connections",
    "limits.user_events_per_second",
    "limits.user_bytes_per_second",
    "limits.user_connects_per_second",
    "limits.user_joins_per_second",
    "limits.tenant_claim",
    "limits.tenant_connections",
    "limits.tenant_events_per_second",
    "limits.tenant_bytes_per_second",
    "limits.tenant_joins_per_second",
    "limits.memory",
    "limits.headers",
    "trace.max_open",
    "trace.max_time",
    "trace.lines_per_second",
    "trace.bytes_per_second",
    "trace.payloads",
    "log.level",
    "log.format",
    "shutdown.pause",
    "shutdown.drain",
    "shutdown.timeout",
    "rooms",
    "on",
    "backend.url",
    "backend.secret",
    "backend.timeout",
    "backend.concurrency",
    "backend.per_user",
    "backend.queue",
    "backend.queue_per_user",
    "backend.queue_bytes",
    "backend.notices_bytes",
    "backend.notify",
];

/// Keys that nodes of one cluster may have different values of: they are not in the fingerprint.
const OF_ONE_NODE: &[&str] = &["listen", "admin_listen", "admin_socket_mode", "tls.cert", "tls.key"];

/// A key whose value has changed. The values are those of the effective configuration, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `auth.secret` for all forms of it, `rooms` for `[[rooms]]`.
    pub key: String,
    /// Before; `None`: it was not set, or it must not be shown.
    pub from: Option<String>,
    /// Now.
    pub to: Option<String>,
}

/// What a reload comes to.
#[derive(Debug)]
pub struct Successor {
    /// What the node has in force from now on: the new values, and the old ones of keys that need a restart.
    pub config: Config,
    /// What changes.
    pub applied: Vec<Change>,
    /// What was changed and needs a restart.
    pub needs_restart: Vec<Change>,
}

/// Whether this key takes effect while the node runs.
fn is_live(key: &Key) -> bool {
    LIVE.contains(&key.slot().as_str())
}

/// Every key as `section.key`, and whether it takes effect while the node runs. Tests compare it with the documents.
pub fn live_keys() -> Vec<(String, bool)> {
    KEYS.iter().map(|key| (key.full_name(), is_live(key))).collect()
}

impl Config {
    /// What the node that runs with this configuration takes over from a new one.
    ///
    /// # Errors
    /// The mistakes of what would be in force, if that is not what was checked: new values may need others that need a
    /// restart.
    pub fn successor(&self, mut new: Self, purpose: Purpose) -> Result<Successor, Vec<Mistake>> {
        let changed: Vec<&Key> = slots().filter(|key| !(key.is_same)(self, &new)).collect();
        // The node's parts for the backend are built at the start.
        let has_other_backend = kind(&self.backend) != kind(&new.backend);
        // A listener begins with TLS, or without.
        let turns_tls = self.tls.files().is_some() != new.tls.files().is_some();
        let waits = |key: &Key| (key.section == "backend" && has_other_backend) || (key.section == "tls" && turns_tls);
        let (live, fixed): (Vec<&Key>, Vec<&Key>) = changed.into_iter().partition(|key| is_live(key) && !waits(key));
        let change = |key: &&Key| change(key, self, &new);
        let (applied, needs_restart) = (live.iter().map(change).collect(), fixed.iter().map(change).collect());
        if has_other_backend {
            new.backend.clone_from(&self.backend);
        }
        for key in &fixed {
            (key.copy)(&mut new, self);
            new.copy_place(&key.slot(), self);
        }
        let mistakes = if fixed.is_empty() { Vec::new() } else { checks::contradictions(&new, purpose) };
        match mistakes.is_empty() {
            true => Ok(Successor { config: new, applied, needs_restart }),
            false => Err(in_order(mistakes).into_iter().map(|mistake| held_back(mistake, &fixed)).collect()),
        }
    }

    /// A mistake in a key that shows only when it is used; an empty name means the table.
    pub fn mistake_in(&self, section: &str, name: &str, message: String) -> Mistake {
        let (slot, path) = match name {
            "" => (section.to_owned(), format!("[{section}]")),
            name => (format!("{section}.{}", name.trim_end_matches("_file")), format!("[{section}] {name}")),
        };
        Mistake { place: self.place(&slot, &path).to_string(), message }
    }

    /// Tells apart nodes with different configurations: a digest of all keys that nodes should share, secrets included, of
    /// which so little is kept that it says nothing about them.
    pub fn fingerprint(&self) -> String {
        let mut digest = Context::new(&SHA256);
        let mut add = |text: &str| {
            digest.update(&(text.len() as u64).to_be_bytes());
            digest.update(text.as_bytes());
        };
        for key in slots().filter(|key| !OF_ONE_NODE.contains(&key.slot().as_str())) {
            add(&key.slot());
            add(&(key.show)(self).unwrap_or_default());
        }
        let auth = &self.auth;
        for secret in auth.secret.iter().chain(&auth.other_secrets).chain(&self.publish.keys) {
            add(secret.reveal());
        }
        let backend = self.backend.as_ref();
        let hidden = [auth.public_key.as_deref(), auth.jwks_url.as_deref(), backend.and_then(|b| b.url.as_deref())];
        hidden.into_iter().for_each(|text| add(text.unwrap_or_default()));
        for secret in [backend.and_then(|backend| backend.secret.as_ref()), self.redis.url.as_ref()] {
            add(secret.map_or("", |secret| secret.reveal()));
        }
        hex::encode(&digest.finish().as_ref()[..5])
    }
}

/// Each value once: not also by the `_file` that may hold it.
fn slots() -> impl Iterator<Item = &'static Key> {
    let mut seen = BTreeSet::new();
    KEYS.iter().filter(move |key| seen.insert(key.slot()))
}

fn kind(backend: &Option<BackendConfig>) -> (bool, bool) {
    let by = |of: fn(&BackendConfig) -> &Option<String>| backend.as_ref().is_some_and(|backend| of(backend).is_some());
    (by(|backend| &backend.url), by(|backend| &backend.stream))
}

fn change(key: &Key, before: &Config, now: &Config) -> Change {
    let shown = |config: &Config| match key.slot().as_str() {
        "rooms" => Some(rules(config.rooms.len())),
        "on" => Some(rules(config.on.len())),
        "auth.secret" => Some(secrets(usize::from(config.auth.secret.is_some()) + config.auth.other_secrets.len())),
        _ => (key.show)(config),
    };
    let (from, to) = (shown(before), shown(now));
    let hidden = from == to;
    Change { key: key.full_name(), from: from.filter(|_| !hidden), to: to.filter(|_| !hidden) }
}

fn rules(count: usize) -> String {
    if count == 1 { "1 rule".to_owned() } else { format!("{count} rules") }
}

fn secrets(count: usize) -> String {
    if count == 1 { "1 secret".to_owned() } else { format!("{count} secrets") }
}

/// Says why something that looks right in the file is wrong in a running node.
fn held_back(mistake: Mistake, fixed: &[&Key]) -> Mistake {
    let names: Vec<_> = fixed.iter().map(|key| key.full_name()).collect();
    let Mistake { place, message } = mistake;
    Mistake { place, message: format!("{message} (until a restart, when {} changes too)", names.join(", ")) }
}
