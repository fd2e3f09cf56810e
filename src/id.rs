//! Random identifiers as Socket.IO clients know them: 20 characters of URL-safe base64 (wire sheet A1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore as _;
use std::fmt;

/// 15 random bytes, written as 20 characters. Engine.IO sids, Socket.IO sids (session ids) and pids
/// are all of this kind; 120 bits, so one cannot be guessed or met twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 15]);

impl Id {
    /// A fresh identifier from the operating system's seeded generator.
    pub fn random() -> Self {
        let mut bytes = [0; 15];
        rand::rng().fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// A fresh identifier whose first byte names a shard, so that any thread can find the owner.
    pub fn random_on_shard(shard: u8) -> Self {
        let mut id = Self::random();
        id.0[0] = shard;
        id
    }

    /// A fresh session id. Its last bytes are a checksum of the others, so that no client can join a room with the
    /// name of somebody's session, which is how a session is reached alone.
    pub fn random_session() -> Self {
        let mut id = Self::random();
        let sum = id.checksum();
        id.0[11..].copy_from_slice(&sum);
        id
    }

    /// Whether this has the shape of [`Id::random_session`].
    pub fn is_session(&self) -> bool {
        self.0[11..] == self.checksum()
    }

    /// FNV-1a: it need not be secret, only unlikely by chance.
    fn checksum(&self) -> [u8; 4] {
        let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        self.0[..11].iter().fold(0x811c_9dc5, step).to_be_bytes()
    }

    /// The shard written by [`Id::random_on_shard`].
    pub fn shard(&self) -> u8 {
        self.0[0]
    }

    /// Reads the 20-character form; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 15];
        if text.len() != 20 {
            return None;
        }
        let written = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (written == 15).then_some(Self(bytes))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 20];
        let written = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..written]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read_back() {
        let id = Id::random_on_shard(7);
        let text = id.to_string();
        assert_eq!(text.len(), 20);
        assert_eq!(Id::parse(&text), Some(id));
        assert_eq!(id.shard(), 7);
        assert!(Id::random_session().is_session() && !id.is_session());
        for bad in ["", "__proto__", "iKZ5jtlm1C-unvGtAAA", "iKZ5jtlm1C+unvGtAAAK", "iKZ5jtlm1C-unvGtAAAK1"] {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
    }
}
