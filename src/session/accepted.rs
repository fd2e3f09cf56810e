//! A TCP connection from its `accept` on, until it is closed or becomes a WebSocket.

use crate::session::connection_limiter::{ConnectionLimiter, LimitError, Owner};
use crate::session::cut::{Cut, End};
use crate::session::unproven::Ticket;
use crate::tls::Socket;
use parking_lot::Mutex;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whose a socket is.
#[derive(Clone, Copy)]
struct Owners {
    /// The other end.
    peer: Owner,
    /// On whose account it is: the peer's, or while a proxy's carries a request, the client's.
    charged: Owner,
}

/// Counts one TCP connection until it is dropped.
pub struct AcceptedSocket {
    limiter: Arc<ConnectionLimiter>,
    owners: Mutex<Owners>,
    cut: Arc<Cut>,
    /// Its ticket while it is unproven; 0 otherwise.
    ticket: AtomicU64,
    /// It has shown a key, or has become a WebSocket: it does not go back to the unproven.
    settled: AtomicBool,
    upgraded: AtomicBool,
}

impl AcceptedSocket {
    /// Counts a TCP connection that was accepted.
    ///
    /// # Errors
    /// Which limit is reached by connections that have proven themselves.
    pub fn new(limiter: &Arc<ConnectionLimiter>, peer: Owner) -> Result<Arc<Self>, LimitError> {
        let cut = Arc::<Cut>::default();
        let ticket = limiter.add_socket(peer, End::Socket(cut.clone()))?;
        Ok(Arc::new(Self {
            limiter: limiter.clone(),
            owners: Mutex::new(Owners { peer, charged: peer }),
            cut,
            ticket: AtomicU64::new(ticket.get()),
            settled: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
        }))
    }

    fn take_ticket(&self) -> Option<Ticket> {
        Ticket::new(self.ticket.swap(0, Ordering::Relaxed))
    }

    /// Ends it.
    pub fn cut(&self) -> &Arc<Cut> {
        &self.cut
    }

    /// A proxy has opened it for this client, whose it is from now on.
    ///
    /// # Errors
    /// When the client has all the sockets it may have.
    pub fn belong_to(&self, client: Owner) -> Result<(), LimitError> {
        let mut owners = self.owners.lock();
        self.charge(&mut owners, client)?;
        owners.peer = client;
        Ok(())
    }

    /// A proxy's socket carries a request of this client, who is charged for it until [`Self::rest`] or [`Self::leave_client`].
    ///
    /// # Errors
    /// When the client has all the sockets it may have.
    pub fn charge_client(&self, client: IpAddr) -> Result<(), LimitError> {
        self.charge(&mut self.owners.lock(), Owner::client(client))
    }

    /// That request was answered: the proxy may use the socket for anybody.
    pub fn leave_client(&self) {
        let mut owners = self.owners.lock();
        let peer = owners.peer;
        // Only clients are refused, and only what was moved from its peer moves back.
        let _ = self.charge(&mut owners, peer);
    }

    fn charge(&self, owners: &mut Owners, to: Owner) -> Result<(), LimitError> {
        if owners.charged != to {
            let ticket = Ticket::new(self.ticket.load(Ordering::Relaxed));
            let ticket = self.limiter.move_socket(owners.charged, to, ticket)?;
            self.ticket.store(ticket.map_or(0, Ticket::get), Ordering::Relaxed);
            owners.charged = to;
        }
        Ok(())
    }

    /// It has shown a key.
    pub fn prove(&self) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            self.carry();
        }
    }

    /// It carries a request or a stream of a client that has proven itself.
    pub fn carry(&self) {
        if let Some(ticket) = self.take_ticket() {
            self.limiter.leave_table(ticket);
        }
    }

    /// That was answered, or is over: until the next request it is unproven.
    pub fn rest(&self) {
        self.leave_client();
        if self.ticket.load(Ordering::Relaxed) == 0 && !self.settled.load(Ordering::Relaxed) {
            let ticket = self.limiter.enter_table(self.owners.lock().charged, End::Socket(self.cut.clone()));
            self.ticket.store(ticket.get(), Ordering::Relaxed);
        }
    }

    /// It becomes a WebSocket, whose client is counted from now on.
    pub fn upgrade(&self) -> OpenSocket {
        self.settled.store(true, Ordering::Relaxed);
        self.upgraded.store(true, Ordering::Relaxed);
        self.limiter.drop_socket(self.owners.lock().charged, self.take_ticket());
        OpenSocket(self.limiter.clone())
    }
}

impl Drop for AcceptedSocket {
    fn drop(&mut self) {
        if !*self.upgraded.get_mut() {
            self.limiter.drop_socket(self.owners.get_mut().charged, self.take_ticket());
            self.limiter.drop_file();
        }
    }
}

/// Counts the file of a WebSocket.
pub struct OpenSocket(Arc<ConnectionLimiter>);

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.drop_file();
    }
}

/// The socket of a WebSocket.
pub struct ClientStream {
    /// Closed before it is counted out.
    pub stream: Socket,
    /// Its count.
    pub open: OpenSocket,
}

impl Deref for ClientStream {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.stream
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_websocket_is_small() {
        assert!(
            size_of::<super::ClientStream>() <= 48,
            "with the counters of its Rc 64 bytes, which is a size of the allocator"
        );
    }
}
