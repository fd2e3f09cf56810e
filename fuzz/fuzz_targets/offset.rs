//! Offsets: what is read is written back to something that reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::model::offset::Offset;

fuzz_target!(|text: &str| {
    if let Some(offset) = Offset::parse(text) {
        assert_eq!(Offset::parse(&offset.to_string()), Some(offset));
    }
});
