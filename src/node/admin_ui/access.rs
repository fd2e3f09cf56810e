//! Who may use the Admin UI (sans-IO): whoever has an operator's key, or an id that was given for one.

use crate::model::address::accounted;
use crate::model::secret::Secret;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::HashMap;
use std::net::IpAddr;
use subtle::ConstantTimeEq as _;

/// How long a page may come back without the password, and how long it stays connected.
const LIFETIME_SECONDS: u64 = 12 * 3_600;
/// Wrong passwords of one address in each [`WINDOW_SECONDS`].
const MAX_FAILURES: u32 = 10;
const WINDOW_SECONDS: u64 = 60;
/// Addresses whose failures are remembered, some 100 kB. While it is full of recent ones, no new address may try.
const MAX_ADDRESSES: usize = 1_000;

/// The keys. Ids need no store: they are signed with the key that was given, so that every node knows them, and nobody does
/// once the key is gone.
pub struct Keys(Vec<Key>);

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
    /// The passwords are these keys.
    pub fn new(keys: &[Secret]) -> Self {
        let key = |key: &Secret| Key {
            digest: digest(&SHA256, key.reveal().as_bytes()).as_ref().to_vec(),
            signer: hmac::Key::new(hmac::HMAC_SHA256, key.reveal().as_bytes()),
        };
        Self(keys.iter().map(key).collect())
    }

    /// Checks a password, in the same time whichever key it is or is not. `now` is in Unix seconds.
    pub fn check_password(&self, password: &str, now: u64) -> Option<Proof> {
        let given = digest(&SHA256, password.as_bytes());
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.digest.ct_eq(given.as_ref())) {
                found = Some(key);
            }
        }
        found.map(|key| Proof { digest: key.digest.clone(), expires: now + LIFETIME_SECONDS })
    }

    /// An id with which the same operator comes back.
    pub fn id(&self, proof: &Proof) -> Option<String> {
        let key = self.0.iter().find(|key| key.digest == proof.digest)?;
        Some(format!("{}.{}", proof.expires, URL_SAFE_NO_PAD.encode(hmac::sign(&key.signer, &signed(proof.expires)))))
    }

    /// Checks an id.
    pub fn check_id(&self, id: &str, now: u64) -> Option<Proof> {
        let (expires, tag) = id.split_once('.')?;
        let expires: u64 = expires.parse().ok()?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        let key = self.0.iter().find(|key| hmac::verify(&key.signer, &signed(expires), &tag).is_ok())?;
        (now < expires).then(|| Proof { digest: key.digest.clone(), expires })
    }

    /// Whether what was proven still holds: the time is not over, and the key is still one.
    pub fn still_holds(&self, proof: &Proof, now: u64) -> bool {
        now < proof.expires && self.0.iter().any(|key| key.digest == proof.digest)
    }
}

/// What the tag of an id is made of.
fn signed(expires: u64) -> Vec<u8> {
    format!("roomcast admin-ui session {expires}").into_bytes()
}

/// Counts wrong passwords by address.
#[derive(Default)]
pub struct Failures(HashMap<IpAddr, (u64, u32)>);

impl Failures {
    /// Whether this address may try a password.
    pub fn may_try(&mut self, peer: IpAddr, now: u64) -> bool {
        let peer = accounted(peer);
        if self.0.len() >= MAX_ADDRESSES {
            self.0.retain(|_, (since, _)| now < *since + WINDOW_SECONDS);
        }
        match self.0.get(&peer) {
            Some((since, count)) => now >= since + WINDOW_SECONDS || *count < MAX_FAILURES,
            None => self.0.len() < MAX_ADDRESSES,
        }
    }

    /// Counts a wrong password.
    pub fn note(&mut self, peer: IpAddr, now: u64) {
        let (since, count) = self.0.entry(accounted(peer)).or_insert((now, 0));
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

    #[test]
    fn an_id_leads_back_as_long_as_its_key_is_there_and_its_time_lasts() {
        let keys = Keys::new(&[Secret::new("one"), Secret::new("two")]);
        assert!(["", "on", "one ", "twp"].iter().all(|wrong| keys.check_password(wrong, 100).is_none()));
        let proof = keys.check_password("two", 100).unwrap();
        let id = keys.id(&proof).unwrap();
        let end = 100 + LIFETIME_SECONDS;
        assert_eq!(keys.check_id(&id, end - 1), Some(proof.clone()));
        assert_eq!(keys.check_id(&id, end), None);
        assert!(keys.still_holds(&proof, end - 1) && !keys.still_holds(&proof, end));
        let other_node = Keys::new(&[Secret::new("two"), Secret::new("three")]);
        assert_eq!(other_node.check_id(&id, 101), Some(proof.clone()));
        let rotated = Keys::new(&[Secret::new("three")]);
        assert!(rotated.check_id(&id, 101).is_none() && !rotated.still_holds(&proof, 101));
        let later = id.replacen(&end.to_string(), &(end + 1).to_string(), 1);
        for bad in [&later, "", ".", "7", "7.", "x.y", &id[..id.len() - 1]] {
            assert_eq!(keys.check_id(bad, 101), None, "{bad}");
        }
        assert!(Keys::new(&[]).check_password("", 1).is_none());
    }

    #[test]
    fn guesses_are_limited_by_address_and_the_addresses_too() {
        let mut failures = Failures::default();
        let peer = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(n));
        for _ in 0..MAX_FAILURES {
            assert!(failures.may_try(peer(1), 100));
            failures.note(peer(1), 100);
        }
        assert!(!failures.may_try(peer(1), 159) && failures.may_try(peer(2), 159) && failures.may_try(peer(1), 160));
        for n in 0..MAX_ADDRESSES as u32 {
            if failures.may_try(peer(n), 100) {
                failures.note(peer(n), 100);
            }
        }
        assert!(!failures.may_try(peer(1_000_000), 101) && failures.0.len() <= MAX_ADDRESSES);
        assert!(failures.may_try(peer(1_000_000), 200) && failures.0.is_empty());
    }
}
