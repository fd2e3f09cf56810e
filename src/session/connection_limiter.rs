//! How many clients and sockets a node and an address may have, and who makes room when there are too many:
//! `limits.connections`, `limits.connections_per_ip`, `limits.unauthenticated`, and the open files of the process.
//!
//! A *socket* is a TCP connection from its `accept` on ([`accepted`](crate::session::accepted)); a *client* is a WebSocket, a polling session
//! or an SSE stream ([`Permit`]). Both are unproven until a token was accepted, or a key. When there are too many, the
//! oldest unproven one ends ([`Unproven`] says of which address); a newcomer is refused only where all others are
//! proven.

use crate::model::address::{CompactAddress, accounted};
use crate::session::cut::End;
use crate::session::unproven::{Ticket, Unproven};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Sockets that an address may have whatever its clients: one that polls uses two.
const SOCKETS_OF_ONE: usize = 2;

/// What a limiter allows.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Clients of the node.
    pub clients: usize,
    /// Clients of an address, and its sockets that are no WebSockets; 0 is no limit.
    pub per_address: usize,
    /// Sockets and clients that have not proven anything.
    pub unproven: usize,
    /// Whether addresses are those of clients, also behind a proxy.
    pub knows_addresses: bool,
    /// Open sockets, WebSockets among them.
    pub sockets: usize,
}

impl Bounds {
    /// For a listener without clients.
    pub fn of_sockets(sockets: usize) -> Self {
        Self { clients: 0, per_address: 0, unproven: sockets, knows_addresses: false, sockets }
    }
}

/// Whose account a socket is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    address: IpAddr,
    /// A proxy's sockets are those of all its clients: `limits.connections_per_ip` does not count them.
    is_proxy: bool,
}

impl Owner {
    /// A client, by its address.
    pub fn client(address: IpAddr) -> Self {
        Self { address: accounted(address), is_proxy: false }
    }

    /// A proxy that names its clients.
    pub fn proxy(address: IpAddr) -> Self {
        Self { address: accounted(address), is_proxy: true }
    }
}

/// The count of a node's sockets and clients.
pub struct ConnectionLimiter {
    /// As at the start; those of [`Allowed`] count.
    bounds: Bounds,
    allowed: Allowed,
    clients: AtomicUsize,
    /// Open sockets, also those that are about to be closed to make room.
    open: AtomicUsize,
    tickets: AtomicU64,
    tables: Mutex<Tables>,
}

/// The bounds that may change.
struct Allowed {
    clients: AtomicUsize,
    unproven: AtomicUsize,
    sockets: AtomicUsize,
}

#[derive(Default)]
struct Tables {
    sockets: Unproven<End>,
    clients: Unproven<End>,
    /// Only where addresses are counted.
    by_address: HashMap<IpAddr, AddressCount>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct AddressCount {
    clients: usize,
    /// Of the clients.
    websockets: usize,
    /// Sockets that are no WebSockets.
    sockets: usize,
}

/// Counts one client until it is dropped.
pub struct Permit {
    limiter: Arc<ConnectionLimiter>,
    address: CompactAddress,
    is_websocket: bool,
    /// While it is unproven.
    ticket: Option<Ticket>,
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// `limits.connections`, or the open files of the process.
    Node,
    /// `limits.connections_per_ip`.
    Address,
}

/// How a client's bytes move, as far as its address is counted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// The client's socket is its own.
    WebSocket,
    /// It needs HTTP sockets beside it.
    Http,
}

impl ConnectionLimiter {
    /// Nothing is open yet.
    pub fn new(bounds: Bounds) -> Arc<Self> {
        let allowed = Allowed {
            clients: AtomicUsize::new(bounds.clients),
            unproven: AtomicUsize::new(bounds.unproven),
            sockets: AtomicUsize::new(bounds.sockets),
        };
        Arc::new(Self {
            bounds,
            allowed,
            clients: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            tickets: AtomicU64::new(0),
            tables: Mutex::default(),
        })
    }

    /// Other bounds from now on. Whoever is over them stays.
    pub fn allow(&self, clients: usize, unproven: usize, sockets: usize) {
        self.allowed.clients.store(clients, Ordering::Relaxed);
        self.allowed.unproven.store(unproven, Ordering::Relaxed);
        self.allowed.sockets.store(sockets, Ordering::Relaxed);
    }

    fn max_clients(&self) -> usize {
        self.allowed.clients.load(Ordering::Relaxed)
    }

    fn max_sockets(&self) -> usize {
        self.allowed.sockets.load(Ordering::Relaxed)
    }

