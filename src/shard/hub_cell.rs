//! Who may use a shard's tables: the shard's own thread from the time that it needs them until it sleeps, and in between
//! whoever hands out events ([`crate::shard::on_behalf`]).
//!
//! The thread takes the tables once for all that it does between two waits, so its own accesses cost no lock each. Others only
//! look whether they are there, and never wait for them.

use crate::shard::hub::Hub;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use std::cell::{Ref, RefCell, RefMut};
use std::sync::Arc;

/// The tables of a shard while its thread sleeps.
#[derive(Clone)]
pub(super) struct SharedHub(Arc<Mutex<Option<Box<Hub>>>>);

impl SharedHub {
    /// The tables, if the thread sleeps and nobody else uses them.
    pub(super) fn try_lock(&self) -> Option<MappedMutexGuard<'_, Hub>> {
        MutexGuard::try_map(self.0.try_lock()?, |hub| hub.as_deref_mut()).ok()
    }
}

/// The tables of a shard, as its thread has them.
pub(super) struct HubCell {
    shared: SharedHub,
    own: RefCell<Option<Box<Hub>>>,
}

const IS_OWN: &str = "the tables are either shared or the thread's own";

impl HubCell {
    pub(super) fn new(hub: Hub) -> Self {
        Self { shared: SharedHub(Arc::default()), own: RefCell::new(Some(Box::new(hub))) }
    }

    /// For other threads.
    pub(super) fn share(&self) -> SharedHub {
        self.shared.clone()
    }

    /// Reads. Another thread may still be at a small delivery, for which this one waits.
    pub(super) fn borrow(&self) -> Ref<'_, Hub> {
        self.own();
        Ref::map(self.own.borrow(), |own| &**own.as_ref().expect(IS_OWN))
    }

    /// Changes; as [`RefCell::borrow_mut`] for this thread.
    pub(super) fn borrow_mut(&self) -> RefMut<'_, Hub> {
        self.own();
        RefMut::map(self.own.borrow_mut(), |own| &mut **own.as_mut().expect(IS_OWN))
    }

    fn own(&self) {
        if self.own.try_borrow().is_ok_and(|own| own.is_none()) {
            *self.own.borrow_mut() = self.shared.0.lock().take();
        }
    }

    /// The thread is about to sleep: others may use the tables until it needs them again.
    pub(super) fn let_go(&self) {
        if let Some(own) = self.own.borrow_mut().take() {
            *self.shared.0.lock() = Some(own);
        }
    }
}
