//! A timer whose deadline moves with every request. It is set again only where it would be late: a deadline that moves away
//! costs nothing until the old one is reached.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::time::{Sleep, sleep_until};

/// The timer of one task.
pub(super) struct LazyTimer {
    sleep: Pin<Box<Sleep>>,
    /// When it looks next.
    at: Instant,
}

impl LazyTimer {
    /// Looks then at the latest.
    pub(super) fn new(at: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(at.into())), at }
    }

    /// The timer itself, for whoever waits next in this task.
    pub(super) fn into_sleep(self) -> Pin<Box<Sleep>> {
        self.sleep
    }

    /// Waits for `ready`; `None` if that lasts until the deadline.
    pub(super) async fn before<T>(
        &mut self,
        deadline: Instant,
        mut ready: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        poll_fn(|context| match ready(context) {
            Poll::Ready(what) => Poll::Ready(Some(what)),
            Poll::Pending => self.poll_until(deadline, context).map(|()| None),
        })
        .await
    }

    fn poll_until(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        if deadline < self.at {
            self.set(deadline);
        }
        while self.sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.set(deadline);
        }
        Poll::Pending
    }

    fn set(&mut self, at: Instant) {
        self.at = at;
        self.sleep.as_mut().reset(at.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn the_deadline_that_holds_may_be_later_or_earlier_than_the_one_that_was_set() {
        let never = |_: &mut Context<'_>| Poll::<()>::Pending;
        let began = Instant::now();
        let mut timer = LazyTimer::new(began + SHORT);
        assert_eq!(timer.before(began + SHORT, |_| Poll::Ready(7)).await, Some(7));
        assert_eq!(timer.before(began + 3 * SHORT, never).await, None);
        assert!(began.elapsed() >= 3 * SHORT);
        let mut timer = LazyTimer::new(began + LONG);
        assert_eq!(timer.before(Instant::now() + SHORT, never).await, None);
        assert!(began.elapsed() < LONG);
    }
}
