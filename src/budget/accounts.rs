//! All accounts of a node: one for each owner of connections. An account is forgotten when nobody holds it and all that it had
//! spent is refilled.

use crate::budget::account::{ADDRESS, Account, AccountPermit, KIND_SHIFT, Owner, TENANT, USER};
use crate::model::millis::Millis;
use hashbrown::HashTable;
use parking_lot::Mutex;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tables with a lock each.
const TABLES: usize = 64;
/// Accounts of a table from which on those are forgotten too that nobody holds and that have spent something: 64 bytes each, so
/// 64 MB in all. Accounts that are held are bounded by `limits.connections`.
const MAX_UNHELD: usize = if cfg!(test) { 128 } else { 16_384 };

/// All accounts of the node.
#[derive(Debug)]
pub struct Accounts {
    tables: [Mutex<HashTable<Arc<Account>>>; TABLES],
    hasher: RandomState,
    /// The table that is looked through next.
    next: AtomicUsize,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            tables: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            next: AtomicUsize::new(0),
        }
    }
}

impl Accounts {
    /// Counts a connection of this owner. The caller checks the limits where it can still be refused.
    pub fn permit(&self, owner: Owner<'_>, now: Millis) -> AccountPermit {
        let tenant = match owner {
            Owner::User(_, Some(tenant)) => Some(self.find(self.id(TENANT, tenant), now, || None)),
            Owner::User(_, None) | Owner::Address(_) => None,
        };
        let id = match owner {
            Owner::User(..) => self.id(USER, owner),
            Owner::Address(address) => self.id(ADDRESS, network_of(address)),
        };
        AccountPermit::new(self.find(id, now, || tenant))
    }

    fn id(&self, kind: u64, owner: impl Hash) -> u64 {
        (self.hasher.hash_one((kind, owner)) & !(3 << KIND_SHIFT)) | kind << KIND_SHIFT
    }

    fn find(&self, id: u64, now: Millis, tenant: impl FnOnce() -> Option<Arc<Account>>) -> Arc<Account> {
        // The high bits: the table uses the low ones.
        let mut table = self.tables[(id >> 32) as usize % TABLES].lock();
        if let Some(account) = table.find(id, |account| account.id() == id) {
            return account.clone();
        }
        if table.len() >= MAX_UNHELD && table.len().is_multiple_of(MAX_UNHELD / 16) {
            forget(&mut table, now, true);
        }
        let account = Account::new(id, now, tenant());
        table.insert_unique(id, account.clone(), |account| account.id());
        account
    }

