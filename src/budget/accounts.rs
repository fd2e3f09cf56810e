//! One account for each owner of connections: how many they are, and how fast they send and join. An owner is a user, an
//! anonymous address, or the tenant of users.
//!
//! A connection holds an [`AccountPermit`], so that what it sends is counted without a lock or a look-up. An account is
//! forgotten when nobody holds it and all that it had spent is refilled.

use crate::budget::pace::{Pace, SharedBucket};
use crate::model::millis::Millis;
use hashbrown::HashTable;
use parking_lot::Mutex;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// Tables with a lock each.
const TABLES: usize = 64;
/// Accounts of a table from which on those are forgotten too that nobody holds and that have spent something: 64 bytes each, so
/// 64 MB in all. Accounts that are held are bounded by `limits.connections`.
const MAX_UNHELD: usize = if cfg!(test) { 128 } else { 16_384 };

/// What one kind of owner may use; `None`: as much as it likes.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnerLimits {
    /// Connections to this node; 0 is unlimited.
    pub connections: u32,
    /// Connections that begin.
    pub connects: Option<Pace>,
    /// Messages.
    pub events: Option<Pace>,
    /// Bytes of messages.
    pub bytes: Option<Pace>,
    /// Rooms that are joined.
    pub joins: Option<Pace>,
}

/// What the owners may use.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccountLimits {
    /// A user.
    pub user: OwnerLimits,
    /// An address of clients without a token.
    pub address: OwnerLimits,
    /// A tenant.
    pub tenant: OwnerLimits,
}

/// Whose account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner<'a> {
    /// A user, and the tenant that the token names.
    User(&'a str, Option<&'a str>),
    /// Clients without a token.
    Address(IpAddr),
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are as many as there may be.
    Full(OverLimit),
    /// Too many begin.
    TooFast(TooFast),
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverLimit {
    /// That of the user or the address.
    Owner,
    /// That of the tenant.
    Tenant,
}

/// What is taken from an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// A connection that begins.
    Connect,
    /// A message of so many bytes.
    Message(usize),
    /// Rooms that are joined.
    Joins(usize),
}

/// Why something was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    /// Whose limit it is.
    pub limit: OverLimit,
    /// When to try again.
    pub retry: Duration,
}

/// Where an account's id has the kind of its owner, and the kinds.
const KIND_SHIFT: u32 = 62;
const USER: u64 = 0;
const ADDRESS: u64 = 1;
const TENANT: u64 = 2;

/// What an owner uses.
#[derive(Debug)]
pub struct Account {
    /// A keyed hash of the owner, with the kind in its upper bits. Two owners with the same one would share an account, which
    /// nobody can bring about.
    id: u64,
    connections: AtomicU32,
    connects: SharedBucket,
    events: SharedBucket,
    bytes: SharedBucket,
    joins: SharedBucket,
    tenant: Option<Arc<Self>>,
}

impl Account {
    fn new(id: u64, now: Millis, tenant: Option<Arc<Self>>) -> Arc<Self> {
        let bucket = || SharedBucket::new(now);
        let connections = AtomicU32::new(0);
        Arc::new(Self {
            id,
            connections,
            connects: bucket(),
            events: bucket(),
            bytes: bucket(),
            joins: bucket(),
            tenant,
        })
    }

