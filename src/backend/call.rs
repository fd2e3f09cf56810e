//! What the backend is sent, and its signature. Sans-IO.

use crate::model::id::Id;
use crate::model::names::Room;
use aws_lc_rs::hmac;
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Who it is about.
#[derive(Clone, Debug, Serialize)]
pub struct About<'a> {
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

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Call<'a> {
    /// `event`, `join`, or what is notified.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its own name; a repeat of the same request has the same.
    pub id: Id,
    /// The event's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<&'a str>,
    /// The event's arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<&'a RawValue>,
    /// The room of a `join`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<&'a str>,
    /// Why a session ended, of a `disconnect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// Which session it is about.
    #[serde(flatten)]
    pub about: Option<About<'a>>,
    /// The user who is `online` or `offline`: always a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// Where the room is that is `occupied` or `vacated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<&'a str>,
    /// When the last connection of an `offline` user went, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    /// When it was written, RFC 3339.
    pub time: String,
}

impl<'a> Call<'a> {
    /// A request about a session, without what only some kinds have.
    pub fn new(kind: &'static str, about: About<'a>, time: String) -> Self {
        Self { about: Some(about), ..Self::notice(kind, time) }
    }

    /// A notice about no session.
    pub fn notice(kind: &'static str, time: String) -> Self {
        Self {
            kind,
            id: Id::random(),
            event: None,
            args: None,
            room: None,
            reason: None,
            about: None,
            user: None,
            namespace: None,
            last_seen: None,
            time,
        }
    }

    /// What is sent of it.
    pub fn request(&self) -> Request {
        let body = serde_json::to_string(self).expect("names, texts and raw JSON are always JSON");
        Request { kind: self.kind, id: self.id, body }
    }
}

/// A call as it is sent, and sent again.
#[derive(Clone, Debug)]
pub struct Request {
    /// The call's `type`.
    pub kind: &'static str,
    /// The call's id: whoever reads it twice knows by it.
    pub id: Id,
    /// The call's JSON.
    pub body: String,
}

/// The value of `X-Roomcast-Signature`: `t=<unix>,v1=<hex hmac-sha256 of "t.body">`.
pub fn signature(secret: &str, unix: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(unix.to_string().as_bytes());
    context.update(b".");
    context.update(body.as_bytes());
    format!("t={unix},v1={}", hex::encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Cow<'_, RawValue> {
        Cow::Borrowed(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn bodies_are_as_the_contract_has_them() {
        let about = About {
            namespace: "/chat",
            user: raw("7"),
            claims: raw("{\"sub\":7,\"n\":1.50}"),
            session: "s".into(),
            rooms: vec!["user:7".into()],
        };
        let mut call = Call::new("event", about, "2026-01-01T00:00:00Z".into());
        call.event = Some("send");
        let args: &RawValue = serde_json::from_str("[1, {\"a\":2.0}]").unwrap();
        call.args = Some(args);
        let id = call.id;
        assert_eq!(
            call.request().body,
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
        assert_eq!(signature("secret", 1_700_000_000, "{\"a\":1}"), format!("t=1700000000,v1={expected}"));
    }
}
