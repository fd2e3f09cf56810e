//! What nodes send each other, as JSON. Sans-IO.
//!
//! Nodes of two releases run side by side during a rolling upgrade:
//! - Unknown fields are ignored.
//! - An unknown kind of request is answered with [`RpcResponse::Unsupported`]; an unknown one-way message is ignored.
//! - The arguments of a kind never change. New arguments are a new kind, and its sender falls back where it is unsupported.

use crate::cluster::rpc::explanation::{ExplainQuery, NodeExplanation};
use crate::cluster::rpc::inspection::{NodeStatus, RoomCount, RoomsQuery, SessionView, SessionsQuery};
use crate::cluster::rpc::trace::{TraceBatch, TraceQuery};
use crate::model::id::{Id, NodeId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One message from a node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Envelope {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// Rises with each message of the sender, so that a replayed message is recognized.
    pub number: u64,
    /// When it was sent, in Unix milliseconds by the clock of Redis: an old message is not read. Nodes of the previous
    /// release do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// The message.
    pub body: Body,
}

/// The kinds of messages. The number is the sender's name for the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Body {
    /// Wants a response.
    #[serde(rename = "ask")]
    Request(u64, RpcRequest),
    /// The response to a request.
    #[serde(rename = "answer")]
    Response(u64, RpcResponse),
    /// Wants no response.
    #[serde(rename = "tell")]
    OneWay(OneWay),
    /// A part of the JSON of a larger body: the sender's name for that, the part's index, whether it is the last, the text.
    #[serde(rename = "piece")]
    Piece(u64, u32, bool, String),
    /// A request of a newer release, to be answered [`RpcResponse::Unsupported`]. It is only received.
    #[serde(skip)]
    UnknownRequest(u64),
    /// A one-way message of a newer release, to be ignored. It is only received.
    #[serde(skip)]
    UnknownOneWay,
}

/// What a node asks of another, mostly of the one that owns a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RpcRequest {
    /// Hand over the session with this pid, live or parked, to this owner ([`crate::cluster::Owner`]).
    Take(Id, String),
    /// A long-polling GET for this Engine.IO sid.
    Get(Id),
    /// A long-polling POST and its body; `None` for a body that polling does not accept.
    Post(Id, Option<String>),
    /// A WebSocket for this Engine.IO sid has arrived: may it probe?
    Probe(Id),
    /// The WebSocket takes over: hand over the connection.
    Release(Id),
    /// Who is in this room of this namespace?
    Members(String, String),
    /// Are there sessions with these Engine.IO sids?
    Confirm(Vec<Id>),
    /// How are you?
    NodeStatus,
    /// Which rooms have members on the node?
    Rooms(RoomsQuery),
    /// Which sessions are on the node?
    Sessions(SessionsQuery),
    /// The session with this id.
    Session(Id),
    /// What has happened since this was asked last? Answered after a second at the latest.
    Trace(TraceQuery),
    /// Why did a user get an event, or not?
    Explain(ExplainQuery),
}

/// The responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RpcResponse {
    /// The session's record, if it was here.
    Taken(Option<String>),
    /// The payload for a GET.
    Payload(String),
    /// The request was accepted.
    Accepted,
    /// Overlapping requests; the session is closed.
    Overlap,
    /// No such session.
    Unknown,
    /// The session has moved to a WebSocket.
    Moved,
    /// The number of sessions, and their users, each once.
    Members(u64, Vec<String>),
    /// Whether there is a session, and whether its client has proven who it is, for each sid.
    Confirmed(Vec<Confirmed>),
    /// How the node is doing.
    NodeStatus(Box<NodeStatus>),
    /// Rooms in order of name and namespace.
    Rooms(Vec<RoomCount>),
    /// Sessions in order of their places.
    Sessions(Vec<SessionView>),
    /// What has happened.
    Trace(Box<TraceBatch>),
    /// Why a user got an event, or not.
    Explained(Box<NodeExplanation>),
    /// The connection, if it could be handed over.
    Released(Option<Box<Moving>>),
    /// The node does not know this kind of request: it is of an older release. Also what a response of a newer release is
    /// read as.
    Unsupported,
}

