//! `/join`, `/leave`, `/disconnect`: commands of the backend to sessions, on whatever node they are.

use crate::http::Api;
use crate::http::answer::{Reply, error, json, unread};
use crate::http::body;
use crate::model::command::{Action, MAX_ROOMS, Selector};
use crate::model::draft::check_room_name;
use crate::model::names::{MAIN_NAMESPACE, Room};
use crate::model::namespaces::NamespaceIndex;
use crate::node::command_tracker::Applied;
use crate::node::commands::submit;
use crate::protocol::json_object;
use crate::protocol::json_text::{Name, Text};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::json;

/// Bytes of a command's body.
const MAX_BODY: usize = 256 << 10;

/// The path that was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `/join`.
    Join,
    /// `/leave`.
    Leave,
    /// `/disconnect`.
    Disconnect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Fields {
    /// A user may be a number, as in the token.
    user: Option<Name>,
    session: Option<Text>,
    #[serde(rename = "in")]
    inside: Option<Name>,
    room: Option<Name>,
    rooms: Option<Vec<Name>>,
    namespace: Option<Text>,
}

impl Fields {
    /// Typed languages write every field, so an empty one counts as absent.
    fn without_zero_values(mut self) -> Self {
        self.user.take_if(|user| user.0.is_empty());
        self.session.take_if(|session| session.0.is_empty());
        self.inside.take_if(|room| room.0.is_empty());
        self.room.take_if(|room| room.0.is_empty());
        self.rooms.take_if(|rooms| rooms.is_empty());
        self.namespace.take_if(|namespace| namespace.0.is_empty());
        self
    }
}

/// Applies a command and answers to how many sessions. The caller has checked the key.
pub async fn command(api: &Api, verb: Verb, request: Request<Incoming>) -> Reply {
    let body = match body::read(request, MAX_BODY).await {
        Ok(body) => body,
        Err(problem) => return unread(problem, "256 KiB"),
    };
    let fields: Fields = match json_object::read(&body) {
        Ok(fields) => Fields::without_zero_values(fields),
        Err(problem) => return error(StatusCode::BAD_REQUEST, "bad_json", &problem.to_string()),
    };
    let (selector, namespace, act) = match read(api, verb, fields) {
        Ok(read) => read,
        Err((code, message)) => return error(StatusCode::BAD_REQUEST, code, &message),
    };
    match submit(&api.node, selector, namespace, act).await {
        Ok(Applied { sessions, nodes_pending: 0 }) => json(StatusCode::OK, &json!({ "sessions": sessions })),
        // The command is in the log: slow nodes apply it later, and dead nodes have no sessions.
        Ok(Applied { sessions, nodes_pending }) => {
            json(StatusCode::OK, &json!({ "sessions": sessions, "nodes_pending": nodes_pending }))
        }
        Err(refused) => error(StatusCode::SERVICE_UNAVAILABLE, refused.code(), &refused.to_string()),
    }
}

type Refusal = (&'static str, String);

fn read(api: &Api, verb: Verb, fields: Fields) -> Result<(Selector, Option<NamespaceIndex>, Action), Refusal> {
    let selector = match (fields.user, fields.session, fields.inside) {
        (Some(Name(user)), None, None) => Selector::User(user),
        (None, Some(Text(session)), None) => Selector::Session(session),
        (None, None, Some(Name(room))) => Selector::In(room),
        _ => return Err(("bad_field", "give exactly one of `user`, `session` and `in`".into())),
    };
    let namespace = match fields.namespace {
        Some(Text(name)) => {
            let index = api.node.context.namespaces.find(&name);
            Some(index.ok_or_else(|| ("bad_namespace", "`namespace` is not in `socketio.namespaces`".to_owned()))?)
        }
        // A session is in one namespace, and a user is disconnected in all of them. A room is per namespace.
        None if matches!(selector, Selector::Session(_)) => None,
        None if verb == Verb::Disconnect && matches!(selector, Selector::User(_)) => None,
        None => api.node.context.namespaces.find(MAIN_NAMESPACE),
    };
    let rooms = match (fields.room, fields.rooms) {
        (Some(_), Some(_)) => return Err(("bad_field", "give `room` or `rooms`, not both".into())),
        (Some(room), None) => Some(vec![room]),
        (None, rooms) => rooms,
    };
    let act = match (verb, rooms) {
        (Verb::Disconnect, None) => Action::Disconnect,
        (Verb::Disconnect, Some(_)) => {
            return Err(("bad_field", "`room` and `rooms` have no meaning for /disconnect".into()));
        }
        (Verb::Join, Some(rooms)) => Action::Join(checked(api, rooms)?),
        (Verb::Leave, Some(rooms)) => Action::Leave(checked(api, rooms)?),
        (_, None) => return Err(("bad_field", "`room` or `rooms` is missing".into())),
    };
    Ok((selector, namespace, act))
}

fn checked(api: &Api, rooms: Vec<Name>) -> Result<Vec<Room>, Refusal> {
    let max = api.node.context.settings().limits.rooms_per_session.min(MAX_ROOMS);
    if rooms.is_empty() || rooms.len() > max {
        let message = format!("`rooms` takes 1 to {max} names");
        return Err(("bad_field", message));
    }
    for Name(room) in &rooms {
        check_room_name(room, api.node.context.draft_limits.room_name_bytes).map_err(|e| (e.code(), e.to_string()))?;
    }
    Ok(rooms.into_iter().map(Room::from).collect())
}
