//! Every refusal leaves a trace: a counter by its reason, and a line in the log that says who was refused and what to
//! change. The lines are limited, so that a client in a loop cannot fill the log; they never hold a token or a payload.

use crate::metrics::Metrics;
use crate::model::refusal::Refusal;
use parking_lot::Mutex;
use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Lines of one reason in each [`WINDOW`]; what comes on top is only counted.
const MAX_LINES: u64 = 5;
const WINDOW: Duration = Duration::from_secs(10);
/// Characters of a name that somebody else chose.
const MAX_SHOWN: usize = 100;

static GATES: [Mutex<Gate>; Refusal::ALL.len()] =
    [const { Mutex::new(Gate { opened: None, lines: 0, withheld: 0 }) }; Refusal::ALL.len()];

/// Lets a few lines through.
struct Gate {
    opened: Option<Instant>,
    lines: u64,
    withheld: u64,
}

impl Gate {
    /// How many lines were withheld since the last one; `None` where this one is withheld too.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.opened.is_none_or(|opened| now.duration_since(opened) >= WINDOW) {
            (self.opened, self.lines) = (Some(now), 0);
        }
        if self.lines >= MAX_LINES {
            self.withheld += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.withheld))
    }
}

/// Is called with each refusal: its reason, who, and why.
pub type Listener = Box<dyn Fn(Refusal, &str, &str) + Send + Sync>;

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Has every refusal told to `listener`, also those without a line. Called once; a second call changes nothing.
pub fn listen(listener: Listener) {
    let _already_set = LISTENER.set(listener);
}

/// Counts a refusal and writes a line: `who` was refused, and `why` in the words of the setting to change.
pub fn note(metrics: &Metrics, reason: Refusal, who: fmt::Arguments<'_>, why: fmt::Arguments<'_>) {
    metrics.refusal(reason);
    if let Some(listener) = LISTENER.get() {
        listener(reason, &who.to_string(), &why.to_string());
    }
    let passed = GATES[reason as usize].lock().pass(Instant::now());
    match passed {
        Some(0) => tracing::warn!(reason = reason.label(), %who, "refused: {why}"),
        Some(withheld) => {
            tracing::warn!(reason = reason.label(), %who, withheld, "refused: {why}");
        }
        None => {}
    }
}

/// The start of a name that somebody else chose, without line breaks and control characters.
pub fn shown(name: &str) -> String {
    name.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_pass_in_each_window_and_the_next_says_how_many_did_not() {
        let mut gate = Gate { opened: None, lines: 0, withheld: 0 };
        let start = Instant::now();
        let passed: Vec<_> = (0..8).map(|_| gate.pass(start)).collect();
        assert_eq!(passed, [Some(0), Some(0), Some(0), Some(0), Some(0), None, None, None]);
        assert_eq!(gate.pass(start + WINDOW), Some(3));
        assert_eq!(gate.pass(start + WINDOW), Some(0));
    }

    #[test]
    fn names_cannot_forge_lines() {
        assert_eq!(shown("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(shown(&"x".repeat(1_000)).len(), MAX_SHOWN);
    }
}
