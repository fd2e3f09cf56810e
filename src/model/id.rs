//! Random identifiers: those that Socket.IO clients know, 20 characters of URL-safe base64 (docs/protocol/socketio.md
//! section 2.1), and nodes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng as _;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Where the tag of [`Id::random_tagged`] begins.
const TAG_AT: usize = 11;

/// 15 random bytes, written as 20 characters. Engine.IO sids, Socket.IO sids (session ids) and pids
/// are all of this kind. 120 bits: nobody guesses one, and none occurs twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 15]);

impl Id {
    /// Before all others.
    pub const MIN: Self = Self([0; 15]);

    /// A new random identifier.
    pub fn random() -> Self {
        let mut bytes = [0; 15];
        rand::rng().fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// A new identifier that contains its node and shard, so that any node can find the owner. 80 bits are random.
    pub fn random_at(node: NodeId, shard: u8) -> Self {
        let mut id = Self::random();
        id.0[0] = shard;
        id.0[1..5].copy_from_slice(&node.0.to_be_bytes());
        id
    }

    /// The same with a tag over the rest in its last bytes, by which the nodes of a cluster recognize an id that one of
    /// them made. 48 bits are random; without the tag's key the tag is as hard to guess as random bits.
    pub fn random_tagged(node: NodeId, shard: u8, tag: impl FnOnce(&[u8]) -> [u8; 4]) -> Self {
        let mut id = Self::random_at(node, shard);
        let tag = tag(&id.0[..TAG_AT]);
        id.0[TAG_AT..].copy_from_slice(&tag);
        id
    }

    /// What the tag of [`Id::random_tagged`] is made of, and the tag.
    pub fn tagged_parts(&self) -> (&[u8], &[u8]) {
        self.0.split_at(TAG_AT)
    }

    /// A new session id. Its last bytes are a checksum of the others: publishers reach a single session through the
    /// room of that name, and a room whose name has a valid checksum cannot be joined.
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

    /// FNV-1a. It is no secret, it only has to be unlikely by chance.
    fn checksum(&self) -> [u8; 4] {
        let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        self.0[..11].iter().fold(0x811c_9dc5, step).to_be_bytes()
    }

    /// The shard written by [`Id::random_at`].
    pub fn shard(&self) -> u8 {
        self.0[0]
    }

    /// The node written by [`Id::random_at`].
    pub fn node(&self) -> NodeId {
        let [_, a, b, c, d, ..] = self.0;
        NodeId(u32::from_be_bytes([a, b, c, d]))
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

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not an id"))
    }
}

/// One roomcast process, from its start to its end. Written as eight hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// A random name for this process.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads the written form; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| u32::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not a node"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read_back() {
        let node = NodeId::random();
        let id = Id::random_at(node, 7);
        let text = id.to_string();
        assert_eq!(text.len(), 20);
        assert_eq!(Id::parse(&text), Some(id));
        assert_eq!((id.shard(), id.node()), (7, node));
        assert_eq!(NodeId::parse(&node.to_string()), Some(node));
        assert_eq!(serde_json::from_str::<Id>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        assert!(Id::random_session().is_session() && !id.is_session());
        for bad in ["", "__proto__", "iKZ5jtlm1C-unvGtAAA", "iKZ5jtlm1C+unvGtAAAK", "iKZ5jtlm1C-unvGtAAAK1"] {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
    }
}
