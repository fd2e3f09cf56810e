//! What a connection has received of a message that is not complete (sans-IO). Holds no heap memory while there is nothing.

use crate::protocol::socketio::Decoder;

/// A Socket.IO packet without all of its attachments, and a WebSocket message without all of its fragments.
#[derive(Debug, Default)]
pub struct Unfinished(Option<Box<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    decoder: Decoder,
    /// Bytes of an unfinished WebSocket message that its reader keeps.
    fragments: u32,
    /// How many pings were due since that message began.
    pings: u8,
}

impl Unfinished {
    /// Whether no attachments are missing.
    pub fn is_decoder_idle(&self) -> bool {
        self.0.as_ref().is_none_or(|parts| parts.decoder.is_idle())
    }

    /// Runs `act` with the decoder of Socket.IO packets.
    pub fn with_decoder<T>(&mut self, act: impl FnOnce(&mut Decoder) -> T) -> T {
        if let Some(parts) = &mut self.0 {
            let result = act(&mut parts.decoder);
            self.settle();
            return result;
        }
        let mut decoder = Decoder::new();
        let result = act(&mut decoder);
        if !decoder.is_idle() {
            self.0 = Some(Box::new(Parts { decoder, ..Parts::default() }));
        }
        result
    }

    /// Notes how many bytes the reader keeps, and whether an earlier message has ended since. Answers how many it kept before.
    pub fn note_fragments(&mut self, bytes: usize, ended: bool) -> usize {
        if bytes == 0 && self.0.is_none() {
            return 0;
        }
        let parts = self.0.get_or_insert_default();
        if ended || bytes == 0 {
            parts.pings = 0;
        }
        let before = std::mem::replace(&mut parts.fragments, u32::try_from(bytes).unwrap_or(u32::MAX));
        self.settle();
        before as usize
    }

    fn settle(&mut self) {
        self.0.take_if(|parts| parts.fragments == 0 && parts.decoder.is_idle());
    }

    /// Called when a ping is due: how many were due since the oldest of what is unfinished began.
    pub fn grow_old(&mut self) -> u8 {
        self.0.as_mut().map_or(0, |parts| {
            if parts.fragments > 0 {
                parts.pings = parts.pings.saturating_add(1);
            }
            parts.pings.max(parts.decoder.grow_old())
        })
    }

    /// Bytes of attachments, and of the packet that they belong to.
    pub fn attached(&self) -> usize {
        self.0.as_ref().map_or(0, |parts| parts.decoder.held())
    }

    /// Bytes of all.
    pub fn held(&self) -> usize {
        self.attached() + self.0.as_ref().map_or(0, |parts| parts.fragments as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_old_until_it_is_whole() {
        let mut unfinished = Unfinished::default();
        assert_eq!((unfinished.note_fragments(0, false), unfinished.grow_old()), (0, 0));
        assert_eq!(unfinished.note_fragments(100, false), 0);
        assert_eq!((unfinished.grow_old(), unfinished.grow_old()), (1, 2));
        assert_eq!((unfinished.note_fragments(50, true), unfinished.grow_old()), (100, 1), "another message");
        unfinished.with_decoder(|decoder| decoder.text("51-[\"a\",{\"_placeholder\":true,\"num\":0}]")).unwrap();
        assert!(!unfinished.is_decoder_idle() && unfinished.held() == 50 + unfinished.attached());
        assert_eq!((unfinished.note_fragments(0, true), unfinished.grow_old()), (50, 1));
        assert!(unfinished.with_decoder(|decoder| decoder.binary(b"x")).unwrap().is_some());
        assert!(unfinished.0.is_none() && unfinished.is_decoder_idle());
    }
}
