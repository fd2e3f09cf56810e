//! Mistakes and warnings about several keys together.

use crate::auth::{Authenticator, SetupError};
use crate::config::mistake::Faults;
use crate::config::settings::{Config, Purpose};
use crate::http::config::ListenAddress;
use crate::protocol::admin_ui::NAMESPACE;
use crate::rules::config::JoinPolicy;
use crate::rules::{RuleMistake, Rules};
use crate::tls::KeyPair;
use std::net::SocketAddr;

/// Keys that exclude or require each other.
pub(super) fn contradictions(config: &Config, purpose: Purpose) -> Faults {
    let mut faults = auth(config, purpose);
    if let Some(ListenAddress::Tcp(admin)) = config.listen.admin_listen
        && collide(admin, config.listen.listen)
    {
        faults.extend(config.fault("admin_listen", "admin_listen", "is the same address as `listen`; leave it out"));
    }
    faults.extend(tls(config, purpose));
    faults.extend(rules_together(config));
    faults.extend(backend(config));
    faults.extend(emitters(config));
    faults.extend(admin_ui(config));
    faults
}

/// What `auth` says about its own settings, at the places where they were written.
fn auth(config: &Config, purpose: Purpose) -> Faults {
    let auth = &config.auth;
    // A key that could not be read has a mistake of its own, and comparing the others makes no sense without it.
    let unread = (auth.secret.is_none() && config.is_given("auth.secret"))
        || (auth.public_key.is_none() && config.is_given("auth.public_key"))
        || (auth.jwks_url.is_none() && config.is_given("auth.jwks_url"));
    let mut faults = Faults::new();
    for mistake in Authenticator::mistakes(auth) {
        let needs_no_key = purpose == Purpose::Other && mistake == SetupError::NoKey;
        if needs_no_key || (unread && mistake.compares_settings()) {
            continue;
        }
        let (slot, path) = match mistake.key() {
            Some(key) => (format!("auth.{}", key.trim_end_matches("_file")), format!("[auth] {key}")),
            None => ("auth".to_owned(), "[auth]".to_owned()),
        };
        faults.extend(config.fault(&slot, &path, mistake.to_string()));
    }
    if config.is_given("auth.public_key") && config.is_given("auth.jwks_url") {
        let message = "give `public_key_file` or `jwks_url`, not both";
        faults.extend(config.fault("auth.jwks_url", "[auth] jwks_url", message));
    }
    faults
}

/// `[tls]` has both files or none. Whoever asks a running node may not be allowed to read its key.
fn tls(config: &Config, purpose: Purpose) -> Faults {
    let both = "give `cert_file` and `key_file`, or neither";
    match (config.tls.cert_file.is_some(), config.tls.key_file.is_some()) {
        (true, false) => config.fault("tls.cert", "[tls] cert_file", both),
        (false, true) => config.fault("tls.key", "[tls] key_file", both),
        _ if purpose == Purpose::Other => Faults::new(),
        _ => match KeyPair::read(&config.tls) {
            Ok(_) => Faults::new(),
            Err(error) => {
                let key = error.key();
                config.fault(
                    &format!("tls.{}", key.trim_end_matches("_file")),
                    &format!("[tls] {key}"),
                    error.to_string(),
                )
            }
        },
    }
}

/// Rules that shadow or repeat each other. Each single rule was compiled when it was read.
fn rules_together(config: &Config) -> Faults {
    at_rules(config, Rules::compile(&config.rooms, &config.on).err().unwrap_or_default())
}

/// Each at the key of its rule.
fn at_rules(config: &Config, mistakes: Vec<RuleMistake>) -> Faults {
    let fault = |mistake: RuleMistake| {
        let slot = format!("{}.{}.{}", mistake.table, mistake.index, mistake.key);
        let path = format!("[[{}]] {} {}", mistake.table, mistake.index + 1, mistake.key);
        config.fault(&slot, &path, mistake.message)
    };
    mistakes.into_iter().flat_map(fault).collect()
}

/// Whether only one of them can be bound: the same port, and overlapping addresses.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// Socket.IO's Admin UI has its namespace for itself.
fn admin_ui(config: &Config) -> Faults {
    if !config.admin_ui.enabled || config.socketio.namespaces.iter().all(|namespace| namespace != NAMESPACE) {
        return Faults::new();
    }
    let message = "has \"/admin\", which `console.admin_ui` takes; rename yours or switch that off";
    config.fault("socketio.namespaces", "[socketio] namespaces", message)
}

/// Emitters need Redis.
fn emitters(config: &Config) -> Faults {
    let mut faults = Faults::new();
    for name in ["emitter_key", "streams_key"] {
        let slot = format!("redis.{name}");
        if config.redis.url.is_none() && !config.is_given("redis.url") && config.is_given(&slot) {
            faults.extend(config.fault(
                &slot,
                &format!("[redis] {name}"),
                "needs `redis.url`: emitters publish on Redis",
            ));
        }
    }
    faults
}

