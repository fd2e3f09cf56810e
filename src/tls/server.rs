//! The certificate in force. Connections keep the one that they began with.

use crate::tls::key_pair::KeyPair;
use parking_lot::Mutex;
use rustls::ServerConfig;
use std::sync::Arc;

/// What `listen` shakes hands with.
pub struct TlsServer(Mutex<KeyPair>);

impl TlsServer {
    /// Begins with this pair.
    pub fn new(pair: KeyPair) -> Self {
        Self(Mutex::new(pair))
    }

    /// For the handshake of a new connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.lock().config.clone()
    }

    /// Whether this is another pair than the one in force.
    pub fn would_change(&self, pair: &KeyPair) -> bool {
        !self.0.lock().is_same(pair)
    }

    /// New connections get this pair. Answers whether it is another than before: the same keeps the tickets by which clients
    /// come back.
    pub fn replace(&self, pair: KeyPair) -> bool {
        let mut current = self.0.lock();
        let is_new = !current.is_same(&pair);
        if is_new {
            *current = pair;
        }
        is_new
    }

    /// The end of the certificate's time, in Unix seconds.
    pub fn not_after(&self) -> u64 {
        self.0.lock().not_after()
    }
}
