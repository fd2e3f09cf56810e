//! The header of the PROXY protocol: a whole one is within its bounds and does not depend on what follows; of an unfinished
//! one every beginning is unfinished.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::protocol::proxy_header::{MAX_HEADER, parse};

fuzz_target!(|bytes: &[u8]| {
    match parse(bytes) {
        Ok(Some(header)) => {
            assert!(header.length <= bytes.len() && header.length <= MAX_HEADER);
            assert_eq!(parse(&bytes[..header.length]), Ok(Some(header)));
            assert_eq!(parse(&bytes[..header.length - 1]), Ok(None));
        }
        Ok(None) => {
            assert!(bytes.len() < MAX_HEADER);
            assert_eq!(parse(&bytes[..bytes.len() / 2]), Ok(None));
        }
        Err(_) => assert!(parse(&[bytes, b"more"].concat()).is_err()),
    }
});