    /// Counts a TCP connection that was accepted. It has not proven anything; another one may have to end for it.
    ///
    /// # Errors
    /// Which limit is reached by connections that have proven themselves.
    pub(super) fn add_socket(&self, owner: Owner, end: End) -> Result<Ticket, LimitError> {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        let added = {
            let mut tables = self.tables.lock();
            let counted = self.count_socket(&mut tables, owner, open);
            counted.map(|oldest| (self.insert(&mut tables, owner, end), oldest))
        };
        match added {
            Ok((ticket, oldest)) => {
                end_if_any(oldest);
                Ok(ticket)
            }
            Err(full) => {
                self.drop_socket(owner, None);
                self.drop_file();
                Err(full)
            }
        }
    }

    fn insert(&self, tables: &mut Tables, owner: Owner, end: End) -> Ticket {
        let ticket = self.next_ticket();
        tables.sockets.insert(ticket, owner.address, end);
        ticket
    }

    /// Counts a socket; the one that has to end for it, if any has.
    fn count_socket(&self, tables: &mut Tables, owner: Owner, open: usize) -> Result<Option<End>, LimitError> {
        if let Some(oldest) = self.count_for(tables, owner)? {
            return Ok(Some(oldest));
        }
        if open <= self.max_sockets() {
            return Ok(self.make_room_for_unproven(tables));
        }
        let oldest = tables.sockets.remove_oldest_of_largest();
        // Some unproven clients are WebSockets, which are sockets too.
        let oldest = oldest.or_else(|| tables.clients.remove_oldest_of_largest());
        oldest.map(Some).ok_or(LimitError::Node)
    }

    /// Counts a socket, also when it is refused; the one that has to end for it, if its address has too many.
    fn count_for(&self, tables: &mut Tables, owner: Owner) -> Result<Option<End>, LimitError> {
        let max = self.bounds.per_address;
        if max == 0 || owner.is_proxy {
            return Ok(None);
        }
        let count = tables.by_address.entry(owner.address).or_default();
        count.sockets += 1;
        if count.sockets <= count.max_sockets(max) {
            return Ok(None);
        }
        tables.sockets.remove_oldest_of(owner.address).map(Some).ok_or(LimitError::Address)
    }

    /// Puts a socket on another account; `ticket` is its own while it is unproven. The answer is its new one: it is as old as what
    /// it carries, since a proxy keeps its sockets for a long time and for many clients.
    ///
    /// # Errors
    /// When the other address has all the sockets it may have; then the socket stays where it is.
    pub(super) fn move_socket(
        &self,
        from: Owner,
        to: Owner,
        ticket: Option<Ticket>,
    ) -> Result<Option<Ticket>, LimitError> {
        let (ticket, oldest) = {
            let mut tables = self.tables.lock();
            let counted = self.count_for(&mut tables, to);
            self.uncount(&mut tables, if counted.is_ok() { from } else { to });
            let oldest = counted?;
            let own = ticket.and_then(|ticket| tables.sockets.remove(ticket));
            (own.map(|end| self.insert(&mut tables, to, end)), oldest)
        };
        end_if_any(oldest);
        Ok(ticket)
    }

    fn uncount(&self, tables: &mut Tables, owner: Owner) {
        if !owner.is_proxy {
            self.change_count(tables, owner.address, |count| count.sockets -= 1);
        }
    }

    /// Takes out the one that ends for another unproven one, if there are too many.
    fn make_room_for_unproven(&self, tables: &mut Tables) -> Option<End> {
        if tables.sockets.len() + tables.clients.len() < self.allowed.unproven.load(Ordering::Relaxed) {
            return None;
        }
        if tables.sockets.largest() >= tables.clients.largest() {
            tables.sockets.remove_oldest_of_largest()
        } else {
            tables.clients.remove_oldest_of_largest()
        }
    }

    /// Counts a client from this address, before or after it has proven itself.
    ///
    /// # Errors
    /// Which limit is reached by clients that have proven themselves.
    pub fn take(self: &Arc<Self>, peer: IpAddr, kind: ClientKind) -> Result<Permit, LimitError> {
        let (max, is_websocket) = (self.bounds.per_address, kind == ClientKind::WebSocket);
        let taken = self.clients.fetch_add(1, Ordering::Relaxed) + 1;
        let permit = Permit { limiter: self.clone(), address: CompactAddress::of(peer), is_websocket, ticket: None };
        if taken <= self.max_clients() && max == 0 {
            return Ok(permit);
        }
        let end = {
            let mut tables = self.tables.lock();
            let is_address_full = max > 0 && {
                let count = tables.by_address.entry(permit.peer()).or_default();
                count.clients += 1;
                count.websockets += usize::from(is_websocket);
                count.clients > max
            };
            if is_address_full {
                tables.clients.remove_oldest_of(permit.peer()).map(Some).ok_or(LimitError::Address)
            } else if taken > self.max_clients() {
                tables.clients.remove_oldest_of_largest().map(Some).ok_or(LimitError::Node)
            } else {
                Ok(None)
            }
        };
        end_if_any(end?);
        Ok(permit)
    }

