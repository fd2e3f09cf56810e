//! Placeholder of the composition root in this branch; the real one replaces it on merge.

use crate::config::Config;

/// Runs a node until it is stopped.
pub fn run(_config: Config, _demo: bool) -> Result<(), String> {
    Err("not merged yet".into())
}
