//! Who may use a shard's tables: the shard's own thread from the time that it needs them until it sleeps, and in between
//! whoever hands out events ([`crate::shard::on_behalf`]).
//!
//! The thread takes the tables once for all that it does between two waits, so its own accesses cost no lock each. Others only
//! look whether they are there, and never wait for them.

use crate::shard::hub::Hub;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use std::cell::{Ref, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;

thread_local! {
    /// The tables of this thread's shard.
    static OWN: RefCell<Option<Rc<HubCell>>> = const { RefCell::new(None) };
}

/// The tables of a shard while its thread sleeps.
#[derive(Clone)]
pub(super) struct SharedHub(Arc<Mutex<Option<Box<Hub>>>>);

impl SharedHub {
    /// The tables, if the thread sleeps and nobody else uses them.
    pub(super) fn try_lock(&self) -> Option<MappedMutexGuard<'_, Hub>> {
        MutexGuard::try_map(self.0.try_lock()?, |hub| hub.as_deref_mut()).ok()
    }

    /// Changes the tables, if they are those of this thread's shard and nothing on it uses them now.
    pub(super) fn try_own<T>(&self, act: impl FnOnce(&mut Hub) -> T) -> Option<T> {
        OWN.with_borrow(|own| {
            let own = own.as_ref().filter(|own| Arc::ptr_eq(&own.shared.0, &self.0))?;
            let mut hub = own.own.try_borrow_mut().ok()?;
            Some(act(hub.as_deref_mut()?))
        })
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

    /// They are the tables of this thread's shard from now on.
    pub(super) fn enter(self: &Rc<Self>) {
        OWN.set(Some(self.clone()));
    }

    /// This thread's shard has ended.
    pub(super) fn exit() {
        OWN.take();
    }

    /// This thread is about to sleep: others may use its tables until it needs them again.
    pub(super) fn let_go_own() {
        OWN.with_borrow(|own| own.iter().for_each(|own| own.let_go()));
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

    fn let_go(&self) {
        if let Some(own) = self.own.borrow_mut().take() {
            *self.shared.0.lock() = Some(own);
        }
    }
}
