//! `[log]`: what this process says about itself, on stderr (stdout is for what a command was asked for).
//!
//! Logging is best effort. Lines go into a bounded queue and a thread of their own writes them, so that a full disk, a
//! closed pipe or a pipe that nobody reads costs log lines and nothing else.

mod queue;
mod repeats;
mod text;
mod writer;

use queue::Queue;
pub use repeats::Repeats;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// How long the last lines have to get out when the process ends.
const LAST_LINES: Duration = Duration::from_millis(500);

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

static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();
static HANDLES: OnceLock<Handles> = OnceLock::new();

/// What decides which lines are written.
type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
/// What writes them.
type Written = Box<dyn Layer<Filtered> + Send + Sync>;

/// The parts of the subscriber that may change.
struct Handles {
    filter: reload::Handle<EnvFilter, Registry>,
    format: reload::Handle<Written, Filtered>,
}

/// Starts logging. Called once; a second call changes nothing. A `RUST_LOG` that cannot be read falls back to `level`.
pub fn init(config: &LoggingConfig) {
    let queue = Arc::new(Queue::default());
    // Without a thread or a descriptor nothing could be written anyway: the process goes on without a log.
    if writer::start(queue.clone()).is_err() || QUEUE.set(queue.clone()).is_err() {
        return;
    }
    let (filter, filter_handle) = reload::Layer::new(filter(config));
    let (format, format_handle) = reload::Layer::new(format(config, queue));
    let _already_started = tracing_subscriber::registry().with(filter).with(format).try_init();
    let _ = HANDLES.set(Handles { filter: filter_handle, format: format_handle });
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // What led to it comes before it.
        flush();
        default_hook(panic);
    }));
}

/// Takes over changed settings. `RUST_LOG` still wins.
pub fn reload(config: &LoggingConfig) {
    if let (Some(handles), Some(queue)) = (HANDLES.get(), QUEUE.get()) {
        // They fail only where the subscriber is gone, and with it whoever would hear of it.
        let _ = handles.filter.reload(filter(config));
        let _ = handles.format.reload(format(config, queue.clone()));
    }
}

/// Whether the environment sets the level, so that the configuration's does not count.
pub fn is_set_by_environment() -> bool {
    from_environment().is_some()
}

fn from_environment() -> Option<EnvFilter> {
    let text = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty())?;
    EnvFilter::try_new(text).ok()
}

fn filter(config: &LoggingConfig) -> EnvFilter {
    from_environment().unwrap_or_else(|| EnvFilter::new(&config.level))
}

fn format(config: &LoggingConfig, queue: Arc<Queue>) -> Written {
    let format = if config.format == "json" { Format::Json } else { Format::Text };
    let layer = tracing_subscriber::fmt::layer().with_writer(move || Lines { queue: queue.clone(), format });
    match format {
        Format::Json => layer.json().flatten_event(true).boxed(),
        Format::Text => layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
    }
}

/// Waits until all lines are written, but not for long: stderr may be a pipe that nobody reads.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.wait_until_written(LAST_LINES);
    }
}

/// How many lines could not be written since the start.
pub fn lines_dropped() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.dropped())
}

/// Takes what `tracing` formats: one call for each line.
struct Lines {
    queue: Arc<Queue>,
    format: Format,
}

#[derive(Clone, Copy)]
enum Format {
    Text,
    Json,
}

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.format {
            Format::Text => self.queue.push(&text::escaped(line)),
            // Its strings are escaped already.
            Format::Json => self.queue.push(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
