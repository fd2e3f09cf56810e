//! The query of an event stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::protocol::sse::{MAX_ROOMS, Query};

fuzz_target!(|text: &str| {
    if let Ok(query) = Query::parse(text) {
        assert!(query.rooms.len() <= MAX_ROOMS && query.rooms.iter().all(|room| room.len() <= 1024));
        assert!(query.token.is_none_or(|token| !token.is_empty()));
    }
});
