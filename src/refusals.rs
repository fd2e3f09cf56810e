//! Every refusal can be seen: by a counter of its reason, by a line in the log that says who was refused and what to change,
//! and by whoever traces the user, the session or the room. The lines are limited, so that a client in a loop cannot fill the
//! log; they never hold a token or a payload.

use crate::feed::{Feed, Subject};
use crate::metrics::Metrics;
use crate::model::happening::Kind;
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::refusal::Refusal;
use parking_lot::Mutex;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Lines of one reason in each [`WINDOW`]; what comes on top is only counted.
const MAX_LINES: u64 = 5;
const WINDOW: Duration = Duration::from_secs(10);
/// Characters of a name that somebody else chose.
const MAX_SHOWN: usize = 100;

/// Lets a few lines through.
#[derive(Default)]
struct Gate {
    opened: Option<Instant>,
    lines: u64,
    withheld: u64,
}

impl Gate {
    fn is_over(&self, now: Instant) -> bool {
        self.opened.is_none_or(|opened| now.duration_since(opened) >= WINDOW)
    }

    /// Whether a line is written, and how many were withheld that no line has mentioned.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.is_over(now) {
            (self.opened, self.lines) = (Some(now), 0);
        }
        if self.lines >= MAX_LINES {
            self.withheld += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.withheld))
    }

    /// How many were withheld in a window that is over.
    fn take_withheld(&mut self, now: Instant) -> u64 {
        if self.is_over(now) { std::mem::take(&mut self.withheld) } else { 0 }
    }
}

/// Is called with each refusal: its reason, who, and why.
pub type Listener = Box<dyn Fn(Refusal, &str, &str) + Send + Sync>;

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Calls `listener` with every refusal, also with those without a line. Set once; a second call changes nothing.
pub fn listen(listener: Listener) {
    let _already_set = LISTENER.set(listener);
}

/// Who was refused, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    user: Option<String>,
    /// The user is only what the refused token says.
    claimed: bool,
    session: Option<Id>,
    address: Option<IpAddr>,
    path: Option<String>,
    about: Option<String>,
    room: Option<Room>,
}

impl Who {
    /// A client at this address.
    pub fn at(address: impl Into<Option<IpAddr>>) -> Self {
        Self { address: address.into(), ..Self::default() }
    }

    /// Somebody of whom no more is known than these words.
    pub fn unknown(about: impl Into<String>) -> Self {
        Self::default().about(about)
    }

    /// A session.
    #[must_use]
    pub fn session(self, session: Id, user: Option<&str>) -> Self {
        Self { session: Some(session), ..self.user(user) }
    }

    /// A user.
    #[must_use]
    pub fn user(self, user: Option<&str>) -> Self {
        Self { user: user.map(str::to_owned), ..self }
    }

    /// Whose token it says it is. Only traces show that, since nobody has checked it.
    #[must_use]
    pub fn claims(self, user: Option<String>) -> Self {
        Self { claimed: user.is_some(), user, ..self }
    }

    /// The path of the request.
    #[must_use]
    pub fn path(self, path: &str) -> Self {
        Self { path: Some(shown(path)), ..self }
    }

    /// More about the client, in words.
    #[must_use]
    pub fn about(self, about: impl Into<String>) -> Self {
        Self { about: Some(about.into()), ..self }
    }

