//! Tokens that are refused before they expire: all older tokens of a user, or one token by its `jti`. Bounded; every entry
//! ends by itself. Sans-IO, and shared by all threads of a node.

use crate::auth::identity::{Identity, MAX_USER_BYTES};
use crate::model::command::{Action, Selector, SessionCommand};
use crate::model::number::number_text;
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The longest time that a token can be revoked for. Tokens should not be valid for longer.
pub const MAX_REVOKE_FOR: Duration = Duration::from_secs(31 * 24 * 3600);
/// Longest `jti` that can be revoked, in bytes.
pub const MAX_JTI_BYTES: usize = 200;
/// How far the clock of the node that revokes may be ahead. Whoever may add to the log cannot refuse the tokens of later.
const MAX_AHEAD_MS: u64 = 60_000;

/// Whose tokens are refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Revoked {
    /// The older tokens of the user with this text.
    User(Box<str>),
    /// The token with this `jti`.
    Token(Box<str>),
}

/// Tokens that are refused for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Whose.
    pub who: Revoked,
    /// A user's tokens that were issued before this, in Unix milliseconds, or that do not say when.
    pub before_ms: u64,
    /// It ends then, in Unix milliseconds.
    pub until_ms: u64,
}

impl Revocation {
    /// What a command revokes, if it does.
    pub fn of_command(command: &SessionCommand) -> Option<Self> {
        let Action::Revoke { before, until } = command.action else { return None };
        let who = match &command.selector {
            Selector::User(name) if name.len() <= MAX_USER_BYTES => Revoked::User(name.as_str().into()),
            Selector::Token(jti) if jti.len() <= MAX_JTI_BYTES => Revoked::Token(jti.as_str().into()),
            _ => return None,
        };
        Some(Self { who, before_ms: before, until_ms: until })
    }

    /// The command that carries it to all nodes: whose sessions, and what becomes of them.
    pub fn into_command(self) -> (Selector, Action) {
        let selector = match self.who {
            Revoked::User(name) => Selector::User(name.into()),
            Revoked::Token(jti) => Selector::Token(jti.into()),
        };
        (selector, Action::Revoke { before: self.before_ms, until: self.until_ms })
    }

    /// Whether it refuses this token.
    pub fn covers(&self, identity: &Identity) -> bool {
        match &self.who {
            Revoked::User(name) => {
                identity.user.as_ref().is_some_and(|user| *user.as_str() == **name)
                    && is_issued_before(identity, self.before_ms)
            }
            // Tokens with a backslash in their claims may write it in another way.
            Revoked::Token(jti) => {
                (identity.claims.contains(&**jti) || identity.claims.contains('\\'))
                    && jti_of(identity).as_deref() == Some(jti)
            }
        }
    }
}

/// `iat` is in whole seconds: a token of the same second counts as older.
fn is_issued_before(identity: &Identity, before_ms: u64) -> bool {
    let issued = identity.claim("iat").as_ref().and_then(Value::as_f64).filter(|issued| *issued >= 0.0);
    // Tokens whose `iat` is 2^53 or more are refused before.
    issued.is_none_or(|issued| (issued.trunc() as u64).saturating_mul(1000) < before_ms)
}

fn jti_of(identity: &Identity) -> Option<String> {
    match identity.claim("jti")? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number_text(&number.to_string()).into_owned()),
        _ => None,
    }
}

/// All revocations that have not ended.
#[derive(Debug)]
pub struct Revocations {
    table: RwLock<Table>,
    /// Entries of the table: nearly always none, and then nobody takes the lock.
    count: AtomicUsize,
    max: AtomicUsize,
}

#[derive(Debug, Default)]
struct Table {
    users: HashMap<Box<str>, Times>,
    tokens: HashMap<Box<str>, Times>,
    ends: BTreeSet<(u64, Revoked)>,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    before_ms: u64,
    until_ms: u64,
}

impl Table {
    fn side(&mut self, who: &Revoked) -> (&mut HashMap<Box<str>, Times>, Box<str>) {
        match who {
            Revoked::User(name) => (&mut self.users, name.clone()),
            Revoked::Token(jti) => (&mut self.tokens, jti.clone()),
        }
    }

