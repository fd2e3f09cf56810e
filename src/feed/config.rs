//! `[trace]`.

use crate::feed::Bounds;
use std::time::Duration;

/// `[trace]`: what operators may follow live.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// Traces of the cluster at once; each is on every node. 0: none.
    pub max_open: usize,
    /// A trace ends by itself after this.
    pub max_time: Duration,
    /// Lines a second of one trace from one node, and twice as many at once; others are skipped and counted.
    pub lines_per_second: u32,
    /// The same in bytes.
    pub bytes_per_second: usize,
    /// Whether a trace of a room may show the payloads of its events.
    pub payloads: bool,
}

impl Default for TraceConfig {
    fn default() -> Self {
        let Bounds { lines_per_second, bytes_per_second, .. } = Bounds::default();
        let max_time = Duration::from_secs(15 * 60);
        Self { max_open: 8, max_time, lines_per_second, bytes_per_second, payloads: false }
    }
}

impl TraceConfig {
    /// The pace of one trace.
    pub fn bounds(&self, payloads: bool) -> Bounds {
        let Self { lines_per_second, bytes_per_second, .. } = *self;
        Bounds { lines_per_second, bytes_per_second, payloads: payloads && self.payloads }
    }
}
