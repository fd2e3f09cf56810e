//! The messages of `/ws`: what is accepted is bounded, and its id and arguments are echoed as valid JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast::protocol::plain_ws::ClientMessage;
use roomcast::protocol::plain_ws;

fuzz_target!(|text: &str| {
    match plain_ws::parse(text) {
        Ok(ClientMessage::Event { args, id: Some(id), .. }) => {
            assert!(id.get().len() <= plain_ws::MAX_ID);
            let answer = plain_ws::ack(&id, &args);
            assert!(answer.contains(id.get()));
        }
        Ok(_) => {}
        Err(error) => {
            let answer = plain_ws::error(error.code(), &error.to_string(), error.id.as_deref());
            assert!(answer.len() < 2000 && answer.ends_with('}'), "{answer}");
        }
    }
});