    fn remove(&mut self, until_ms: u64, who: &Revoked) {
        self.ends.remove(&(until_ms, who.clone()));
        let (side, name) = self.side(who);
        side.remove(&name);
    }

    fn expire(&mut self, now_ms: u64) {
        while let Some((until_ms, who)) = self.ends.first().filter(|(until_ms, _)| *until_ms <= now_ms).cloned() {
            self.remove(until_ms, &who);
        }
    }
}

impl Revocations {
    /// Holds at most `max`.
    pub fn new(max: usize) -> Self {
        Self { table: RwLock::default(), count: AtomicUsize::new(0), max: AtomicUsize::new(max) }
    }

    /// How many it may hold.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Holds at most `max` from now on. Those beyond it stay until they end.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Adds one; a second one of the same user or token extends it. `false`: it says nothing new. Where there is no room,
    /// the one that ends first goes: whoever revokes is refused before ([`Revocations::has_room`]), but other nodes may
    /// have accepted more.
    pub fn add(&self, revocation: &Revocation, now_ms: u64) -> bool {
        let max_until = now_ms.saturating_add(MAX_REVOKE_FOR.as_millis() as u64);
        let mut new = Times {
            before_ms: revocation.before_ms.min(now_ms.saturating_add(MAX_AHEAD_MS)),
            until_ms: revocation.until_ms.min(max_until),
        };
        let mut table = self.table.write();
        table.expire(now_ms);
        if new.until_ms <= now_ms {
            return false;
        }
        let (side, name) = table.side(&revocation.who);
        let known = side.get(&name).copied();
        if let Some(known) = known {
            new.before_ms = new.before_ms.max(known.before_ms);
            new.until_ms = new.until_ms.max(known.until_ms);
            if (new.before_ms, new.until_ms) == (known.before_ms, known.until_ms) {
                return false;
            }
        }
        side.insert(name, new);
        if let Some(known) = known {
            table.ends.remove(&(known.until_ms, revocation.who.clone()));
        }
        table.ends.insert((new.until_ms, revocation.who.clone()));
        while table.ends.len() > self.max()
            && let Some((until_ms, who)) = table.ends.first().cloned()
        {
            table.remove(until_ms, &who);
        }
        self.count.store(table.ends.len(), Ordering::Release);
        true
    }

    /// Drops those that have ended; answers how many are left.
    pub fn expire(&self, now_ms: u64) -> usize {
        let mut table = self.table.write();
        table.expire(now_ms);
        self.count.store(table.ends.len(), Ordering::Release);
        table.ends.len()
    }

    /// Whether one more of this user or token fits.
    pub fn has_room(&self, who: &Revoked, now_ms: u64) -> bool {
        let is_full = self.expire(now_ms) >= self.max();
        let mut table = self.table.write();
        let (side, name) = table.side(who);
        !is_full || side.contains_key(&name)
    }

