//! How often keys may be tried: `console.sign_ins_per_minute` for each address (sans-IO).

use crate::budget::pace::{Pace, SharedBucket};
use crate::model::address::accounted;
use crate::model::millis::Millis;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

/// Addresses with a bucket of their own; more of them share their buckets, and nobody knows with whom.
const BUCKETS: usize = 1_024;
/// The bucket counts seconds: a sign-in costs those until the next is due.
const MINUTE: u32 = 60;

/// The buckets of all addresses.
pub struct SignIns {
    pace: Option<Pace>,
    cost: u64,
    hasher: RandomState,
    buckets: Box<[SharedBucket]>,
}

impl SignIns {
    /// So many in a minute.
    pub fn new(per_minute: u32) -> Self {
        let buckets = (0..BUCKETS).map(|_| SharedBucket::default()).collect();
        let per_minute = per_minute.max(1);
        let cost = MINUTE.div_ceil(per_minute);
        // The last one begins before all is spent.
        let pace = Pace::new(1, (per_minute - 1) * cost + 1);
        Self { pace, cost: cost.into(), hasher: RandomState::new(), buckets }
    }

    /// Counts one.
    ///
    /// # Errors
    /// When to try again.
    pub fn take(&self, client: IpAddr, now: Millis) -> Result<(), Duration> {
        self.pace.map_or(Ok(()), |pace| self.bucket(client).take(now, pace, self.cost))
    }

    /// Whether one may be counted now.
    pub fn may_try(&self, client: IpAddr, now: Millis) -> bool {
        self.pace.is_none_or(|pace| self.bucket(client).wait(now, pace).is_none())
    }

    fn bucket(&self, client: IpAddr) -> &SharedBucket {
        &self.buckets[self.hasher.hash_one(accounted(client)) as usize % BUCKETS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_a_minute() {
        let sign_ins = SignIns::new(10);
        let taken = |client: &str, second: u64| {
            let client = client.parse().unwrap();
            (0..100).take_while(|_| sign_ins.take(client, Millis::new(second * 1000)).is_ok()).count()
        };
        let may_try = |second: u64| sign_ins.may_try("10.0.0.1".parse().unwrap(), Millis::new(second * 1000));
        assert!(may_try(1));
        assert_eq!((taken("10.0.0.1", 1), taken("10.0.0.1", 1)), (10, 0));
        assert!(!may_try(1) && may_try(7));
        assert_eq!(taken("2001:db8::1", 1) + taken("2001:db8::2", 1), 10, "one network");
        assert_eq!((taken("10.0.0.1", 7), taken("10.0.0.1", 61 + 7)), (1, 10));
    }
}