/// What a node says of an Engine.IO sid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirmed {
    /// No session has it.
    Unknown,
    /// Its client has not sent an accepted token yet.
    Unproven,
    /// Its client has joined a namespace.
    Proven,
}

/// A polling connection on its way to the node at which its WebSocket arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// What waited for the client, as a polling payload.
    pub payload: String,
    /// The offset up to which its sessions have received everything.
    pub position: String,
    /// The handshake's token.
    pub token: Option<String>,
    /// Its sessions.
    pub sessions: Vec<MovingSession>,
}

/// One session of such a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovingSession {
    /// The id with which its client resumes it.
    pub pid: Option<Id>,
    /// Its namespace.
    pub namespace: String,
    /// What a resume needs.
    pub record: String,
    /// The claims, a JSON object.
    pub claims: String,
    /// When the token expires, in Unix seconds.
    pub expires: Option<u64>,
    /// The handshake auth without the token, a JSON object.
    pub auth: Option<String>,
}

/// What needs no response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OneWay {
    /// A command was applied to this many sessions.
    #[serde(rename = "met")]
    Applied(Id, usize),
    /// The caller of this request no longer waits.
    Hangup(u64),
    /// The WebSocket of this sid has probed: the waiting GET is to end.
    Probed(Id),
    /// The WebSocket did not take over.
    ProbeFailed(Id),
    /// A trace of the sender has ended.
    TraceEnded(Id),
    /// So many bytes of the pieces with this name have arrived.
    PieceRead(u64, usize),
}

/// An [`Envelope`] whose body may be of a newer release.
#[derive(Deserialize)]
struct ReceivedEnvelope<'a> {
    from: NodeId,
    to: NodeId,
    number: u64,
    #[serde(default)]
    at: Option<u64>,
    #[serde(borrow)]
    body: ReceivedBody<'a>,
}

#[derive(Deserialize)]
enum ReceivedBody<'a> {
    #[serde(rename = "ask")]
    Request(u64, #[serde(borrow)] &'a RawValue),
    #[serde(rename = "answer")]
    Response(u64, #[serde(borrow)] &'a RawValue),
    #[serde(rename = "tell")]
    OneWay(#[serde(borrow)] &'a RawValue),
    #[serde(rename = "piece")]
    Piece(u64, u32, bool, String),
}

impl ReceivedBody<'_> {
    fn read(self) -> Body {
        match self {
            Self::Request(call, raw) => match serde_json::from_str(raw.get()) {
                Ok(request) => Body::Request(call, request),
                Err(_) => Body::UnknownRequest(call),
            },
            Self::Response(call, raw) => {
                Body::Response(call, serde_json::from_str(raw.get()).unwrap_or(RpcResponse::Unsupported))
            }
            Self::OneWay(raw) => match serde_json::from_str(raw.get()) {
                Ok(message) => Body::OneWay(message),
                Err(_) => Body::UnknownOneWay,
            },
            Self::Piece(name, index, is_last, text) => Body::Piece(name, index, is_last, text),
        }
    }
}

impl Envelope {
    /// Reads the JSON form; `None` where it is not one.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let ReceivedEnvelope { from, to, number, at, body } = serde_json::from_slice(json).ok()?;
        Some(Self { from, to, number, at, body: body.read() })
    }
}

