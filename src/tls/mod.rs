//! `[tls]`: what a connection of `listen` reads and writes through.
//!
//! [`KeyPair::read`] reads the two files, [`TlsServer`] has the pair in force, and [`accept`] shakes hands. The result is a
//! [`Socket`], as a plain connection is one. It moves between threads with its TLS state ([`Socket::detach`]), and what is
//! idle holds no buffer: records are read into, and written from, one buffer for each thread.

pub mod config;
mod handshake;
mod key_pair;
mod server;
mod session;
mod socket;
mod validity;

pub use handshake::{Accepted, HandshakeError, accept};
pub use key_pair::{KeyPair, KeyPairError};
pub use server::TlsServer;
pub use socket::{Detached, Socket};
