//! The Socket.IO decoder with a mixed script: pieces split at 0xff are texts where they are UTF-8 and do not begin with
//! 0x00, and attachments otherwise. What it accepts must come back from the encoder as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::model::args::{json_depth, MAX_JSON_DEPTH};
use roomcast::protocol::socketio::{Decoder, Packet};
use roomcast::protocol::{engineio, socketio_encode};

fuzz_target!(|script: &[u8]| {
    let mut decoder = Decoder::new();
    for piece in script.split(|byte| *byte == 0xff) {
        let decoded = match (piece.first(), str::from_utf8(piece)) {
            (Some(1..), Ok(text)) => decoder.text(text),
            _ => decoder.binary_within(piece, 1000),
        };
        match decoded {
            Ok(Some(packet)) => check(packet),
            Ok(None) => {}
            Err(error) => {
                assert!(!decoder.is_pending() && !error.to_string().is_empty());
                return;
            }
        }
    }
});

fn check(packet: Packet) {
    let Packet::Event { namespace, event, args, .. } = packet else { return };
    assert!(json_depth(args.as_array()) <= MAX_JSON_DEPTH + 1);
    let Ok(encoded) = socketio_encode::event(&namespace, &event, &args, None, None) else { return };
    let payload = encoded.payload();
    let payload = str::from_utf8(&payload).expect("UTF-8");
    let mut decoder = Decoder::new();
    let mut back = None;
    for packet in engineio::parse_payload(payload) {
        assert!(back.is_none(), "the packet ends with its last attachment");
        back = match packet.expect("our own packets are read") {
            engineio::Packet::Message(text) => match decoder.text(text) {
                Ok(back) => back,
                Err(error) => panic!("{payload}: {error}"),
            },
            engineio::Packet::Binary(bytes) => decoder.binary(&bytes).expect("our own attachments are taken"),
            other => panic!("{other:?}"),
        };
    }
    let Some(Packet::Event { event: name, args: again, .. }) = back else { panic!("{payload}: {back:?}") };
    assert_eq!(name, event);
    if !args.may_hold_binary() {
        assert_eq!(again.inner(), args.inner());
    }
    assert_eq!(again.count(), args.count());
}
