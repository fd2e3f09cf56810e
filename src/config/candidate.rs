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
    /// Reads it. Not always the key's own: `PORT` changes a part of `listen`.
    pub read: fn(&mut Config, &Node) -> Result<(), Faults>,
    /// Read instead of `node`, if the value is composed of several variables.
    pub prepared: Option<Result<Node, Faults>>,
}

impl Candidate {
    pub(super) fn of(rank: Rank, key: &'static Key, node: Node) -> Self {
        Self { rank, key, node, read: key.read, prepared: None }
    }

    /// Whether it is not checked if a stronger source overrides it: a file may be missing, and a conventional name may
    /// be for other software. Everything else that is written must be valid.
    pub(super) fn may_stay_unread(&self) -> bool {
        self.key.is_file() || self.rank == Rank::Conventional
    }
}
