//! The console's sessions: a text for a cookie, which every node with the same key recognizes and which nothing is kept for.
//! It is signed with the publish key that the operator gave, so it ends when that key is taken out of `publish.keys`.

use crate::model::secret::Secret;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng as _;

/// Keeps its MACs apart from any other use of the key.
const PURPOSE: &str = "roomcast console session 1";
/// Bytes of the random id.
const ID_BYTES: usize = 16;

/// Who has signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct Session {
    /// Random.
    pub id: String,
    /// When it ends, in Unix seconds.
    pub expires: u64,
}

impl Session {
    /// A new one.
    pub(super) fn new(expires: u64) -> Self {
        let mut id = [0; ID_BYTES];
        rand::rng().fill_bytes(&mut id);
        Self { id: URL_SAFE_NO_PAD.encode(id), expires }
    }

    /// The text of its cookie.
    pub(super) fn sign(&self, key: &Secret) -> String {
        let tag = hmac::sign(&mac_key(key), self.signed().as_bytes());
        format!("{}.{}.{}", self.expires, self.id, URL_SAFE_NO_PAD.encode(tag))
    }

    /// The session of a cookie, unless it has ended or none of the keys has signed it.
    pub(super) fn read(text: &str, keys: &[Secret], now: u64) -> Option<Self> {
        let (expires, rest) = text.split_once('.')?;
        let (id, tag) = rest.split_once('.')?;
        let session = Self { id: id.to_owned(), expires: expires.parse().ok()? };
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        let signed = session.signed();
        let known = keys.iter().any(|key| hmac::verify(&mac_key(key), signed.as_bytes(), &tag).is_ok());
        (known && session.expires > now).then_some(session)
    }

    /// Its name among revoked tokens, once it was signed out.
    pub(super) fn revoked_name(&self) -> String {
        format!("roomcast console:{}", self.id)
    }

    fn signed(&self) -> String {
        format!("{PURPOSE}\n{}.{}", self.expires, self.id)
    }
}

fn mac_key(key: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.reveal().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_until_its_end_or_until_its_key_is_gone() {
        let keys = [Secret::new("first-key"), Secret::new("second-key")];
        let session = Session::new(1_000);
        let text = session.sign(&keys[1]);
        assert_eq!(Session::read(&text, &keys, 999), Some(session));
        assert_eq!(Session::read(&text, &keys, 1_000), None, "it has ended");
        assert_eq!(Session::read(&text, &keys[..1], 999), None, "its key is gone");
        assert_ne!(Session::new(1_000).id, Session::new(1_000).id);
    }

    #[test]
    fn nothing_of_it_can_be_changed() {
        let keys = [Secret::new("first-key")];
        let text = Session::new(1_000).sign(&keys[0]);
        let longer = text.replacen("1000.", "9999.", 1);
        for bad in [longer.as_str(), "", ".", "1000.", "1000.a.", "1000.a.b.c", &text[..text.len() - 2], &text[1..]] {
            assert_eq!(Session::read(bad, &keys, 1), None, "{bad}");
        }
    }
}
