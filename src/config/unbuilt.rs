//! Keys that the contract has and this version cannot do yet. They are read and checked like all others, and then
//! refused here, so that nothing is silently ignored. Whoever builds a feature deletes its entries.

use super::Config;
use super::mistake::Faults;
use crate::rules::config::JoinPolicy;

/// Keys, as `section` and `name`, that have no effect yet. The effective configuration leaves them out.
pub(super) const KEYS: [(&str, &str); 7] = [
    // Presence.
    ("presence", "grace"),
    ("presence", "lease"),
    // The backend.
    ("backend", "url"),
    ("backend", "stream"),
    ("backend", "secret"),
    ("backend", "timeout"),
    ("backend", "notify"),
];

/// Keys of a `[[rooms]]` table that need presence.
const ROOM_KEYS: [&str; 3] = ["presence", "joined", "left"];

/// A refusal for each key that is set and has no effect yet.
pub(super) fn not_built_yet(config: &Config) -> Faults {
    let mut faults = Faults::new();
    for (section, name) in KEYS {
        faults.extend(refuse(config, &format!("{section}.{name}"), &format!("[{section}] {name}")));
    }
    for index in 0..config.rooms.len() {
        for name in ROOM_KEYS {
            faults.extend(refuse(config, &format!("rooms.{index}.{name}"), &format!("[[rooms]] {name}")));
        }
    }
    for (index, _) in config.rooms.iter().enumerate().filter(|(_, rule)| rule.join == JoinPolicy::Ask) {
        faults.extend(refuse(config, &format!("rooms.{index}.join"), "[[rooms]] join = \"ask\""));
    }
    for (index, _) in config.on.iter().enumerate().filter(|(_, rule)| rule.forward) {
        faults.extend(refuse(config, &format!("on.{index}.forward"), "[[on]] forward"));
    }
    faults
}

fn refuse(config: &Config, slot: &str, what: &str) -> Faults {
    match config.is_given(slot) {
        true => config.fault(slot, what, format!("`{what}` is not in this version; leave it out")),
        false => Faults::new(),
    }
}
