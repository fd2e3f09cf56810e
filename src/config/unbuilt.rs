//! Keys that the contract has and this version cannot do yet. They are read and checked like all others, and then
//! refused here, so that nothing is silently ignored. Whoever builds a feature deletes its entries.

use super::Config;
use super::mistake::Faults;

/// Keys, as `section` and `name`, that have no effect yet. The effective configuration leaves them out.
pub(super) const KEYS: [(&str, &str); 1] = [
    // The backend's inbox.
    ("backend", "stream"),
];

/// A refusal for each key that is set and has no effect yet.
pub(super) fn not_built_yet(config: &Config) -> Faults {
    let mut faults = Faults::new();
    for (section, name) in KEYS {
        faults.extend(refuse(config, &format!("{section}.{name}"), &format!("[{section}] {name}")));
    }
    faults
}

fn refuse(config: &Config, slot: &str, what: &str) -> Faults {
    match config.is_given(slot) {
        true => config.fault(slot, what, format!("`{what}` is not in this version; leave it out")),
        false => Faults::new(),
    }
}
