//! An answer that many may ask for at once, and that costs something: it is made once for all that wait, and not more often
//! than every [`PAUSE`]. Nobody gets one that is older than the question.

use std::future::Future;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Between two answers. Without it, whoever asks again and again would keep a core busy.
const PAUSE: Duration = Duration::from_millis(50);

/// The last answer, and when it was begun.
pub(super) struct Shared<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Shared<T> {
    /// An answer that is begun after this call, by `make` or for somebody else who waits.
    pub(super) async fn get(&self, make: impl Future<Output = T>) -> T {
        let asked = Instant::now();
        // Those whose requests have arrived at the same time ask before the first answer is begun.
        tokio::task::yield_now().await;
        let mut last = self.0.lock().await;
        if let Some((begun, answer)) = &*last {
            if *begun >= asked {
                return answer.clone();
            }
            tokio::time::sleep(PAUSE.saturating_sub(begun.elapsed())).await;
        }
        let begun = Instant::now();
        let answer = make.await;
        *last = Some((begun, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn all_that_wait_get_one_answer_and_who_asks_later_a_new_one() {
        let (shared, made) = (Shared::default(), Cell::new(0));
        let get = || {
            shared.get(async {
                made.set(made.get() + 1);
                made.get()
            })
        };
        assert_eq!(tokio::join!(get(), get(), get()), (1, 1, 1));
        assert_eq!(get().await, 2);
    }
}
