//! Who may use the Admin UI (sans-IO): whoever has an operator's key, or an id that was given for one.

use crate::model::secret::Secret;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::Duration;

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
            if verify_slices_are_equal(&key.digest, given.as_ref()).is_ok() {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
