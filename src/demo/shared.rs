//! What the nodes of one demo have in common.

use crate::model::secret::random_text;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

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

    /// Ends the Redis of a demo that can no longer do it, since it was killed. Whichever node is first does it.
    pub fn stop_log(&self) {
        let Some((password, address)) = self.redis_url.as_deref().and_then(parts) else { return };
        if let Ok(mut redis) = TcpStream::connect(address) {
            let _ = write!(redis, "AUTH {password}\r\nSHUTDOWN NOSAVE\r\n");
        }
    }
}

/// Password and address of `redis://:password@address/0`.
fn parts(url: &str) -> Option<(&str, &str)> {
    let (password, rest) = url.strip_prefix("redis://:")?.split_once('@')?;
    Some((password, rest.strip_suffix("/0")?))
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}
