//! What the nodes of one demo have in common.

use crate::model::secret::random_text;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Secrets and addresses. A node of three gets it by standard input.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Shared {
    pub(super) secret: String,
    pub(super) key: String,
    /// The log of three nodes; `None` is the embedded one.
    pub(super) redis_url: Option<String>,
    /// Where the page asks which nodes there are.
    pub(super) control: Option<String>,
    /// What the page is opened at, where that is not the node's own address.
    pub(super) public: Option<SocketAddr>,
    /// The node's own address, where that is not the configured one.
    pub(super) listen: Option<SocketAddr>,
}

impl Shared {
    /// Fresh secrets, for a demo of one node.
    pub fn new() -> Self {
        let (secret, key) = (random_text(), random_text());
        Self { secret, key, redis_url: None, control: None, public: None, listen: None }
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}