    /// Forgets accounts that nobody needs, in one of the tables. To be called about once a second: after a minute all have had
    /// their turn.
    pub fn sweep(&self, now: Millis) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % TABLES;
        forget(&mut self.tables[next].lock(), now, false);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tables.iter().map(|table| table.lock().len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Forgets what nobody holds and what is refilled, or also what is not.
fn forget(table: &mut HashTable<Arc<Account>>, now: Millis, also_spent: bool) {
    table.retain(|account| {
        // Also of those that are held, or the time of their buckets would wrap.
        let is_refilled = account.is_refilled(now);
        Arc::strong_count(account) > 1 || !(also_spent || is_refilled)
    });
    if table.len() * 8 < table.capacity() {
        let max = table.len() * 2;
        table.shrink_to(max, |account| account.id());
    }
}

/// One customer has many addresses of IPv6: a /64 counts as one.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
            IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into())
        }
        address => address.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::account::{AccountLimits, OverLimit, OwnerLimits, Refused, Take, TooFast};
    use crate::budget::pace::Pace;
    use std::time::Duration;

    const AT: fn(u64) -> Millis = Millis::new;

    fn limits() -> AccountLimits {
        let owner = |connections, events| OwnerLimits { connections, events, ..OwnerLimits::default() };
        AccountLimits {
            user: OwnerLimits { joins: Pace::new(1, 10), ..owner(2, Pace::new(10, 20)) },
            tenant: owner(3, Pace::new(10, 30)),
            ..AccountLimits::default()
        }
    }

    fn messages(permit: &AccountPermit, now: Millis) -> usize {
        (0..100).filter(|_| permit.account().take(now, &limits(), Take::Message(1)).is_ok()).count()
    }

    #[test]
    fn connections_of_a_user_and_of_their_tenant() {
        let accounts = Accounts::default();
        let user = |user| {
            let permit = accounts.permit(Owner::User(user, Some("acme")), AT(1));
            permit.check(&limits()).map(|()| permit)
        };
        let first = [user("7").unwrap(), user("7").unwrap()];
        assert_eq!(user("7").unwrap_err(), OverLimit::Owner);
        let _third = user("8").unwrap();
        assert_eq!(user("8").unwrap_err(), OverLimit::Tenant);
        drop(first);
        assert!(user("8").is_ok() && user("7").is_ok());
        assert!(accounts.permit(Owner::User("7", None), AT(1)).check(&limits()).is_ok());
    }

    #[test]
    fn connections_that_begin_have_a_pace() {
        let limits = || AccountLimits {
            user: OwnerLimits { connects: Pace::new(10, 20), ..OwnerLimits::default() },
            ..AccountLimits::default()
        };
        let accounts = Accounts::default();
        let begin = |ms| accounts.permit(Owner::User("7", Some("acme")), AT(ms)).begin(AT(ms), &limits());
        assert_eq!((0..100).filter(|_| begin(1).is_ok()).count(), 20);
        let retry = Duration::from_millis(100);
        assert_eq!(begin(1), Err(Refused::TooFast(TooFast { limit: OverLimit::Owner, retry })));
        assert!(begin(101).is_ok());
    }

    #[test]
    fn messages_and_joins_of_all_connections_count_together() {
        let accounts = Accounts::default();
        let permit = |user| accounts.permit(Owner::User(user, Some("acme")), AT(1));
        let (one, two, other) = (permit("7"), permit("7"), permit("8"));
        assert_eq!((messages(&one, AT(1)), messages(&two, AT(1))), (20, 0));
        assert_eq!(messages(&other, AT(1)), 10, "the rest of the tenant's");
        let joins = |count| one.account().take(AT(1), &limits(), Take::Joins(count));
        assert_eq!((joins(9), joins(5)), (Ok(()), Ok(())));
        assert_eq!(joins(1), Err(TooFast { limit: OverLimit::Owner, retry: Duration::from_secs(5) }));
    }

    #[test]
    fn forgotten_when_nobody_holds_them_and_all_is_refilled() {
        let accounts = Accounts::default();
        let sweep = |ms| (0..TABLES).for_each(|_| accounts.sweep(AT(ms)));
        let one = accounts.permit(Owner::User("7", Some("acme")), AT(1));
        assert_eq!(messages(&one, AT(1)), 20);
        sweep(2);
        assert_eq!(accounts.len(), 2);
        drop(one);
        sweep(1_000);
        assert_eq!(messages(&accounts.permit(Owner::User("7", Some("acme")), AT(1_000)), AT(1_000)), 10);
        (0..2).for_each(|_| sweep(10_000));
        assert!(accounts.is_empty());
    }

    #[test]
    fn their_number_is_bounded() {
        let accounts = Accounts::default();
        for user in 0..3 * TABLES * MAX_UNHELD {
            let permit = accounts.permit(Owner::User(&user.to_string(), None), AT(1));
            assert!(permit.account().take(AT(1), &limits(), Take::Message(1)).is_ok());
        }
        assert!(accounts.len() <= TABLES * (MAX_UNHELD + 1), "{}", accounts.len());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let accounts = Accounts::default();
        let id = |address: &str| accounts.permit(Owner::Address(address.parse().unwrap()), AT(1)).account().id();
        assert_eq!(id("2001:db8::1"), id("2001:db8::2:0:0:9"));
        assert_ne!(id("2001:db8::1"), id("2001:db8:0:1::1"));
        assert_eq!(id("::ffff:10.0.0.1"), id("10.0.0.1"));
        assert_eq!(size_of::<Account>(), 40, "each user who is connected has one");
    }
}
