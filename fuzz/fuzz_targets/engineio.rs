//! Polling payloads and query strings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::protocol::engineio::{parse_payload, Query};

fuzz_target!(|body: &str| {
    let packets: Vec<_> = parse_payload(body).collect();
    assert!(!packets.is_empty() && packets.len() <= body.len() + 1);
    assert!(packets.iter().rev().skip(1).all(Result::is_ok), "an error is the last");
    let query = Query::parse(body);
    assert!(query.sid.is_none_or(|sid| !sid.is_empty() && sid.len() <= 64));
});
