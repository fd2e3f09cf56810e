//! What Socket.IO emitters and adapters publish: channels and stream entries. What is accepted keeps the limits.
//!
//! The input is cut at 0xff: the first piece is the channel's suffix, the second the message. The same pieces in turn are
//! the names and values of a stream entry.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::bridge::request::{EmitterError, Request};
use roomcast::bridge::{emitter, streams};
use roomcast::model::draft::DraftLimits;

const LIMITS: DraftLimits = DraftLimits { max_event: 1000, room_name_bytes: 100, rooms: 10 };

fuzz_target!(|input: &[u8]| {
    let pieces: Vec<Vec<u8>> = input.split(|byte| *byte == 0xff).map(<[u8]>::to_vec).collect();
    if let [channel, message, ..] = &pieces[..] {
        let channel = format!("socket.io{}", String::from_utf8_lossy(channel));
        check(emitter::decode("socket.io", &channel, message, &LIMITS));
    }
    let fields: Vec<_> = pieces.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    check(streams::decode(&fields, &LIMITS));
});

fn check(request: Result<Request, EmitterError>) {
    match request {
        Ok(Request::Event(draft)) => {
            assert!(draft.args.len() <= LIMITS.max_event);
            assert!(draft.rooms.len() <= LIMITS.rooms && draft.except.len() <= LIMITS.rooms);
            assert!(draft.rooms.iter().all(|room| room.len() <= LIMITS.room_name_bytes));
        }
        Ok(_) => {}
        Err(error) => assert!(!error.code().is_empty() && !error.to_string().is_empty()),
    }
}
