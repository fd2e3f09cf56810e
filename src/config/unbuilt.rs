//! Keys that the contract has and this version cannot do yet. They are read and checked like all others, and then
//! refused here, so that nothing is silently ignored. Whoever builds a feature deletes its entry.

use super::Config;
use super::mistake::Faults;
use crate::rules::config::JoinPolicy;

/// A refusal for each key that is set and has no effect yet.
pub(super) fn not_built_yet(config: &Config) -> Faults {
    let mut faults = Faults::new();
    faults.extend(sentinel_and_cluster(config));

    // Replicated appends, and Socket.IO emitters.
    for name in ["emitter_key", "streams_key", "min_replicas"] {
        faults.extend(refuse(config, &format!("redis.{name}"), &format!("[redis] {name}")));
    }
    // Presence.
    for name in ["grace", "lease"] {
        faults.extend(refuse(config, &format!("presence.{name}"), &format!("[presence] {name}")));
    }
    for index in 0..config.rooms.len() {
        for name in ["presence", "joined", "left"] {
            faults.extend(refuse(config, &format!("rooms.{index}.{name}"), &format!("[[rooms]] {name}")));
        }
    }
    // The backend.
    for name in ["url", "stream", "secret", "timeout", "notify"] {
        faults.extend(refuse(config, &format!("backend.{name}"), &format!("[backend] {name}")));
    }
    for (index, _) in config.rooms.iter().enumerate().filter(|(_, rule)| rule.join == JoinPolicy::Ask) {
        faults.extend(refuse(config, &format!("rooms.{index}.join"), "[[rooms]] join = \"ask\""));
    }
    for (index, _) in config.on.iter().enumerate().filter(|(_, rule)| rule.forward) {
        faults.extend(refuse(config, &format!("on.{index}.forward"), "[[on]] forward"));
    }
    faults
}

/// Sentinel and Cluster URLs.
fn sentinel_and_cluster(config: &Config) -> Faults {
    let url = config.redis.url.as_ref().map(|url| url.reveal().to_ascii_lowercase()).unwrap_or_default();
    let name = match url.split_once("://") {
        Some(("redis+sentinel", _)) => "Redis Sentinel",
        Some(("redis+cluster", _)) => "Redis Cluster",
        _ => return Faults::new(),
    };
    let message = format!("{name} is not in this version; give a redis:// or rediss:// URL");
    config.fault("redis.url", "[redis] url", message)
}

fn refuse(config: &Config, slot: &str, what: &str) -> Faults {
    match config.is_given(slot) {
        true => config.fault(slot, what, format!("`{what}` is not in this version; leave it out")),
        false => Faults::new(),
    }
}