    /// Clients that are connected.
    pub fn taken(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Whether more sockets are open than may be: those that end to make room are not closed yet.
    pub fn is_over(&self) -> bool {
        self.open.load(Ordering::Relaxed) > self.max_sockets()
    }

    /// Ends an unproven socket: the process has no file left.
    pub fn free_a_file(&self) {
        let oldest = self.tables.lock().sockets.remove_oldest_of_largest();
        end_if_any(oldest);
    }

    /// Ends a client, if it is still unproven.
    pub fn evict(&self, ticket: Ticket) {
        let end = self.tables.lock().clients.remove(ticket);
        end_if_any(end);
    }

    fn next_ticket(&self) -> Ticket {
        Ticket::MIN.saturating_add(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    /// The socket has sent something that proves it, at least for now.
    pub(super) fn leave_table(&self, ticket: Ticket) {
        self.tables.lock().sockets.remove(ticket);
    }

    /// The socket has nothing left that proves it.
    pub(super) fn enter_table(&self, owner: Owner, end: End) -> Ticket {
        let (ticket, oldest) = {
            let mut tables = self.tables.lock();
            let oldest = self.make_room_for_unproven(&mut tables);
            (self.insert(&mut tables, owner, end), oldest)
        };
        end_if_any(oldest);
        ticket
    }

    /// A socket is closed, or has become a WebSocket.
    pub(super) fn drop_socket(&self, owner: Owner, ticket: Option<Ticket>) {
        let mut tables = self.tables.lock();
        ticket.map(|ticket| tables.sockets.remove(ticket));
        self.uncount(&mut tables, owner);
    }

    /// A file is closed.
    pub(super) fn drop_file(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn change_count(&self, tables: &mut Tables, address: IpAddr, change: impl FnOnce(&mut AddressCount)) {
        if self.bounds.per_address == 0 {
            return;
        }
        if let Some(count) = tables.by_address.get_mut(&address) {
            change(count);
            if *count == AddressCount::default() {
                tables.by_address.remove(&address);
            }
        }
    }
}

fn end_if_any(end: Option<End>) {
    if let Some(end) = end {
        end.now();
    }
}

impl AddressCount {
    /// Clients and idle sockets share the limit, apart from the sockets that clients without a WebSocket need.
    fn max_sockets(&self, max: usize) -> usize {
        let others = self.clients.saturating_sub(self.websockets);
        max.saturating_sub(self.websockets).max(SOCKETS_OF_ONE).saturating_add(others)
    }
}

impl Permit {
    /// The client has not proven itself yet: `end` may be called to make room for others.
    pub fn await_proof(&mut self, end: impl FnOnce() + Send + 'static) -> Ticket {
        let ticket = self.limiter.next_ticket();
        self.ticket = Some(ticket);
        let end = End::Client(Box::new(end));
        let oldest = {
            let mut tables = self.limiter.tables.lock();
            let oldest = self.limiter.make_room_for_unproven(&mut tables);
            tables.clients.insert(ticket, self.peer(), end);
            oldest
        };
        end_if_any(oldest);
        ticket
    }

    /// The client's token was accepted.
    pub fn prove(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.limiter.tables.lock().clients.remove(ticket);
        }
    }

    /// Whether the client's token was accepted.
    pub fn is_proven(&self) -> bool {
        self.ticket.is_none()
    }

    /// A polling client goes on with a WebSocket.
    pub fn become_websocket(&mut self) {
        if !std::mem::replace(&mut self.is_websocket, true) {
            let mut tables = self.limiter.tables.lock();
            self.limiter.change_count(&mut tables, self.peer(), |count| count.websockets += 1);
        }
    }
}

impl Permit {
    /// The client's address as far as it is known: that of a proxy which does not name its clients.
    pub fn peer(&self) -> IpAddr {
        self.address.get()
    }

    /// The client's address, where addresses are counted.
    pub fn address(&self) -> Option<IpAddr> {
        self.limiter.bounds.knows_addresses.then(|| self.peer())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.clients.fetch_sub(1, Ordering::Relaxed);
        self.prove();
        if self.limiter.bounds.per_address > 0 {
            let mut tables = self.limiter.tables.lock();
            self.limiter.change_count(&mut tables, self.peer(), |count| {
                count.clients -= 1;
                count.websockets -= usize::from(self.is_websocket);
            });
        }
    }
}

#[cfg(test)]
mod tests;
