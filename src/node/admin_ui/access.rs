//! Who may use the Admin UI (sans-IO): whoever has an operator's key, or an id that was given for one.

use crate::model::address::accounted;
use crate::model::secret::Secret;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;
use subtle::ConstantTimeEq as _;

/// Wrong passwords of an address are counted for so long.
const WINDOW_SECONDS: u64 = 60;
/// Addresses whose failures are remembered, some 100 kB. While it is full of recent ones, no new address may try.
const MAX_ADDRESSES: usize = 1_000;

/// The keys. Ids need no store: they are signed with the key that was given, so that every node knows them, and nobody does
/// once the key is gone.
pub struct Keys {
    keys: Vec<Key>,
    lifetime_seconds: u64,
}

struct Key {
    digest: Vec<u8>,
    signer: hmac::Key,
}

/// What an operator proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    digest: Vec<u8>,
    expires: u64,
}

impl Keys {
    /// The passwords are these keys. What is proven with one holds for this time.
    pub fn new(keys: &[Secret], lifetime: Duration) -> Self {
        let key = |key: &Secret| Key {
            digest: digest(&SHA256, key.reveal().as_bytes()).as_ref().to_vec(),
            signer: hmac::Key::new(hmac::HMAC_SHA256, key.reveal().as_bytes()),
        };
        Self { keys: keys.iter().map(key).collect(), lifetime_seconds: lifetime.as_secs() }
    }

    /// Checks a password, in the same time whichever key it is or is not. `now` is in Unix seconds.
    pub fn check_password(&self, password: &str, now: u64) -> Option<Proof> {
        let given = digest(&SHA256, password.as_bytes());
        let mut found = None;
        for key in &self.keys {
            if bool::from(key.digest.ct_eq(given.as_ref())) {
                found = Some(key);
            }
        }
        found.map(|key| Proof { digest: key.digest.clone(), expires: now + self.lifetime_seconds })
    }

    /// An id with which the same operator comes back.
    pub fn id(&self, proof: &Proof) -> Option<String> {
        let key = self.keys.iter().find(|key| key.digest == proof.digest)?;
        Some(format!("{}.{}", proof.expires, URL_SAFE_NO_PAD.encode(hmac::sign(&key.signer, &signed(proof.expires)))))
    }

    /// Checks an id.
    pub fn check_id(&self, id: &str, now: u64) -> Option<Proof> {
        let (expires, tag) = id.split_once('.')?;
        let expires: u64 = expires.parse().ok()?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        let key = self.keys.iter().find(|key| hmac::verify(&key.signer, &signed(expires), &tag).is_ok())?;
        (now < expires).then(|| Proof { digest: key.digest.clone(), expires })
    }

    /// Whether what was proven still holds: the time is not over, and the key is still one.
    pub fn still_holds(&self, proof: &Proof, now: u64) -> bool {
        now < proof.expires && self.keys.iter().any(|key| key.digest == proof.digest)
    }
}

/// What the tag of an id is made of.
fn signed(expires: u64) -> Vec<u8> {
    format!("roomcast admin-ui session {expires}").into_bytes()
}

/// Counts wrong passwords by address.
pub struct Failures {
    by_address: HashMap<IpAddr, (u64, u32)>,
    max: u32,
}

impl Failures {
    /// So many may be wrong in a minute.
    pub fn new(max: u32) -> Self {
        Self { by_address: HashMap::new(), max }
    }

    /// Whether this address may try a password.
    pub fn may_try(&mut self, peer: IpAddr, now: u64) -> bool {
        let peer = accounted(peer);
        if self.by_address.len() >= MAX_ADDRESSES {
            self.by_address.retain(|_, (since, _)| now < *since + WINDOW_SECONDS);
        }
        match self.by_address.get(&peer) {
            Some((since, count)) => now >= since + WINDOW_SECONDS || *count < self.max,
            None => self.by_address.len() < MAX_ADDRESSES,
        }
    }

    /// Counts a wrong password.
    pub fn note(&mut self, peer: IpAddr, now: u64) {
        let (since, count) = self.by_address.entry(accounted(peer)).or_insert((now, 0));
        if now >= *since + WINDOW_SECONDS {
            (*since, *count) = (now, 0);
        }
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn an_id_leads_back_as_long_as_its_key_is_there_and_its_time_lasts() {
        let keys = Keys::new(&[Secret::new("one"), Secret::new("two")], HOUR);
        assert!(["", "on", "one ", "twp"].iter().all(|wrong| keys.check_password(wrong, 100).is_none()));
        let proof = keys.check_password("two", 100).unwrap();
        let id = keys.id(&proof).unwrap();
        let end = 100 + 3_600;
        assert_eq!(keys.check_id(&id, end - 1), Some(proof.clone()));
        assert_eq!(keys.check_id(&id, end), None);
        assert!(keys.still_holds(&proof, end - 1) && !keys.still_holds(&proof, end));
        let other_node = Keys::new(&[Secret::new("two"), Secret::new("three")], HOUR);
        assert_eq!(other_node.check_id(&id, 101), Some(proof.clone()));
        let rotated = Keys::new(&[Secret::new("three")], HOUR);
        assert!(rotated.check_id(&id, 101).is_none() && !rotated.still_holds(&proof, 101));
        let later = id.replacen(&end.to_string(), &(end + 1).to_string(), 1);
        for bad in [&later, "", ".", "7", "7.", "x.y", &id[..id.len() - 1]] {
            assert_eq!(keys.check_id(bad, 101), None, "{bad}");
        }
        assert!(Keys::new(&[], HOUR).check_password("", 1).is_none());
    }

    #[test]
    fn guesses_are_limited_by_address_and_the_addresses_too() {
        let mut failures = Failures::new(10);
        let peer = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(n));
        for _ in 0..10 {
            assert!(failures.may_try(peer(1), 100));
            failures.note(peer(1), 100);
        }
        assert!(!failures.may_try(peer(1), 159) && failures.may_try(peer(2), 159) && failures.may_try(peer(1), 160));
        for n in 0..MAX_ADDRESSES as u32 {
            if failures.may_try(peer(n), 100) {
                failures.note(peer(n), 100);
            }
        }
        assert!(!failures.may_try(peer(1_000_000), 101) && failures.by_address.len() <= MAX_ADDRESSES);
        assert!(failures.may_try(peer(1_000_000), 200) && failures.by_address.is_empty());
    }
}
