//! What publishers append on a shard's thread in one turn is delivered together, at its end: the events of many of them then
//! take each lock on their way once, and leave with one write for each receiver. The publishers have their answers by then.

use std::cell::RefCell;
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

thread_local! {
    /// Wakes the task of this thread that delivers. It runs behind all that is ready to run now.
    static TAIL: RefCell<Weak<Notify>> = const { RefCell::new(Weak::new()) };
}

/// Has this thread's task deliver soon; `false` where there is none.
pub(super) fn wake() -> bool {
    TAIL.with_borrow(Weak::upgrade).map(|tail| tail.notify_one()).is_some()
}

/// Calls `deliver` whenever this thread is asked to, until dropped, and once more then.
pub(super) async fn run(deliver: impl Fn()) {
    let woken = Arc::new(Notify::new());
    TAIL.set(Arc::downgrade(&woken));
    let last = Last(deliver);
    loop {
        woken.notified().await;
        (last.0)();
    }
}

/// Nothing is left behind that waited for the end of a turn.
struct Last<D: Fn()>(D);

impl<D: Fn()> Drop for Last<D> {
    fn drop(&mut self) {
        (self.0)();
    }
}
