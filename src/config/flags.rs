//! The flags that a configuration is read from.

use std::path::PathBuf;

/// The flags that are settings.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--redis-url`.
    pub redis_url: Option<String>,
}
