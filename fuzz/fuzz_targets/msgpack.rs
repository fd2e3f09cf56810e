//! MessagePack to JSON text: what is accepted is valid JSON within the bounds that were asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::model::args::{json_depth, MAX_JSON_DEPTH};
use roomcast::protocol::{msgpack, socketio_msgpack};
use serde_json::value::RawValue;

const MAX: usize = 2000;

fuzz_target!(|bytes: &[u8]| {
    match msgpack::to_json(bytes, MAX) {
        Ok(json) => {
            assert!(json.len() <= MAX && json_depth(&json) <= MAX_JSON_DEPTH + 1);
            serde_json::from_str::<&RawValue>(&json).expect("JSON text");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Some(namespace) = socketio_msgpack::connect(bytes) {
        assert!(socketio_msgpack::connect(bytes).is_some_and(|again| again == namespace));
        let refusal = socketio_msgpack::refusal(&namespace);
        msgpack::to_json(&refusal.attachments[0], MAX).expect("our own MessagePack is read");
    }
});