/// `[backend]` has one transport, and rules that ask the backend need it.
fn backend(config: &Config) -> Faults {
    let mut faults = Faults::new();
    let given = |key: &str| config.is_given(&format!("backend.{key}"));
    match &config.backend {
        Some(backend) if backend.url.is_some() && backend.stream.is_some() => {
            faults.extend(config.fault("backend.stream", "[backend]", "give `url` or `stream`, not both"));
        }
        Some(backend) => {
            if let Some(stream) = &backend.stream {
                faults.extend(inbox(config, stream));
            } else if backend.url.is_none() && !given("url") && !given("stream") {
                faults.extend(config.fault("backend", "[backend]", "needs `url` or `stream`"));
            }
        }
        None if given("url") || given("stream") => {}
        None => {
            let needs = "needs a [backend] that is asked";
            faults.extend(asking(config, needs));
            for (index, _) in config.on.iter().enumerate().filter(|(_, rule)| rule.forward) {
                faults.extend(config.fault(&format!("on.{index}.forward"), "[[on]] forward", needs));
            }
        }
    }
    faults
}

/// A mistake for each rule that asks the backend.
fn asking(config: &Config, why: &str) -> Faults {
    let rules = config.rooms.iter().enumerate().filter(|(_, rule)| rule.join == JoinPolicy::Ask);
    rules.flat_map(|(index, _)| config.fault(&format!("rooms.{index}.join"), "[[rooms]] join", why)).collect()
}

/// The backend's stream needs Redis, must not be another stream, and cannot answer.
fn inbox(config: &Config, stream: &str) -> Faults {
    let (slot, path) = ("backend.stream", "[backend] stream");
    let mut faults = asking(config, "\"ask\" needs `backend.url`: `backend.stream` has no answers");
    if config.redis.url.is_none() && !config.is_given("redis.url") {
        faults.extend(config.fault(slot, path, "needs `redis.url`: the stream is there"));
    }
    let own = stream.strip_prefix(&config.redis.prefix).and_then(|rest| rest.strip_prefix(':'));
    if own.is_some_and(|rest| matches!(rest, "events" | "dead") || rest.starts_with("events:") || rest.starts_with('{'))
    {
        faults.extend(config.fault(
            slot,
            path,
            format!("\"{stream}\" is a key that roomcast uses itself; choose another"),
        ));
    }
    if config.redis.streams_key.as_deref() == Some(stream) {
        faults.extend(config.fault(slot, path, "is `redis.streams_key`, which emitters write; choose another"));
    }
    faults
}

/// Allowed, but probably not intended.
pub(super) fn warnings(config: &Config) -> Faults {
    let mut faults = at_rules(config, Rules::doubts(&config.rooms, &config.on));
    for (index, rule) in config.on.iter().enumerate() {
        if !config.socketio.namespaces.contains(&rule.namespace) {
            let message = format!("never runs: `socketio.namespaces` does not have \"{}\"", rule.namespace);
            faults.extend(config.fault(&format!("on.{index}.namespace"), &format!("[[on]] {}", index + 1), message));
        }
    }
    for key in ["secret", "stream_limit"].iter().filter(|key| config.is_given(&format!("backend.{key}"))) {
        let by_stream = config.backend.as_ref().is_some_and(|backend| backend.stream.is_some());
        let message = match (*key, by_stream) {
            ("secret", true) => {
                "signs what is posted; entries of `stream` are not signed, since only Redis' users write there"
            }
            ("stream_limit", false) => "is for `stream`; `queue` bounds what is posted",
            _ => continue,
        };
        faults.extend(config.fault(&format!("backend.{key}"), &format!("[backend] {key}"), message));
    }
    if config.backend.as_ref().is_some_and(|backend| backend.url.is_some() && backend.secret.is_none()) {
        let message =
            "goes without a signature, since there is no `secret`: anybody who reaches it can pose as roomcast";
        faults.extend(config.fault("backend.url", "[backend] url", message));
    }
    if config.limits.outbox_bytes < config.publish.max_event {
        let message = "is less than `publish.max_event`: a client that gets such an event is closed as a slow consumer";
        faults.extend(config.fault("limits.outbox_bytes", "[limits] outbox_bytes", message));
    }
    if config.admin_ui.enabled && config.publish.keys.is_empty() && !config.is_given("publish.keys") {
        let message = "lets nobody in without `publish.keys`: its password is one of them";
        faults.extend(config.fault("console.admin_ui", "[console] admin_ui", message));
    }
    if config.http.proxy_protocol && config.listen.admin_listen.is_none() {
        let message = "closes every connection without the proxy's header, also of your backend, `roomcast` commands and \
                       health checks; set `admin_listen` for these";
        faults.extend(config.fault("http.proxy_protocol", "[http] proxy_protocol", message));
    }
    if config.shutdown.pause + config.shutdown.drain > config.shutdown.timeout {
        let message = "is shorter than `pause` and `drain` together: connections are cut before they are notified";
        faults.extend(config.fault("shutdown.timeout", "[shutdown] timeout", message));
    }
    faults
}
