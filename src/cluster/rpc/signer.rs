//! Signs what nodes send each other, so that a client of Redis that may only publish cannot speak as a node. Sans-IO.

use crate::cluster::rpc::message::Envelope;
use crate::model::id::NodeId;
use aws_lc_rs::hmac;

/// Bytes of a signature in hexadecimal.
const SIGNATURE_BYTES: usize = 64;

/// Why a message is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The signature is missing or wrong.
    #[error("its signature is missing or wrong: somebody else publishes on this channel, or the key has changed")]
    Signature,
    /// Not the JSON of an envelope.
    #[error("it is not in a form that this release knows")]
    Form,
    /// It is for another node.
    #[error("it is addressed to another node")]
    Receiver,
}

/// The signing keys that are in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTexts {
    /// Signs and verifies.
    pub present: String,
    /// Will sign soon. Nodes that know already that it signs are understood.
    pub next: Option<String>,
    /// Signed before. Nodes that do not know yet that it no longer does are understood.
    pub last: Option<String>,
}

/// Signs with one key and verifies with all that count.
pub struct KeyRing {
    texts: KeyTexts,
    signer: Signer,
    others: Vec<Signer>,
}

impl KeyRing {
    /// From the keys' texts.
    pub fn new(texts: KeyTexts) -> Self {
        let others = texts.next.iter().chain(&texts.last).map(|text| Signer::new(text)).collect();
        Self { signer: Signer::new(&texts.present), others, texts }
    }

    /// Whether it was made from these texts.
    pub fn is_from(&self, texts: &KeyTexts) -> bool {
        self.texts == *texts
    }

    /// See [`Signer::sign`].
    pub fn sign(&self, envelope: &Envelope) -> Vec<u8> {
        self.signer.sign(envelope)
    }

    /// See [`Signer::verify`].
    ///
    /// # Errors
    /// See [`EnvelopeError`].
    pub fn verify(&self, signed: &[u8], me: NodeId) -> Result<Envelope, EnvelopeError> {
        let mut result = self.signer.verify(signed, me);
        for other in &self.others {
            if result != Err(EnvelopeError::Signature) {
                break;
            }
            result = other.verify(signed, me);
        }
        result
    }
}

/// Signs and verifies with one key that all nodes of a prefix share.
pub struct Signer {
    key: hmac::Key,
}

impl Signer {
    /// From the key's text.
    pub fn new(text: &str) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()) }
    }

    /// The signed form: HMAC-SHA256 in hexadecimal, then the JSON.
    pub fn sign(&self, envelope: &Envelope) -> Vec<u8> {
        let json = serde_json::to_vec(envelope).expect("names, numbers and texts are always JSON");
        let mut signed = Vec::with_capacity(SIGNATURE_BYTES + json.len());
        signed.extend_from_slice(hex::encode(hmac::sign(&self.key, &json)).as_bytes());
        signed.extend_from_slice(&json);
        signed
    }

    /// Verifies and reads a message to `me`.
    ///
    /// # Errors
    /// See [`EnvelopeError`].
    pub fn verify(&self, signed: &[u8], me: NodeId) -> Result<Envelope, EnvelopeError> {
        let (signature, json) = signed.split_at_checked(SIGNATURE_BYTES).ok_or(EnvelopeError::Signature)?;
        let signature = hex::decode(signature).map_err(|_| EnvelopeError::Signature)?;
        hmac::verify(&self.key, json, &signature).map_err(|_| EnvelopeError::Signature)?;
        let envelope = Envelope::from_json(json).ok_or(EnvelopeError::Form)?;
        if envelope.to == me { Ok(envelope) } else { Err(EnvelopeError::Receiver) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::rpc::message::{Body, RpcRequest};
    use crate::model::id::Id;

    fn envelope() -> Envelope {
        let body = Body::Request(7, RpcRequest::Post(Id::random(), Some("4\u{1e}é\"".into())));
        Envelope { from: NodeId::random(), to: NodeId::random(), number: 3, at: Some(5), body }
    }

    #[test]
    fn nodes_that_see_a_new_key_at_different_times_understand_each_other() {
        let ring = |present: &str, next: Option<&str>, last: Option<&str>| {
            let text = |key: Option<&str>| key.map(str::to_owned);
            KeyRing::new(KeyTexts { present: present.into(), next: text(next), last: text(last) })
        };
        // A new key is first known to all; then it signs, and the old one still verifies.
        let steps =
            [ring("1", None, None), ring("1", Some("2"), None), ring("2", None, Some("1")), ring("2", None, None)];
        let envelope = envelope();
        for (earlier, later) in [(0, 1), (1, 2), (2, 3)] {
            for (from, to) in [(earlier, later), (later, earlier)] {
                let read = steps[to].verify(&steps[from].sign(&envelope), envelope.to);
                assert!(read.is_ok(), "from step {from} to step {to}");
            }
        }
        assert_eq!(steps[3].verify(&steps[0].sign(&envelope), envelope.to), Err(EnvelopeError::Signature));
    }

    #[test]
    fn read_back_as_written() {
        let (signer, written) = (Signer::new("key"), envelope());
        assert_eq!(signer.verify(&signer.sign(&written), written.to), Ok(written));
    }

    #[test]
    fn forged_changed_and_misdirected_messages_are_refused() {
        let (signer, envelope) = (Signer::new("key"), envelope());
        let signed = signer.sign(&envelope);
        assert_eq!(Signer::new("other").verify(&signed, envelope.to), Err(EnvelopeError::Signature));
        assert_eq!(signer.verify(&signed, NodeId::random()), Err(EnvelopeError::Receiver));
        for at in [0, SIGNATURE_BYTES - 1, SIGNATURE_BYTES, signed.len() - 1] {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            assert_eq!(signer.verify(&changed, envelope.to), Err(EnvelopeError::Signature), "byte {at}");
        }
        let parts = [&signed[..SIGNATURE_BYTES - 1], &signed[..SIGNATURE_BYTES], &signed[SIGNATURE_BYTES..]];
        for short in parts.into_iter().chain([&b""[..], b"{}"]) {
            assert_eq!(signer.verify(short, envelope.to), Err(EnvelopeError::Signature));
        }
    }
}
