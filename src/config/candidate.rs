//! A value that one source has for one key.

use crate::config::keys::Key;
use crate::config::mistake::Faults;
use crate::config::node::Node;
use crate::config::settings::Config;

/// The sources, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    File,
    /// `PORT`, `JWT_SECRET` and the like.
    Conventional,
    /// `ROOMCAST_*`.
    Environment,
    Flag,
}

/// A value that a source has for a key.
pub(super) struct Candidate {
    pub rank: Rank,
    pub key: &'static Key,
    pub node: Node,
    /// What reads it; not always the key's own (`PORT` changes a part of `listen`).
    pub read: fn(&mut Config, &Node) -> Result<(), Faults>,
    /// What is read instead of `node` where it had to be put together first.
    pub prepared: Option<Result<Node, Faults>>,
}

impl Candidate {
    pub(super) fn of(rank: Rank, key: &'static Key, node: Node) -> Self {
        Self { rank, key, node, read: key.read, prepared: None }
    }

    /// Whether it may be left unread when a stronger source overrides it: the file may not be there, and a
    /// conventional name may be meant for other software. Whatever else is written must be right.
    pub(super) fn may_stay_unread(&self) -> bool {
        self.key.is_file() || self.rank == Rank::Conventional
    }
}
