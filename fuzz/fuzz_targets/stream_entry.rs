//! Entries of `{prefix}:events`: an event that is read and written again is the same event, and what is malformed is found
//! where nobody wants it, too.
//!
//! The input is cut at 0xff into names and values in turn.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::log::redis::{entry_fields, read_event, read_wanted};
use roomcast::model::draft::DraftLimits;

const LIMITS: DraftLimits = DraftLimits { max_event: 1000, room_name_bytes: 100, rooms: 10 };

fuzz_target!(|input: &[u8]| {
    let pieces: Vec<Vec<u8>> = input.split(|byte| *byte == 0xff).map(<[u8]>::to_vec).collect();
    let fields: Vec<_> = pieces.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    let read = read_event(&fields, &LIMITS);
    // Of what a node wrote the arguments are not looked at again.
    let is_of_node = fields.iter().any(|(name, _)| name == b"t");
    let unwanted = read_wanted(&fields, &LIMITS, |_, _| false);
    assert!(unwanted.is_err() == read.is_err() || is_of_node && unwanted == Ok(None));
    match read {
        // A volatile event is never written.
        Ok(Some(draft)) if !draft.volatile => {
            let written: Vec<_> = entry_fields(&draft).into_iter().map(String::into_bytes).collect();
            let mut written: Vec<_> = written.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
            // Only entries of a node, which have a time, may have a source.
            written.push((b"t".to_vec(), b"1".to_vec()));
            assert_eq!(read_event(&written, &LIMITS), Ok(Some(draft)));
        }
        Ok(_) => {}
        Err(error) => assert!(!error.code().is_empty() && !error.to_string().is_empty()),
    }
});
