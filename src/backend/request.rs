//! What the backend is sent, and its signature. Sans-IO.

use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::trace_context::TraceContext;
use aws_lc_rs::hmac;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The `type` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A client's event, to be answered.
    Event,
    /// A join that the backend decides about.
    Join,
    /// A session has begun, or was resumed.
    Connect,
    /// A session has lost its connection, or has ended.
    Disconnect,
    /// A user's first connection in the cluster.
    Online,
    /// A user's last connection in the cluster has ended.
    Offline,
    /// A room's first member in the cluster.
    Occupied,
    /// A room's last member in the cluster has left.
    Vacated,
}

impl RequestKind {
    /// How many kinds there are.
    pub(super) const COUNT: usize = Self::Vacated as usize + 1;

    /// The word in `type`, in `backend.notify` and in the metrics' label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Join => "join",
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Occupied => "occupied",
            Self::Vacated => "vacated",
        }
    }
}

impl Serialize for RequestKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

/// The session that a request is about.
#[derive(Clone, Debug, Serialize)]
pub struct SessionInfo<'a> {
    /// The namespace's name.
    pub namespace: &'a str,
    /// The user's claim, or null.
    pub user: Cow<'a, RawValue>,
    /// The claims of the token.
    pub claims: Cow<'a, RawValue>,
    /// The session's id.
    pub session: String,
    /// The rooms it is in.
    pub rooms: Vec<Room>,
}

/// Where the trace of a request comes from.
#[derive(Clone, Debug, Default)]
pub enum Origin {
    /// Nothing that is traced: the request may begin a trace.
    #[default]
    Nobody,
    /// A client's event; `None` if its trace is not recorded.
    Client(Option<Box<TraceContext>>),
}

/// One request. The fields that its kind does not have are left out.
#[derive(Clone, Debug, Serialize)]
pub struct BackendRequest<'a> {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: RequestKind,
    /// A repeat of the same request has the same id.
    pub id: Id,
    /// The name of a client's event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<&'a str>,
    /// The arguments of a client's event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<&'a RawValue>,
    /// The room of a join, or that is occupied or vacated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<&'a str>,
    /// Why a session ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// The session it is about.
    #[serde(flatten)]
    pub session: Option<SessionInfo<'a>>,
    /// The user who is online or offline; text even where the claim is a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// The namespace of a room that is occupied or vacated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<&'a str>,
    /// When the last connection of an offline user ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    /// When the request was made, RFC 3339.
    pub time: String,
    /// Where the trace of the request comes from.
    #[serde(skip)]
    pub trace: Origin,
}

impl<'a> BackendRequest<'a> {
    /// A request about a session.
    pub fn of_session(kind: RequestKind, session: SessionInfo<'a>, time: String) -> Self {
        Self { session: Some(session), ..Self::new(kind, time) }
    }

    /// A request with a fresh id and without the fields that only some kinds have.
    pub fn new(kind: RequestKind, time: String) -> Self {
        Self {
            kind,
            id: Id::random(),
            event: None,
            args: None,
            room: None,
            reason: None,
            session: None,
            user: None,
            namespace: None,
            last_seen: None,
            time,
            trace: Origin::Nobody,
        }
    }

    /// The form in which it is sent.
    pub fn encode(&self) -> EncodedRequest {
        let body = serde_json::to_string(self).expect("names, texts and raw JSON are always JSON");
        EncodedRequest { kind: self.kind, id: self.id, body: body.into(), trace: None }
    }
}

/// A request as it is sent, and sent again.
#[derive(Clone, Debug)]
pub struct EncodedRequest {
    /// What it is.
    pub kind: RequestKind,
    /// The request's id, by which a receiver recognizes a repeat.
    pub id: Id,
    /// The request's JSON. Copies share it.
    pub body: Bytes,
    /// The span of the request, if it is recorded.
    pub trace: Option<Box<TraceContext>>,
}

/// The value of `X-Roomcast-Signature`: `t=<unix>,v1=<hex hmac-sha256 of "t.body">`.
pub fn signature(secret: &str, unix: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(unix.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    format!("t={unix},v1={}", hex::encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Cow<'_, RawValue> {
        Cow::Borrowed(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn bodies_are_as_documented() {
        let session = SessionInfo {
            namespace: "/chat",
            user: raw("7"),
            claims: raw("{\"sub\":7,\"n\":1.50}"),
            session: "s".into(),
            rooms: vec!["user:7".into()],
        };
        let mut request = BackendRequest::of_session(RequestKind::Event, session, "2026-01-01T00:00:00Z".into());
        request.event = Some("send");
        let args: &RawValue = serde_json::from_str("[1, {\"a\":2.0}]").unwrap();
        request.args = Some(args);
        let id = request.id;
        assert_eq!(
            request.encode().body,
            format!(
                "{{\"type\":\"event\",\"id\":\"{id}\",\"event\":\"send\",\"args\":[1, {{\"a\":2.0}}],\"namespace\":\"/chat\",\
                 \"user\":7,\"claims\":{{\"sub\":7,\"n\":1.50}},\"session\":\"s\",\"rooms\":[\"user:7\"],\
                 \"time\":\"2026-01-01T00:00:00Z\"}}"
            )
        );
    }

    #[test]
    fn signatures_are_those_of_openssl() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        let expected = "49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
        assert_eq!(signature("secret", 1_700_000_000, b"{\"a\":1}"), format!("t=1700000000,v1={expected}"));
    }
}
