//! Replies of Redis: in whatever pieces they arrive they are the same replies, and what is read of one is what the client
//! library reads.
//!
//! The first byte is the size of the pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::redis::resp::{RespError, Scanner, Tokens, value};

const MAX: usize = 2000;

fn read(bytes: &[u8], piece: usize) -> (Vec<String>, Result<(), RespError>) {
    let (mut scanner, mut replies) = (Scanner::new(MAX), Vec::new());
    let (mut start, mut arrived) = (0, 0);
    while arrived < bytes.len() {
        arrived = (arrived + piece).min(bytes.len());
        loop {
            match scanner.scan(&bytes[start..arrived]) {
                Ok(Some(length)) => {
                    let reply = &bytes[start..start + length];
                    let mut tokens = Tokens::new(reply);
                    assert!(tokens.clone().skip_value().is_some());
                    let read = value(&mut tokens);
                    // The library refuses some texts that are not UTF-8.
                    if let (Some(read), Ok(library)) = (&read, redis::parse_redis_value(reply)) {
                        assert_eq!(format!("{read:?}"), format!("{library:?}"));
                    } else if reply.is_ascii() && read.is_none() {
                        assert!(redis::parse_redis_value(reply).is_err());
                    }
                    replies.push(format!("{read:?}"));
                    start += length;
                }
                Ok(None) => break,
                Err(error) => return (replies, Err(error)),
            }
        }
    }
    (replies, Ok(()))
}

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else { return };
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(read(bytes, usize::from(*size % 32) + 1), whole);
});
