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

/// Calls `deliver` whenever this thread is asked to, until dropped, and `last` then. `deliver` says whether it left something to
/// the thread's next turn.
pub(super) async fn run(deliver: impl Fn() -> bool, last: impl Fn()) {
    let _last = Last(last);
    // Dropped before the last delivery, which can leave nothing to this task.
    let woken = Arc::new(Notify::new());
    TAIL.set(Arc::downgrade(&woken));
    loop {
        woken.notified().await;
        while deliver() {
            // As long as others append, there is something to deliver. This thread's clients and publishers have their turn, too.
            tokio::task::yield_now().await;
        }
    }
}

/// Nothing is left behind that waited for the end of a turn.
struct Last<D: Fn()>(D);

impl<D: Fn()> Drop for Last<D> {
    fn drop(&mut self) {
        (self.0)();
    }
}
