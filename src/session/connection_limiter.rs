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
    max_per_ip: usize,
    taken: AtomicUsize,
    by_ip: Mutex<HashMap<IpAddr, usize>>,
}

/// Counts one connection until it is dropped.
#[derive(Debug)]
pub struct Permit {
    limiter: Arc<ConnectionLimiter>,
    ip: IpAddr,
}

impl Permit {
    /// The client's address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// `limits.connections`.
    Node,
    /// `limits.connections_per_ip`.
    Address,
}

impl ConnectionLimiter {
    /// Limits as in `[limits]`; `max_per_ip` 0 is no limit.
    pub fn new(max: usize, max_per_ip: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_ip, taken: AtomicUsize::new(0), by_ip: Mutex::default() })
    }

    /// Counts a client from this address.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn take(self: &Arc<Self>, ip: IpAddr) -> Result<Permit, LimitError> {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(LimitError::Node);
        }
        let permit = Permit { limiter: self.clone(), ip };
        if self.max_per_ip > 0 {
            let mut by_ip = self.by_ip.lock();
            let count = by_ip.entry(ip).or_default();
            *count += 1;
            if *count > self.max_per_ip {
                drop(by_ip);
                return Err(LimitError::Address);
            }
        }
        Ok(permit)
    }

    /// Client connections that are open.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.taken.fetch_sub(1, Ordering::Relaxed);
        if self.limiter.max_per_ip == 0 {
            return;
        }
        let mut by_ip = self.limiter.by_ip.lock();
        if let Some(count) = by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let limiter = ConnectionLimiter::new(3, 2);
        let (here, there) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = limiter.take(here).unwrap();
        let _second = limiter.take(here).unwrap();
        assert_eq!(limiter.take(here).unwrap_err(), LimitError::Address);
        let _third = limiter.take(there).unwrap();
        assert_eq!(limiter.take(there).unwrap_err(), LimitError::Node);
        drop(first);
        assert_eq!(limiter.taken(), 2);
        let _again = limiter.take(here).unwrap();
        drop((_second, _third, _again));
        assert_eq!(limiter.taken(), 0);
        assert!(limiter.by_ip.lock().is_empty());
    }
}
