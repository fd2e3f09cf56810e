//! `GET /rooms/{room}`, `GET /users/{id}` and `POST /users`: presence in the whole cluster.

use crate::auth::identity::MAX_USER_BYTES;
use crate::http::Api;
use crate::http::answer::{Reply, error, json, unread};
use crate::http::body;
use crate::model::draft::check_room_name;
use crate::model::names::MAIN_NAMESPACE;
use crate::node::presence::rfc3339;
use crate::node::room_query;
use crate::node::room_query::Members;
use crate::presence::{StoreError, UserStatus};
use crate::protocol::json_object;
use crate::protocol::json_text::Name;
use crate::protocol::query;
use crate::protocol::query::path_segment;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// Users in one `POST /users`.
const MAX_USERS: usize = 1_000;
/// Bytes of its body.
const MAX_BODY: usize = 512 << 10;

/// The members of the room that the path names.
pub async fn room(api: &Api, name: &str, query: Option<&str>) -> Reply {
    let Some(name) = path_segment(name) else { return bad_name("the room's name is not percent-encoded UTF-8") };
    if let Err(problem) = check_room_name(&name, api.node.context.draft_limits.room_name_bytes) {
        return error(StatusCode::BAD_REQUEST, problem.code(), &problem.to_string());
    }
    let mut pairs = query::pairs(query.unwrap_or_default());
    let namespace = pairs.find(|(key, _)| key == "namespace").map_or(MAIN_NAMESPACE.into(), |(_, value)| value);
    let Some(index) = api.node.context.namespaces.find(&namespace) else {
        let message = "`namespace` is not in `socketio.namespaces`";
        return error(StatusCode::BAD_REQUEST, "bad_namespace", message);
    };
    let Members { status, nodes_pending } = match room_query::of(&api.node, index, &name).await {
        Ok(members) => members,
        Err(problem) => return unavailable(&problem),
    };
    let mut body = json!({
        "room": name,
        "namespace": namespace,
        "connections": status.connections,
        "users": status.users,
    });
    if nodes_pending > 0 {
        body["nodes_pending"] = nodes_pending.into();
    }
    json(StatusCode::OK, &body)
}

/// The user that the path names.
pub async fn user(api: &Api, name: &str) -> Reply {
    let Some(name) = path_segment(name).filter(|name| is_user(name)) else {
        return bad_name("the user must be 1 to 200 bytes, percent-encoded, without control characters");
    };
    match api.node.presence.users(std::slice::from_ref(&name)).await {
        Ok(statuses) => match statuses.first() {
            Some(status) => json(StatusCode::OK, &user_json(&name, status)),
            None => error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "there was no answer; try again"),
        },
        Err(problem) => unavailable(&problem),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Fields {
    /// A user may be a number, as in the token. `null` is how some typed languages write an empty list.
    #[serde(deserialize_with = "null_is_empty")]
    users: Vec<Name>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Name>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Several users, in order.
pub async fn users(api: &Api, request: Request<Incoming>) -> Reply {
    let body = match body::read(request, MAX_BODY).await {
        Ok(body) => body,
        Err(problem) => return unread(problem, "512 KiB"),
    };
    let fields: Fields = match json_object::read(&body) {
        Ok(fields) => fields,
        Err(problem) => return error(StatusCode::BAD_REQUEST, "bad_json", &problem.to_string()),
    };
    let count = fields.users.len();
    let users: Vec<String> = fields.users.into_iter().map(|Name(user)| user).filter(|user| is_user(user)).collect();
    if users.len() < count || count > MAX_USERS {
        let message =
            format!("`users` takes up to {MAX_USERS} strings or numbers of 1 to 200 bytes without control characters");
        return error(StatusCode::BAD_REQUEST, "bad_field", &message);
    }
    match api.node.presence.users(&users).await {
        Ok(statuses) => {
            let answers: Vec<Value> =
                users.iter().zip(&statuses).map(|(user, status)| user_json(user, status)).collect();
            json(StatusCode::OK, &json!({ "users": answers }))
        }
        Err(problem) => unavailable(&problem),
    }
}

fn user_json(user: &str, status: &UserStatus) -> Value {
    json!({
        "user": user,
        "online": status.online,
        "connections": status.connections,
        "last_seen": status.seen_ms.map(rfc3339),
    })
}

pub(super) fn is_user(user: &str) -> bool {
    !user.is_empty() && user.len() <= MAX_USER_BYTES && !user.chars().any(char::is_control)
}

fn bad_name(message: &str) -> Reply {
    error(StatusCode::BAD_REQUEST, "bad_name", message)
}

fn unavailable(problem: &StoreError) -> Reply {
    error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &problem.to_string())
}
