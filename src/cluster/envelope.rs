//! What nodes write to each other, sealed so that whoever may only publish in Redis cannot speak as a node. Sans-IO.

use crate::model::id::{Id, NodeId};
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

/// Bytes of a seal in hexadecimal.
const TAG: usize = 64;

/// One message from a node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Who wrote it.
    pub from: NodeId,
    /// Whom it is for.
    pub to: NodeId,
    /// Rises with each letter of the sender: one that comes twice is not read twice.
    pub number: u64,
    /// What it says.
    pub body: Body,
}

/// What a letter says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Wants an answer, which names the call.
    #[serde(rename = "ask")]
    Request(u64, RpcRequest),
    /// The answer to a call.
    #[serde(rename = "answer")]
    Response(u64, RpcResponse),
    /// Wants none.
    #[serde(rename = "tell")]
    OneWay(OneWay),
}

/// What a node asks of the one that owns a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RpcRequest {
    /// Hand over the session with this pid, live or parked, to this owner of it ([`crate::cluster::Owner`]).
    Take(Id, String),
    /// A long-polling GET for this Engine.IO sid.
    Get(Id),
    /// A long-polling POST and its body; `None` for one that polling does not take.
    Post(Id, Option<String>),
    /// A WebSocket for this Engine.IO sid has come: may it probe?
    Probe(Id),
    /// The WebSocket takes over: hand over the connection.
    Release(Id),
    /// Who is in this room, of this namespace?
    Members(String, String),
}

/// The answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RpcResponse {
    /// The session's record, if it was here.
    Taken(Option<String>),
    /// The payload for a GET.
    Payload(String),
    /// The POST was taken.
    Accepted,
    /// Overlapping requests; the session is closed.
    Overlap,
    /// No such session.
    Unknown,
    /// The session has moved to a WebSocket.
    Moved,
    /// So many sessions, and their users, each once.
    Members(u64, Vec<String>),
    /// The connection, if it could be handed over.
    Released(Option<Box<Moving>>),
}

/// A polling connection on its way to the node that its WebSocket came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// What waited for the client, as a polling payload.
    pub payload: String,
    /// Offset up to which its sessions have had everything.
    pub position: String,
    /// The handshake's token.
    pub token: Option<String>,
    /// Its sessions.
    pub sessions: Vec<MovingSession>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovingSession {
    /// With what its client resumes it.
    pub pid: Option<Id>,
    /// Its namespace.
    pub namespace: String,
    /// What a resume needs.
    pub record: String,
    /// The claims, a JSON object.
    pub claims: String,
    /// When the token ends, in Unix seconds.
    pub expires: Option<u64>,
    /// The handshake auth without the token, a JSON object.
    pub auth: Option<String>,
}

/// What needs no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OneWay {
    /// An order met so many sessions.
    #[serde(rename = "met")]
    Applied(Id, usize),
    /// Whoever made this call has gone.
    Hangup(u64),
    /// The WebSocket of this sid has probed: the waiting GET is to end.
    Probed(Id),
    /// It did not take over.
    ProbeFailed(Id),
}

/// Why a letter is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It has no seal, or a wrong one.
    #[error("its seal is missing or wrong: somebody else writes on this channel, or the key has changed")]
    Signature,
    /// It is no letter.
    #[error("it is not a letter that this version knows")]
    Form,
    /// It is for another node.
    #[error("it is addressed to another node")]
    Address,
}

/// The key that all nodes of a prefix share.
pub struct Signer {
    key: hmac::Key,
    text: String,
}

impl Signer {
    /// From the key's text.
    pub fn new(text: &str) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()), text: text.to_owned() }
    }

    /// Whether it is made of this text.
    pub fn is_of(&self, text: &str) -> bool {
        self.text == text
    }

    /// The sealed form: the HMAC-SHA256 in hexadecimal, then the letter as JSON.
    pub fn write(&self, letter: &Envelope) -> Vec<u8> {
        let json = serde_json::to_vec(letter).expect("names, numbers and texts are always JSON");
        let mut sealed = Vec::with_capacity(TAG + json.len());
        sealed.extend_from_slice(hex::encode(hmac::sign(&self.key, &json)).as_bytes());
        sealed.extend_from_slice(&json);
        sealed
    }

    /// Reads a sealed letter to `me`.
    ///
    /// # Errors
    /// When it is not one.
    pub fn read(&self, sealed: &[u8], me: NodeId) -> Result<Envelope, EnvelopeError> {
        let (tag, json) = sealed.split_at_checked(TAG).ok_or(EnvelopeError::Signature)?;
        let tag = hex::decode(tag).map_err(|_| EnvelopeError::Signature)?;
        hmac::verify(&self.key, json, &tag).map_err(|_| EnvelopeError::Signature)?;
        let letter: Envelope = serde_json::from_slice(json).map_err(|_| EnvelopeError::Form)?;
        if letter.to == me { Ok(letter) } else { Err(EnvelopeError::Address) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Envelope {
        let body = Body::Request(7, RpcRequest::Post(Id::random(), Some("4\u{1e}é\"".into())));
        Envelope { from: NodeId::random(), to: NodeId::random(), number: 3, body }
    }

    #[test]
    fn read_back_as_written() {
        let (signer, written) = (Signer::new("key"), letter());
        assert_eq!(signer.read(&signer.write(&written), written.to), Ok(written));
    }

    #[test]
    fn forged_changed_and_misdirected_letters_are_refused() {
        let (signer, letter) = (Signer::new("key"), letter());
        let sealed = signer.write(&letter);
        assert_eq!(Signer::new("other").read(&sealed, letter.to), Err(EnvelopeError::Signature));
        assert_eq!(signer.read(&sealed, NodeId::random()), Err(EnvelopeError::Address));
        for at in [0, TAG - 1, TAG, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(signer.read(&changed, letter.to), Err(EnvelopeError::Signature), "byte {at}");
        }
        for short in [&b""[..], b"{}", &sealed[..TAG - 1], &sealed[..TAG], &sealed[TAG..]] {
            assert_eq!(signer.read(short, letter.to), Err(EnvelopeError::Signature));
        }
    }
}