    /// The room that it wanted.
    #[must_use]
    pub fn room(self, room: Room) -> Self {
        Self { room: Some(room), ..self }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().filter(|_| !self.claimed).map(|user| format!("user {}", shown(user)));
        let session = self.session.map(|session| format!("session {session}"));
        let place = match (self.address, &self.path) {
            (Some(address), Some(path)) => Some(format!("{address} {path}")),
            (address, path) => address.map(|address| address.to_string()).or_else(|| path.clone()),
        };
        let parts: Vec<String> = [user, session, place, self.about.clone()].into_iter().flatten().collect();
        f.write_str(if parts.is_empty() { "a client" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

/// Counts, logs and tells refusals.
pub struct Refusals {
    metrics: Arc<Metrics>,
    feed: Arc<Feed>,
    gates: Vec<Mutex<Gate>>,
}

impl Refusals {
    /// Nothing was refused yet.
    pub fn new(metrics: Arc<Metrics>, feed: Arc<Feed>) -> Self {
        Self { metrics, feed, gates: Refusal::ALL.iter().map(|_| Mutex::default()).collect() }
    }

    /// `who` was refused something, and `why` in the words of the setting to change.
    pub fn note(&self, reason: Refusal, who: &Who, why: fmt::Arguments<'_>) {
        self.count(reason);
        if let Some(listener) = LISTENER.get() {
            listener(reason, &who.to_string(), &why.to_string());
        }
        self.report(reason, who, why);
        let Some(withheld) = self.gates[reason as usize].lock().pass(Instant::now()) else { return };
        say_withheld(reason, withheld);
        tracing::warn!(reason = reason.label(), %who, advice = reason.advice(), "refused: {why}");
    }

    /// Only counts one that is no reason for a line.
    pub fn count(&self, reason: Refusal) {
        self.metrics.node.refusal(reason);
    }

    fn report(&self, reason: Refusal, who: &Who, why: fmt::Arguments<'_>) {
        let subject = Subject {
            user: who.user.as_deref(),
            session: who.session,
            address: who.address,
            rooms: who.room.as_slice(),
            ..Subject::default()
        };
        self.feed.report(Kind::Refused, &subject, |happening| {
            happening.claimed = who.claimed;
            happening.reason = Some(reason.label().to_owned());
            happening.message = Some(why.to_string());
        });
    }

    /// Says how many lines were withheld. Called every second or so.
    pub fn say_withheld(&self) {
        let now = Instant::now();
        for (reason, gate) in Refusal::ALL.iter().zip(&self.gates) {
            let withheld = gate.lock().take_withheld(now);
            say_withheld(*reason, withheld);
        }
    }
}

fn say_withheld(reason: Refusal, withheld: u64) {
    if withheld > 0 {
        tracing::warn!(reason = reason.label(), "refused: {withheld} more like this, which have no line of their own");
    }
}

/// The start of a name that somebody else chose, without line breaks and control characters.
pub fn shown(name: &str) -> String {
    name.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_few_lines_pass_in_each_window_and_the_others_are_said_to_be_withheld() {
        let mut gate = Gate::default();
        let start = Instant::now();
        let passed: Vec<_> = (0..8).map(|_| gate.pass(start)).collect();
        assert_eq!(passed, [Some(0), Some(0), Some(0), Some(0), Some(0), None, None, None]);
        assert_eq!((gate.take_withheld(start), gate.pass(start + WINDOW)), (0, Some(3)));
        assert_eq!((gate.take_withheld(start + WINDOW * 2), gate.pass(start + WINDOW * 2)), (0, Some(0)));
        for _ in 0..6 {
            let _ = gate.pass(start + WINDOW * 2);
        }
        assert_eq!((gate.take_withheld(start + WINDOW * 3), gate.take_withheld(start + WINDOW * 3)), (2, 0));
    }

    #[test]
    fn names_cannot_forge_lines() {
        assert_eq!(shown("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(shown(&"x".repeat(1_000)).len(), MAX_SHOWN);
    }

    #[test]
    fn who_is_said_as_far_as_it_is_known() {
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        let id = Id::random();
        for (who, text) in [
            (Who::at(here).path("/ws"), "127.0.0.1 /ws".to_owned()),
            (Who::at(here).session(id, Some("7")), format!("user 7, session {id}, 127.0.0.1")),
            (Who::at(here).claims(Some("7".into())).about("on /"), "127.0.0.1, on /".to_owned()),
            (Who::unknown("the listener"), "the listener".to_owned()),
            (Who::default(), "a client".to_owned()),
        ] {
            assert_eq!(who.to_string(), text);
        }
    }
}
