//! What sessions were refused last (sans-IO): beside them, since most are never refused anything.

use crate::session::connection::SessionKey;
use std::collections::HashMap;

/// Sessions whose last refusal is remembered.
const MAX: usize = 4_096;

/// See the module.
#[derive(Default)]
pub(super) struct LastRefusals(HashMap<SessionKey, (u64, &'static str)>);

impl LastRefusals {
    pub(super) fn note(&mut self, key: SessionKey, code: &'static str, unix_ms: u64) {
        if self.0.len() >= MAX && !self.0.contains_key(&key) {
            // So many at once are refused something only where something is wrong with all of them.
            self.0.clear();
        }
        self.0.insert(key, (unix_ms, code));
    }

    pub(super) fn forget(&mut self, key: SessionKey) {
        self.0.remove(&key);
    }

    /// When, in Unix milliseconds, and the code.
    pub(super) fn of(&self, key: SessionKey) -> Option<(u64, String)> {
        self.0.get(&key).map(|(unix_ms, code)| (*unix_ms, (*code).to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::KeyData;

    #[test]
    fn it_is_bounded_and_keeps_the_newest() {
        let key = |n: u64| SessionKey::from(KeyData::from_ffi((1 << 32) | n));
        let mut refusals = LastRefusals::default();
        for n in 0..MAX as u64 {
            refusals.note(key(n), "forbidden", n);
        }
        refusals.note(key(7), "no_rule", 9);
        assert_eq!((refusals.0.len(), refusals.of(key(7))), (MAX, Some((9, "no_rule".to_owned()))));
        refusals.note(key(MAX as u64), "forbidden", 1);
        assert_eq!((refusals.0.len(), refusals.of(key(7))), (1, None));
        refusals.forget(key(MAX as u64));
        assert!(refusals.0.is_empty());
    }
}
