//! Engine.IO sids and pids that the nodes of a cluster recognize (sans-IO): their last four bytes are a MAC of the others,
//! so that a node refuses an invented one of another node without asking anybody.

use crate::model::id::{Id, NodeId};
use aws_lc_rs::hmac;

/// Makes and recognizes ids with a key that all nodes of a prefix share.
///
/// The key stays as long as Redis keeps its data, since an id lives as long as its session. Whoever learns it can make a
/// node ask another one about sessions that do not exist, and no more: the id of a session still has 48 unknown bits.
#[derive(Default)]
pub(super) struct IdKeys {
    /// The newest first. After Redis has lost its data, the nodes agree on a new key; sessions of before go on.
    keys: Vec<(String, hmac::Key)>,
}

/// Keys that are remembered.
const MAX_KEYS: usize = 3;

impl IdKeys {
    /// Takes over the key that is in Redis.
    pub(super) fn set(&mut self, text: &str) {
        if self.keys.first().is_some_and(|(known, _)| known == text) {
            return;
        }
        self.keys.retain(|(known, _)| known != text);
        self.keys.insert(0, (text.to_owned(), hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())));
        self.keys.truncate(MAX_KEYS);
    }

    /// A new id. Before the key is known, other nodes do not recognize it.
    pub(super) fn fresh(&self, node: NodeId, shard: u8) -> Id {
        match self.keys.first() {
            Some((_, key)) => Id::random_tagged(node, shard, |bytes| tag(key, bytes)),
            None => Id::random_at(node, shard),
        }
    }

    /// Whether a node of this cluster made this id.
    pub(super) fn knows(&self, id: Id) -> bool {
        let (bytes, found) = id.tagged_parts();
        self.keys
            .iter()
            .any(|(_, key)| aws_lc_rs::constant_time::verify_slices_are_equal(&tag(key, bytes), found).is_ok())
    }
}

fn tag(key: &hmac::Key, bytes: &[u8]) -> [u8; 4] {
    let mut tag = [0; 4];
    tag.copy_from_slice(&hmac::sign(key, bytes).as_ref()[..4]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_the_cluster_is_recognized_by_every_node_and_an_invented_one_by_none() {
        let (mut here, mut there) = (IdKeys::default(), IdKeys::default());
        let node = NodeId::random();
        let early = here.fresh(node, 3);
        here.set("key");
        there.set("key");
        let id = here.fresh(node, 3);
        assert_eq!((id.node(), id.shard()), (node, 3));
        assert!(there.knows(id) && !there.knows(early));
        assert!((0..10_000).all(|_| !there.knows(Id::random_at(node, 3))));
        let mut text = id.to_string().into_bytes();
        text[10] = if text[10] == b'A' { b'B' } else { b'A' };
        assert!(!there.knows(Id::parse(std::str::from_utf8(&text).unwrap()).unwrap()), "a changed id");
    }

    #[test]
    fn ids_outlive_a_key_that_redis_lost() {
        let mut keys = IdKeys::default();
        keys.set("1");
        let id = keys.fresh(NodeId::random(), 0);
        keys.set("2");
        assert!(keys.knows(id));
        keys.set("3");
        keys.set("4");
        assert!(!keys.knows(id) && keys.knows(keys.fresh(NodeId::random(), 0)));
    }
}
