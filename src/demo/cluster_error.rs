//! Why a demo of three nodes does not start.

use std::io;

/// Why a demo of three nodes did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no `redis-server` on this machine: a demo of one node is possible.
    #[error("redis-server is not installed")]
    NoRedis(#[source] io::Error),
    /// An address cannot be bound.
    #[error("the demo cannot listen")]
    Bind(#[source] io::Error),
    /// A process cannot be started.
    #[error("{0} does not start")]
    Process(&'static str, #[source] io::Error),
    /// A process was started and does not listen, or has ended.
    #[error("{0} ended, or did not get ready in time")]
    NotReady(&'static str),
    /// The operating system refused signal handlers.
    #[error("the operating system refused signal handlers")]
    Signals(#[source] io::Error),
}
