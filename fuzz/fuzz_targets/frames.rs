//! The frame reader: whatever comes, in whatever pieces, the messages and the verdict are the same, and within bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::protocol::websocket::{close_frame, FrameError, FrameReader, Message, pong_frame};
use std::ops::ControlFlow;

const MAX: usize = 300;

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Result<(), FrameError>) {
    let mut reader = FrameReader::new();
    let mut seen = Vec::new();
    for piece in pieces {
        let result = reader.read(&mut piece.to_vec(), MAX, &mut |message| {
            match message {
                Message::Text(text) => assert!(text.len() <= MAX),
                Message::Binary(bytes) => assert!(bytes.len() <= MAX),
                Message::Ping(bytes) => assert_eq!(pong_frame(bytes).len(), 2 + bytes.len()),
                Message::Pong(bytes) => assert!(bytes.len() <= 125),
                Message::Close(code, reason) => assert!(close_frame(code, reason).len() <= 127),
            }
            seen.push(format!("{message:?}"));
            ControlFlow::Continue(())
        });
        if result.is_err() {
            assert!(reader.is_idle());
            return (seen, result);
        }
    }
    (seen, Ok(()))
}

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else { return };
    let whole = read(std::iter::once(bytes));
    assert_eq!(read(bytes.chunks(usize::from(*size % 32) + 1)), whole);
});
