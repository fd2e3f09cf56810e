//! The account of one owner of connections: how many they are, and how fast they send and join. An owner is a user, an
//! anonymous address, or the tenant of users.
//!
//! A connection holds an [`AccountPermit`], so that what it sends is counted without a lock or a look-up.

use crate::budget::pace::{Pace, SharedBucket};
use crate::model::millis::Millis;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

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
pub(super) const KIND_SHIFT: u32 = 62;
pub(super) const USER: u64 = 0;
pub(super) const ADDRESS: u64 = 1;
pub(super) const TENANT: u64 = 2;

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
    pub(super) fn new(id: u64, now: Millis, tenant: Option<Arc<Self>>) -> Arc<Self> {
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

    pub(super) fn is_refilled(&self, now: Millis) -> bool {
        // Each is asked, whatever the others answer.
        [&self.connects, &self.events, &self.bytes, &self.joins].map(|bucket| bucket.is_full(now)) == [true; 4]
    }
}

/// Counts one connection for its owner and their tenant until it is dropped.
#[derive(Debug)]
pub struct AccountPermit(Arc<Account>);

impl AccountPermit {
    pub(super) fn new(account: Arc<Account>) -> Self {
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