    /// Whether this token is refused.
    pub fn refuse(&self, identity: &Identity, now_ms: u64) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let table = self.table.read();
        let is_live = |times: &&Times| times.until_ms > now_ms;
        let of_user = identity.user.as_ref().and_then(|user| table.users.get(user.as_str())).filter(is_live);
        if of_user.is_some_and(|times| is_issued_before(identity, times.before_ms)) {
            return true;
        }
        !table.tokens.is_empty()
            && jti_of(identity).is_some_and(|jti| table.tokens.get(&*jti).filter(is_live).is_some())
    }

    /// Whether a token with this `jti` is refused, whoever's it is.
    pub fn refuses_token(&self, jti: &str, now_ms: u64) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self.table.read().tokens.get(jti).is_some_and(|times| times.until_ms > now_ms)
    }

    /// All of them.
    pub fn all(&self) -> Vec<Revocation> {
        let table = self.table.read();
        let times = |who: &Revoked| match who {
            Revoked::User(name) => table.users.get(name),
            Revoked::Token(jti) => table.tokens.get(jti),
        };
        let one = |who: &Revoked| {
            times(who).map(|times| Revocation {
                who: who.clone(),
                before_ms: times.before_ms,
                until_ms: times.until_ms,
            })
        };
        table.ends.iter().filter_map(|(_, who)| one(who)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::identity::UserId;

    const NOW: u64 = 1_800_000_000_500;

    fn identity(user: &str, claims: &str) -> Identity {
        let user = Some(UserId::from_claim(Some(&user.into())).unwrap());
        Identity { user, claims: claims.into(), ..Identity::anonymous() }
    }

    fn of_user(name: &str, before_ms: u64, until_ms: u64) -> Revocation {
        Revocation { who: Revoked::User(name.into()), before_ms, until_ms }
    }

    fn of_token(jti: &str) -> Revocation {
        Revocation { who: Revoked::Token(jti.into()), before_ms: NOW, until_ms: NOW + 1000 }
    }

    #[test]
    fn older_tokens_of_the_user_are_refused_until_it_ends() {
        let revocations = Revocations::new(10);
        let refused = |claims: &str, now| revocations.refuse(&identity("7", claims), now);
        assert!(!refused("{}", NOW));
        let one = of_user("7", NOW, NOW + 1000);
        assert!(revocations.add(&one, NOW) && !revocations.add(&one, NOW), "nothing new");
        for older in ["{}", r#"{"iat":1800000000}"#, r#"{"iat":1800000000.9}"#, r#"{"iat":1}"#, r#"{"iat":null}"#] {
            assert!(refused(older, NOW + 999) && one.covers(&identity("7", older)), "{older}");
            assert!(!refused(older, NOW + 1000), "it has ended");
            assert!(!revocations.refuse(&identity("8", older), NOW) && !one.covers(&identity("8", older)));
        }
        let younger = r#"{"iat":1800000001}"#;
        assert!(!refused(younger, NOW) && !one.covers(&identity("7", younger)));
        assert!(!revocations.refuse(&Identity::anonymous(), NOW));
        // A second one extends the first and never shortens it.
        assert!(!revocations.add(&of_user("7", NOW - 5, NOW + 10), NOW));
        assert!(revocations.add(&of_user("7", NOW + 2000, NOW + 5000), NOW));
        assert!(refused(younger, NOW + 4000));
        assert_eq!(revocations.all(), [of_user("7", NOW + 2000, NOW + 5000)]);
        assert!(!revocations.add(&of_user("8", NOW, NOW), NOW + 5000), "over already");
        assert!(revocations.all().is_empty());
    }

    #[test]
    fn one_token_is_refused_by_its_jti() {
        let revocations = Revocations::new(10);
        revocations.add(&of_token("a/1"), NOW);
        for same in [r#"{"jti":"a/1"}"#, r#"{"jti":"a\/1"}"#, "{\"jti\":\"\\u0061/1\"}"] {
            assert!(
                revocations.refuse(&identity("7", same), NOW) && of_token("a/1").covers(&identity("7", same)),
                "{same}"
            );
        }
        for other in ["{}", r#"{"jti":"a/2"}"#, r#"{"x":"a/1"}"#, r#"{"jti":["a/1"]}"#] {
            assert!(!revocations.refuse(&identity("7", other), NOW) && !of_token("a/1").covers(&identity("7", other)));
        }
        assert!(of_token("7").covers(&identity("7", r#"{"jti":7}"#)));
    }

    #[test]
    fn bounded_in_number_and_time() {
        let revocations = Revocations::new(3);
        for n in 0..3 {
            assert!(revocations.has_room(&Revoked::User(format!("{n}").into()), NOW));
            revocations.add(&of_user(&n.to_string(), NOW, NOW + 1000 + n), NOW);
        }
        assert!(!revocations.has_room(&Revoked::User("x".into()), NOW));
        assert!(revocations.has_room(&Revoked::User("1".into()), NOW), "it is there already");
        assert!(revocations.has_room(&Revoked::User("x".into()), NOW + 1000), "one has ended");
        revocations.add(&of_user("y", u64::MAX, u64::MAX), NOW);
        revocations.add(&of_user("z", NOW, NOW + 9), NOW);
        assert_eq!(revocations.expire(NOW), 3);
        assert!(!revocations.refuse(&identity("z", "{}"), NOW), "the one that ends first made room");
        assert!(!revocations.refuse(&identity("y", r#"{"iat":1800000061}"#), NOW), "nobody revokes the future");
        assert!(!revocations.refuse(&identity("y", "{}"), NOW + MAX_REVOKE_FOR.as_millis() as u64));
    }
}