impl Body {
    /// Reads the JSON that came in pieces; `None` where it is not a body.
    pub fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str::<ReceivedBody<'_>>(json).ok().map(ReceivedBody::read)
    }

    /// Bytes of what it carries, near enough for limits.
    pub fn size(&self) -> usize {
        let moving = |moving: &Moving| {
            let sessions = moving.sessions.iter().map(|session| session.record.len() + session.claims.len() + 500);
            moving.payload.len() + sessions.sum::<usize>()
        };
        match self {
            Self::Request(_, RpcRequest::Post(_, body)) => body.as_ref().map_or(0, String::len),
            Self::Request(_, RpcRequest::Confirm(sids)) => sids.len() * 23,
            Self::Response(_, RpcResponse::Payload(text)) => text.len(),
            Self::Response(_, RpcResponse::Taken(record)) => record.as_ref().map_or(0, String::len),
            Self::Response(_, RpcResponse::Released(Some(connection))) => moving(connection),
            Self::Response(_, RpcResponse::Members(_, users)) => users.iter().map(|user| user.len() + 3).sum(),
            Self::Response(_, RpcResponse::Confirmed(answers)) => answers.len() * 11,
            Self::Response(_, RpcResponse::NodeStatus(_)) => 800,
            Self::Request(_, RpcRequest::Rooms(query)) => {
                query.prefix.len() + query.after.as_ref().map_or(0, |(room, namespace)| room.len() + namespace.len())
            }
            Self::Request(_, RpcRequest::Sessions(query)) => {
                [&query.user, &query.room].into_iter().flatten().map(String::len).sum()
            }
            Self::Response(_, RpcResponse::Rooms(rooms)) => {
                rooms.iter().map(|room| room.room.len() + room.namespace.len() + 60).sum()
            }
            Self::Request(_, RpcRequest::Explain(query)) => {
                let event = query.event.as_ref().map_or(0, String::len);
                query.user.len() + query.room.len() + query.namespace.len() + event
            }
            Self::Response(_, RpcResponse::Explained(explanation)) => explanation.size(),
            Self::Response(_, RpcResponse::Sessions(sessions)) => sessions.iter().map(SessionView::size).sum(),
            Self::Request(_, RpcRequest::Trace(query)) => {
                [&query.user, &query.room].into_iter().flatten().map(String::len).sum()
            }
            Self::Response(_, RpcResponse::Trace(batch)) => batch.size(),
            Self::Piece(.., text) => text.len(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any body with unknown fields around it.
    fn received(body: &str) -> Body {
        let (from, to) = (NodeId::random(), NodeId::random());
        let json = format!(r#"{{"v":2,"from":"{from}","to":"{to}","number":7,"body":{body},"trace":{{"a":[1]}}}}"#);
        Envelope::from_json(json.as_bytes()).unwrap().body
    }

    #[test]
    fn what_a_newer_release_sends_is_recognized() {
        let id = Id::random();
        assert_eq!(received(&format!(r#"{{"ask":[3,{{"get":"{id}"}}]}}"#)), Body::Request(3, RpcRequest::Get(id)));
        for unknown in [r#"{"copy":["x"]}"#, r#""status""#, r#"{"get":["x",1]}"#, "7"] {
            assert_eq!(received(&format!(r#"{{"ask":[3,{unknown}]}}"#)), Body::UnknownRequest(3), "{unknown}");
            assert_eq!(
                received(&format!(r#"{{"answer":[3,{unknown}]}}"#)),
                Body::Response(3, RpcResponse::Unsupported)
            );
            assert_eq!(received(&format!(r#"{{"tell":{unknown}}}"#)), Body::UnknownOneWay);
        }
        let moving = r#"{"answer":[3,{"released":{"payload":"","position":"","token":null,"sessions":[],"since":1}}]}"#;
        assert!(matches!(received(moving), Body::Response(3, RpcResponse::Released(Some(_)))));
    }

    #[test]
    fn garbage_is_no_message() {
        for bad in ["", "{}", "[]", r#"{"from":"x","to":"y","number":1,"body":{"tell":{}}}"#] {
            assert!(Envelope::from_json(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    /// The bytes of earlier releases, which must not change.
    #[test]
    fn bytes_on_the_wire() {
        let id = Id::random();
        let text = |body: Body| serde_json::to_string(&body).unwrap();
        assert_eq!(
            text(Body::Request(1, RpcRequest::Take(id, "o".into()))),
            format!(r#"{{"ask":[1,{{"take":["{id}","o"]}}]}}"#)
        );
        assert_eq!(text(Body::Response(1, RpcResponse::Accepted)), r#"{"answer":[1,"accepted"]}"#);
        assert_eq!(text(Body::OneWay(OneWay::Applied(id, 2))), format!(r#"{{"tell":{{"met":["{id}",2]}}}}"#));
    }
}
