//! Refusals in plain words, with what to do about each.

use crate::model::refusal::Refusal;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Different refusals that are counted. When there are more, all are shown again.
const MAX_KNOWN: usize = 1_000;

/// Tells each refusal once, and how often it has come back.
#[derive(Default)]
pub struct Narrator {
    counts: Mutex<HashMap<String, u64>>,
}

impl Narrator {
    /// What to print about a refusal; `None` for one that was shown and has come back a few times only.
    pub fn tell(&self, reason: Refusal, who: &str, why: &str) -> Option<String> {
        let line = format!("refused ({}): {who}: {why}", reason.label());
        let count = {
            let mut counts = self.counts.lock();
            if counts.len() >= MAX_KNOWN {
                counts.clear();
            }
            let count = counts.entry(line.clone()).or_default();
            *count += 1;
            *count
        };
        match count {
            1 => Some(format!("{line}\n    -> {}", reason.advice())),
            // 10, 100, 1000 …
            count if count >= 10 && count == 10_u64.pow(count.ilog10()) => {
                Some(format!("{line} ({count} times by now)"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_shown_once_with_advice_and_then_at_powers_of_ten() {
        let narrator = Narrator::default();
        let shown: Vec<_> = (0..100).filter_map(|_| narrator.tell(Refusal::Origin, "::1 /ws", "origin x")).collect();
        assert_eq!(shown.len(), 3);
        assert!(shown[0].starts_with("refused (origin): ::1 /ws: origin x\n    -> add the page's origin"));
        assert_eq!(shown[1..].iter().map(|line| line.ends_with("times by now)")).collect::<Vec<_>>(), [true, true]);
        assert!(shown[2].ends_with("(100 times by now)"));
    }

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let narrator = Narrator::default();
        for number in 0..MAX_KNOWN * 3 {
            let _ = narrator.tell(Refusal::Path, "::1", &number.to_string());
        }
        assert!(narrator.counts.lock().len() <= MAX_KNOWN);
    }
}
