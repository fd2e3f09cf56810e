//! How many clients a node and an address may hold: `limits.connections` and `limits.connections_per_ip`.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The node's count of client connections.
#[derive(Debug)]
pub struct ConnectionLimiter {
    max: usize,
    most_per_ip: usize,
    taken: AtomicUsize,
    by_ip: Mutex<HashMap<IpAddr, usize>>,
}

/// One place; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    places: Arc<ConnectionLimiter>,
    /// Only where addresses are counted.
    ip: Option<IpAddr>,
}

/// Which limit was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// `limits.connections`.
    Node,
    /// `limits.connections_per_ip`.
    Address,
}

impl ConnectionLimiter {
    /// Limits as in `[limits]`; `most_per_ip` 0 is unlimited.
    pub fn new(max: usize, most_per_ip: usize) -> Arc<Self> {
        Arc::new(Self { max, most_per_ip, taken: AtomicUsize::new(0), by_ip: Mutex::default() })
    }

    /// Takes a place for a client from this address.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn take(self: &Arc<Self>, ip: IpAddr) -> Result<Permit, LimitError> {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(LimitError::Node);
        }
        let place = Permit { places: self.clone(), ip: (self.most_per_ip > 0).then_some(ip) };
        if self.most_per_ip > 0 {
            let mut by_ip = self.by_ip.lock();
            let count = by_ip.entry(ip).or_default();
            *count += 1;
            if *count > self.most_per_ip {
                drop(by_ip);
                return Err(LimitError::Address);
            }
        }
        Ok(place)
    }

    /// Client connections that are open.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        let Some(ip) = self.ip else { return };
        let mut by_ip = self.places.by_ip.lock();
        if let Some(count) = by_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                by_ip.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let places = ConnectionLimiter::new(3, 2);
        let (here, there) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = places.take(here).unwrap();
        let _second = places.take(here).unwrap();
        assert_eq!(places.take(here).unwrap_err(), LimitError::Address);
        let _third = places.take(there).unwrap();
        assert_eq!(places.take(there).unwrap_err(), LimitError::Node);
        drop(first);
        assert_eq!(places.taken(), 2);
        let _again = places.take(here).unwrap();
        drop((_second, _third, _again));
        assert_eq!(places.taken(), 0);
        assert!(places.by_ip.lock().is_empty());
    }
}
