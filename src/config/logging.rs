//! `[log]`: what this process says about itself.

use tracing_subscriber::EnvFilter;

/// `[log]`.
#[derive(Clone, Debug)]
pub struct LoggingConfig {
    /// `info`, or directives as in `RUST_LOG`, which wins.
    pub level: String,
    /// `text` or `json`.
    pub format: String,
}

impl Default for LoggingConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: "text".into() }
    }
}

/// Starts logging to stderr (stdout is for what a command was asked for). Called once; a second call changes nothing.
/// A `RUST_LOG` that cannot be read falls back to `level`.
pub fn init(config: &LoggingConfig) {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
    let filter = from_environment
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(&config.level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _already_started = match config.format.as_str() {
        "json" => builder.json().flatten_event(true).try_init(),
        _ => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
    };
}
