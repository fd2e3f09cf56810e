//! How many requests may wait for the backend, in sum and of one source.

use crate::backend::BackendError;
use crate::backend::config::BackendConfig;
use crate::backend::source::Source;
use crate::budget::{Held, Holding, MemoryBudget};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// The share of what is free that one source may have. It shrinks with what others have, so that a newcomer finds a place
/// although many sources take all they can.
const SHARE_OF_FREE: usize = 16;
/// The same of all users of a tenant.
const TENANT_SHARE_OF_FREE: usize = 4;

/// Counts the requests that wait or are under way.
pub(super) struct Places {
    taken: Mutex<Taken>,
    memory: Arc<MemoryBudget>,
}

#[derive(Default)]
struct Taken {
    max: Amount,
    /// `backend.queue_per_user`.
    max_per_source: usize,
    all: Amount,
    sources: HashMap<Source, Amount>,
    tenants: HashMap<Arc<str>, Amount>,
}

#[derive(Clone, Copy, Default)]
struct Amount {
    requests: usize,
    bytes: usize,
}

impl Amount {
    fn add(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.requests -= 1;
        self.bytes -= bytes;
    }
}

/// A place of one request, until it is dropped: while it waits and while it is under way.
pub struct Place {
    places: Arc<Places>,
    source: Source,
    bytes: usize,
    _held: Held,
}

impl Place {
    /// Who has it.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The bytes that it was taken for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Places {
    pub(super) fn new(config: &BackendConfig, memory: Arc<MemoryBudget>) -> Arc<Self> {
        let places = Arc::new(Self { taken: Mutex::default(), memory });
        places.allow(config);
        places
    }

    /// Other bounds from now on. Who has a place keeps it.
    pub(super) fn allow(&self, config: &BackendConfig) {
        let mut taken = self.taken.lock();
        taken.max = Amount { requests: config.queue, bytes: config.queue_bytes };
        taken.max_per_source = config.queue_per_user;
    }

    /// A place for a request of so many bytes. One request of a source always finds a place while there is one.
    ///
    /// # Errors
    /// [`BackendError::Busy`].
    pub(super) fn take(self: &Arc<Self>, source: Source, bytes: usize) -> Result<Place, BackendError> {
        let mut taken = self.taken.lock();
        let free = Amount {
            requests: taken.max.requests.saturating_sub(taken.all.requests),
            bytes: taken.max.bytes.saturating_sub(taken.all.bytes),
        };
        if free.requests == 0 || free.bytes < bytes {
            return Err(BackendError::Busy);
        }
        let is_within = |own: Option<&Amount>, part: usize| {
            own.is_none_or(|own| own.requests < free.requests.div_ceil(part) && own.bytes + bytes <= free.bytes / part)
        };
        let own = taken.sources.get(&source);
        let tenant = source.tenant().and_then(|tenant| taken.tenants.get(tenant));
        if own.is_some_and(|own| own.requests >= taken.max_per_source)
            || !is_within(own, SHARE_OF_FREE)
            || !is_within(tenant, TENANT_SHARE_OF_FREE)
        {
            return Err(BackendError::Busy);
        }
        taken.all.add(bytes);
        if let Some(tenant) = source.tenant() {
            taken.tenants.entry(tenant.clone()).or_default().add(bytes);
        }
        taken.sources.entry(source.clone()).or_default().add(bytes);
        let held = self.memory.hold(Holding::Pending, bytes);
        Ok(Place { places: self.clone(), source, bytes, _held: held })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.all.remove(self.bytes);
        remove(&mut taken.sources, &self.source, self.bytes);
        if let Some(tenant) = self.source.tenant() {
            remove(&mut taken.tenants, tenant, self.bytes);
        }
    }
}

fn remove<K: Eq + Hash>(amounts: &mut HashMap<K, Amount>, key: &K, bytes: usize) {
    if let Some(amount) = amounts.get_mut(key) {
        amount.remove(bytes);
        if amount.requests == 0 {
            amounts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(queue: usize, queue_per_user: usize, queue_bytes: usize) -> Arc<Places> {
        let config = BackendConfig { queue, queue_per_user, queue_bytes, ..BackendConfig::default() };
        Places::new(&config, MemoryBudget::unlimited())
    }

    fn take_all(places: &Arc<Places>, user: &str, bytes: usize) -> Vec<Place> {
        std::iter::from_fn(|| places.take(Source::user(user), bytes).ok()).collect()
    }

    #[test]
    fn a_source_has_a_share_and_newcomers_find_a_place() {
        let places = places(1_000, 20, 1_000_000);
        let one = take_all(&places, "one", 10);
        assert_eq!(one.len(), 20);
        let others: Vec<_> = (0..60).map(|user| take_all(&places, &format!("{user}"), 10)).collect();
        assert!(others.iter().all(|other| !other.is_empty()), "{:?}", others.iter().map(Vec::len).collect::<Vec<_>>());
        assert!(places.take(Source::user("newcomer"), 10).is_ok());
        drop((one, others));
        let taken = places.taken.lock();
        assert_eq!((taken.all.requests, taken.all.bytes, taken.sources.len()), (0, 0, 0));
    }

    #[test]
    fn a_tenant_has_a_share_too() {
        let places = places(1_000, 20, 1_000_000);
        let of =
            |tenant: &str, user: usize| places.take(Source::user(&user.to_string()).of_tenant(Some(tenant)), 10).ok();
        let large: Vec<_> = (0..1_000).filter_map(|user| of("large", user)).collect();
        assert_eq!(large.len(), 200, "a quarter of what is then free");
        assert!(of("small", 1).is_some());
        drop(large);
        let taken = places.taken.lock();
        assert_eq!((taken.all.requests, taken.sources.len(), taken.tenants.len()), (0, 0, 0));
    }

    #[test]
    fn bytes_are_bounded_and_one_large_request_passes() {
        let places = places(1_000, 1_000, 16_000);
        let small = take_all(&places, "one", 100);
        assert!((5..=10).contains(&small.len()), "{}", small.len());
        let large = places.take(Source::user("two"), 10_000).ok();
        assert!(large.is_some());
        assert!(places.take(Source::user("two"), 1).is_err());
        assert!(places.take(Source::user("three"), 10_000).is_err(), "over the sum");
    }
}
