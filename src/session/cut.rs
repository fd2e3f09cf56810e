//! What ends a socket or a client from outside its task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Ends a connection from outside its task.
#[derive(Default)]
pub struct Cut {
    notify: Notify,
    evicted: AtomicBool,
}

impl Cut {
    /// Its client does not read.
    pub fn cut(&self) {
        self.notify.notify_one();
    }

    /// It makes room for others.
    pub(super) fn evict(&self) {
        self.evicted.store(true, Ordering::Relaxed);
        self.notify.notify_one();
    }

    /// Waits until the connection is to end; whether it makes room for others.
    pub async fn wait(&self) -> bool {
        self.notify.notified().await;
        self.evicted.load(Ordering::Relaxed)
    }
}

/// Ends a socket or a client. Called on any thread.
pub(super) enum End {
    /// A socket.
    Socket(Arc<Cut>),
    /// A client.
    Client(Box<dyn FnOnce() + Send>),
}

impl End {
    /// Does it.
    pub(super) fn now(self) {
        match self {
            Self::Socket(cut) => cut.evict(),
            Self::Client(end) => end(),
        }
    }
}
