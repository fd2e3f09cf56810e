//! What was logged a moment ago: one trouble concerns many tasks, such as all partitions of the log, and is logged once.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a line is not logged again.
const RECENT: Duration = Duration::from_secs(10);
/// Different lines that are remembered. Any more are logged each time.
const MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<HashMap<String, Instant>>);

impl Repeats {
    /// Whether nobody has logged this line for a moment. The caller logs it then.
    pub fn is_news(&self, line: String, now: Instant) -> bool {
        let mut logged = self.0.lock();
        logged.retain(|_, at| now.saturating_duration_since(*at) < RECENT);
        if logged.contains_key(&line) {
            return false;
        }
        if logged.len() < MAX {
            logged.insert(line, now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_news_once_and_again_when_a_while_has_passed() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        let is_news = |line: &str, seconds| repeats.is_news(line.to_owned(), now + Duration::from_secs(seconds));
        assert_eq!([is_news("a", 0), is_news("a", 9), is_news("b", 9)], [true, false, true]);
        assert_eq!([is_news("a", 10), is_news("b", 18), is_news("a", 19)], [true, false, false]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        for number in 0..2 * MAX {
            assert!(repeats.is_news(number.to_string(), now));
        }
        assert_eq!(repeats.0.lock().len(), MAX);
        assert!(!repeats.is_news("0".to_owned(), now) && repeats.is_news(MAX.to_string(), now));
    }
}
