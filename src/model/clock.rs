//! The wall clock. Sans-IO code takes the time as an argument instead.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix milliseconds by this node's clock.
pub fn unix_ms() -> u64 {
    unix_us() / 1000
}

/// Unix microseconds by this node's clock.
pub fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
