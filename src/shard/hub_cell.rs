//! Who may use a shard's tables: the shard's own thread from the time that it needs them until it sleeps, and in between
//! whoever hands out events ([`crate::shard::on_behalf`]).
//!
//! The thread holds the lock over all that it does between two waits, so its own accesses cost no lock each. Others only
//! try it, and never wait for it: nobody can hold it and wait for the holder of another.

use crate::shard::hub::Hub;
use parking_lot::{ArcMutexGuard, Mutex, RawMutex};
use std::cell::{Ref, RefCell, RefMut};
use std::sync::Arc;

/// The tables of a shard, as other threads have them.
pub(super) type SharedHub = Arc<Mutex<Hub>>;

/// The tables of a shard, as its thread has them.
pub(super) struct HubCell {
    hub: SharedHub,
    held: RefCell<Option<Held>>,
}

type Held = ArcMutexGuard<RawMutex, Hub>;

const IS_HELD: &str = "nothing lets go of the tables while they are being borrowed";

impl HubCell {
    pub(super) fn new(hub: Hub) -> Self {
        Self { hub: Arc::new(Mutex::new(hub)), held: RefCell::default() }
    }

    /// For other threads.
    pub(super) fn share(&self) -> SharedHub {
        self.hub.clone()
    }

    /// Reads. Another thread may still be at a small delivery, for which this one waits.
    pub(super) fn borrow(&self) -> Ref<'_, Hub> {
        self.hold();
        Ref::map(self.held.borrow(), |held| &**held.as_ref().expect(IS_HELD))
    }

    /// Changes; as [`RefCell::borrow_mut`] for this thread.
    pub(super) fn borrow_mut(&self) -> RefMut<'_, Hub> {
        self.hold();
        RefMut::map(self.held.borrow_mut(), |held| &mut **held.as_mut().expect(IS_HELD))
    }

    fn hold(&self) {
        if self.held.try_borrow().is_ok_and(|held| held.is_none()) {
            *self.held.borrow_mut() = Some(self.hub.lock_arc());
        }
    }

    /// The thread is about to sleep: others may use the tables until it needs them again.
    pub(super) fn let_go(&self) {
        *self.held.borrow_mut() = None;
    }
}