    /// The same for all connections of an owner, and of nobody else.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Connections to this node.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    fn limits<'a>(&self, limits: &'a AccountLimits) -> &'a OwnerLimits {
        match self.id >> KIND_SHIFT {
            USER => &limits.user,
            ADDRESS => &limits.address,
            _ => &limits.tenant,
        }
    }

    /// Takes something, from the tenant too.
    ///
    /// # Errors
    /// When the owner, or its tenant, is too fast.
    pub fn take(&self, now: Millis, limits: &AccountLimits, what: Take) -> Result<(), TooFast> {
        self.take_own(now, limits, what).map_err(|retry| TooFast { limit: OverLimit::Owner, retry })?;
        let Some(tenant) = &self.tenant else { return Ok(()) };
        tenant.take_own(now, limits, what).map_err(|retry| TooFast { limit: OverLimit::Tenant, retry })
    }

    fn take_own(&self, now: Millis, limits: &AccountLimits, what: Take) -> Result<(), Duration> {
        let limits = self.limits(limits);
        let take = |bucket: &SharedBucket, pace: Option<Pace>, count: usize| {
            pace.map_or(Ok(()), |pace| bucket.take(now, pace, count as u64))
        };
        match what {
            Take::Connect => take(&self.connects, limits.connects, 1),
            Take::Message(bytes) => {
                take(&self.events, limits.events, 1)?;
                take(&self.bytes, limits.bytes, bytes)
            }
            Take::Joins(count) => take(&self.joins, limits.joins, count),
        }
    }

    /// How long until a message may be taken, and whose limit that is; `None` where it may be taken now.
    pub fn wait(&self, now: Millis, limits: &AccountLimits) -> Option<TooFast> {
        let own = self.wait_own(now, limits).map(|retry| TooFast { limit: OverLimit::Owner, retry });
        own.or_else(|| {
            let retry = self.tenant.as_ref()?.wait_own(now, limits)?;
            Some(TooFast { limit: OverLimit::Tenant, retry })
        })
    }

    fn wait_own(&self, now: Millis, limits: &AccountLimits) -> Option<Duration> {
        let limits = self.limits(limits);
        let wait = |bucket: &SharedBucket, pace: Option<Pace>| bucket.wait(now, pace?);
        wait(&self.events, limits.events).max(wait(&self.bytes, limits.bytes))
    }

    fn is_refilled(&self, now: Millis) -> bool {
        // Each is asked, whatever the others answer.
        [&self.connects, &self.events, &self.bytes, &self.joins].map(|bucket| bucket.is_full(now)) == [true; 4]
    }
}

/// Counts one connection for its owner and their tenant until it is dropped.
#[derive(Debug)]
pub struct AccountPermit(Arc<Account>);

impl AccountPermit {
    fn new(account: Arc<Account>) -> Self {
        account.connections.fetch_add(1, Ordering::Relaxed);
        if let Some(tenant) = &account.tenant {
            tenant.connections.fetch_add(1, Ordering::Relaxed);
        }
        Self(account)
    }

    /// Whether the owner and their tenant may have all of their connections, this one included.
    ///
    /// # Errors
    /// The limit that is exceeded.
    pub fn check(&self, limits: &AccountLimits) -> Result<(), OverLimit> {
        let is_over = |account: &Account| {
            let max = account.limits(limits).connections;
            max > 0 && account.connections() > max
        };
        match &self.0.tenant {
            _ if is_over(&self.0) => Err(OverLimit::Owner),
            Some(tenant) if is_over(tenant) => Err(OverLimit::Tenant),
            _ => Ok(()),
        }
    }

    /// Counts a connection that begins.
    ///
    /// # Errors
    /// When the owner has as many as they may have, or begins too many.
    pub fn begin(&self, now: Millis, limits: &AccountLimits) -> Result<(), Refused> {
        self.check(limits).map_err(Refused::Full)?;
        self.0.take(now, limits, Take::Connect).map_err(Refused::TooFast)
    }

    /// The account.
    pub fn account(&self) -> &Arc<Account> {
        &self.0
    }
}

impl Drop for AccountPermit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(tenant) = &self.0.tenant {
            tenant.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

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
        if let Some(account) = table.find(id, |account| account.id == id) {
            return account.clone();
        }
        if table.len() >= MAX_UNHELD && table.len().is_multiple_of(MAX_UNHELD / 16) {
            forget(&mut table, now, true);
        }
        let account = Account::new(id, now, tenant());
        table.insert_unique(id, account.clone(), |account| account.id);
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
        table.shrink_to(max, |account| account.id);
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
