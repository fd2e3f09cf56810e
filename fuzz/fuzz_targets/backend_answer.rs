//! Answers of the backend: what is accepted keeps the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::backend::answer::{read_decision, read_event};
use roomcast::model::draft::DraftLimits;

const LIMITS: DraftLimits = DraftLimits { max_event: 1000, room_name_bytes: 100, rooms: 10 };

fuzz_target!(|body: &[u8]| {
    if let Err(error) = read_decision(body) {
        assert!(!error.code().is_empty());
    }
    match read_event(body, &"/".into(), &LIMITS) {
        Ok(answer) => {
            assert!(answer.emit.iter().all(|draft| draft.args.len() <= LIMITS.max_event && !draft.rooms.is_empty()));
            let rooms = answer.join.iter().chain(&answer.leave);
            assert!(rooms.into_iter().all(|room| (1..=LIMITS.room_name_bytes).contains(&room.len())));
        }
        Err(error) => assert!(!error.code().is_empty()),
    }
});
