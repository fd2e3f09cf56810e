//! What the namespace `/admin` speaks: the protocol of `@socket.io/admin-ui` 0.5 (docs/admin-ui.md). `tests/vectors/admin_ui.json`
//! has the packets of the real package.

use crate::model::args::Args;
use crate::protocol::json_text::{Name, Text, unquote};
use crate::protocol::socketio_encode as encode;
use crate::protocol::socketio_encode::Encoded;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The namespace.
pub const NAMESPACE: &str = "/admin";
/// The page asks for the password again on exactly this message.
pub const INVALID_CREDENTIALS: &str = "invalid credentials";

/// What the page sends with its CONNECT.
#[derive(Default)]
pub struct Credentials {
    /// The password of its form.
    pub password: Option<String>,
    /// What a `session` event gave it earlier.
    pub session: Option<String>,
}

impl Credentials {
    /// Reads a handshake auth. The user name is not looked at: a key belongs to no user.
    pub fn read(auth: Option<&str>) -> Self {
        let fields: Option<BTreeMap<Text, &RawValue>> = auth.and_then(|text| serde_json::from_str(text).ok());
        let fields: BTreeMap<String, &RawValue> =
            fields.unwrap_or_default().into_iter().map(|(Text(key), value)| (key, value)).collect();
        let text = |key: &str| fields.get(key).and_then(|raw| unquote(raw.get())).map(|text| text.into_owned());
        Self { password: text("password"), session: text("sessionId") }
    }
}

/// A socket as the page knows it: a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The session's id.
    pub id: String,
    /// What sockets of one connection have in common. The page groups them by it.
    pub client: String,
    /// `websocket`, `polling` or `sse`.
    pub transport: String,
    /// Its namespace.
    pub namespace: String,
    /// Where its client is.
    pub address: String,
    /// When it began, in Unix milliseconds.
    pub since_ms: u64,
    /// The same as text.
    pub since: String,
    /// Its user, if it has one.
    pub user: Option<String>,
    /// `socketio`, `ws` or `sse`.
    pub protocol: String,
    /// The node that it is on.
    pub node: String,
    /// Its rooms, in order.
    pub rooms: Vec<String>,
}

impl Socket {
    /// Headers and queries are not kept, and may hold tokens.
    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "clientId": self.client,
            "transport": self.transport,
            "nsp": self.namespace,
            "data": { "user": self.user, "protocol": self.protocol, "node": self.node },
            "handshake": {
                "address": self.address,
                "headers": {},
                "query": {},
                "issued": self.since_ms,
                "secure": false,
                "time": self.since,
                "url": "",
                "xdomain": false,
            },
            "rooms": self.rooms,
        })
    }

    /// Bytes of its JSON, about.
    pub fn size(&self) -> usize {
        let user = self.user.as_ref().map_or(0, String::len);
        400 + user + self.namespace.len() + self.rooms.iter().map(|room| room.len() + 3).sum::<usize>()
    }
}

/// What the page shows of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerStats {
    /// The node's id.
    pub server_id: String,
    /// Its machine.
    pub hostname: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since its start.
    pub uptime: u64,
    /// Open connections of clients.
    pub clients_count: u64,
    /// Those of them that are no WebSockets.
    pub polling_clients_count: u64,
    /// What happened since the previous stats.
    pub aggregated_events: Vec<AggregatedEvents>,
    /// Its sessions by namespace.
    pub namespaces: Vec<NamespaceSockets>,
}

/// How often something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AggregatedEvents {
    /// Unix milliseconds of a whole second.
    pub timestamp: u64,
    /// `rawConnection`, `rawDisconnection`, `packetsIn` or `packetsOut`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// How often.
    pub count: u64,
}

/// The sessions in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSockets {
    /// Its name.
    pub name: String,
    /// How many.
    pub sockets_count: u64,
}

/// Which way an event went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A client sent it.
    Received,
    /// It went to so many sessions.
    Sent {
        /// How many.
        receivers: u64,
    },
}

/// An event that the page shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownEvent {
    /// Which way it went.
    pub direction: Direction,
    /// Its namespace.
    pub namespace: String,
    /// Who sent it, or where it went.
    pub socket: String,
    /// Its name.
    pub event: String,
    /// When.
    pub at: String,
}

/// What an operator may do and see.
pub fn config(sees_sockets: bool, readonly: bool) -> Option<Encoded> {
    let mut features = Vec::new();
    if !readonly {
        features.extend(["EMIT", "JOIN", "LEAVE", "DISCONNECT", "MJOIN", "MLEAVE", "MDISCONNECT"]);
    }
    features.push("AGGREGATED_EVENTS");
    if sees_sockets {
        features.push("ALL_EVENTS");
    }
    event("config", &json!([{ "supportedFeatures": features }]))
}

/// With this the page comes back without its password.
pub fn session(id: &str) -> Option<Encoded> {
    event("session", &json!([id]))
}

/// A node.
pub fn server_stats(stats: &ServerStats) -> Option<Encoded> {
    event("server_stats", &json!([stats]))
}

/// Replaces all sockets that the page knows.
pub fn all_sockets<'a>(sockets: impl Iterator<Item = &'a Socket>) -> Option<Encoded> {
    event("all_sockets", &json!([sockets.map(Socket::json).collect::<Vec<_>>()]))
}

/// A new socket.
pub fn socket_connected(socket: &Socket, at: &str) -> Option<Encoded> {
    event("socket_connected", &json!([socket.json(), at]))
}

/// A socket with another transport.
pub fn socket_updated(socket: &Socket) -> Option<Encoded> {
    event("socket_updated", &json!([{ "id": socket.id, "nsp": socket.namespace, "transport": socket.transport }]))
}

/// A socket that is no longer there.
pub fn socket_disconnected(socket: &Socket, reason: &str, at: &str) -> Option<Encoded> {
    event("socket_disconnected", &json!([socket.namespace, socket.id, reason, at]))
}

/// A socket is in a room.
pub fn room_joined(socket: &Socket, room: &str, at: &str) -> Option<Encoded> {
    event("room_joined", &json!([socket.namespace, room, socket.id, at]))
}

/// A socket has left a room.
pub fn room_left(socket: &Socket, room: &str, at: &str) -> Option<Encoded> {
    event("room_left", &json!([socket.namespace, room, socket.id, at]))
}

/// An event of a client, or to clients, without its arguments.
pub fn event_seen(seen: &ShownEvent) -> Option<Encoded> {
    let ShownEvent { direction, namespace, socket, event: name, at } = seen;
    match direction {
        Direction::Received => event("event_received", &json!([namespace, socket, [name], at])),
        Direction::Sent { receivers } => {
            event("event_sent", &json!([namespace, socket, [name, { "receivers": receivers }], at]))
        }
    }
}

/// `None` where a name in it would make the page's parser fail; there is nothing to show then.
fn event(name: &str, args: &Value) -> Option<Encoded> {
    let args = Args::list(&args.to_string()).ok()?;
    encode::event(NAMESPACE, name, &args, None, None).ok()
}

/// What an operator asks for. Without a filter it is for all sockets of the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sockets are to join a room.
    Join {
        /// Their namespace.
        namespace: String,
        /// The room.
        room: String,
        /// Their room, or the id of one of them.
        filter: Option<String>,
    },
    /// Sockets are to leave a room.
    Leave {
        /// Their namespace.
        namespace: String,
        /// The room.
        room: String,
        /// Their room, or the id of one of them.
        filter: Option<String>,
    },
    /// Sockets are to be disconnected.
    Disconnect {
        /// Their namespace.
        namespace: String,
        /// Their room, or the id of one of them.
        filter: Option<String>,
    },
    /// Sockets are to get an event.
    Emit {
        /// Their namespace.
        namespace: String,
        /// Their room, or the id of one of them.
        filter: Option<String>,
        /// Its name.
        event: String,
        /// Its arguments.
        args: Args,
    },
}

impl Command {
    /// Reads an event of the page; `None`: it is not one, or its arguments are not those of one.
    pub fn read(event: &str, args: &Args) -> Option<Self> {
        let values: Vec<&RawValue> = serde_json::from_str(args.as_array()).ok()?;
        let text = |at: usize| values.get(at).and_then(|raw| unquote(raw.get())).map(|text| text.into_owned());
        // Rooms of applications may be numbers.
        let name = |at: usize| Some(serde_json::from_str::<Name>(values.get(at)?.get()).ok()?.0);
        let filter = |at: usize| match values.get(at).map(|raw| raw.get()) {
            None | Some("null" | "\"\"") => Some(None),
            Some(_) => name(at).map(Some),
        };
        let namespace = text(0)?;
        Some(match event {
            "join" => Self::Join { namespace, room: name(1)?, filter: filter(2)? },
            "leave" => Self::Leave { namespace, room: name(1)?, filter: filter(2)? },
            "_disconnect" => Self::Disconnect { namespace, filter: filter(2)? },
            "emit" => {
                let rest: Vec<&str> = values.get(3..)?.iter().map(|raw| raw.get()).collect();
                let args = Args::list(&format!("[{}]", rest.join(","))).ok()?;
                Self::Emit { namespace, filter: filter(1)?, event: text(2)?, args }
            }
            _ => return None,
        })
    }

    /// The namespace that it is for.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Join { namespace, .. }
            | Self::Leave { namespace, .. }
            | Self::Disconnect { namespace, .. }
            | Self::Emit { namespace, .. } => namespace,
        }
    }

    /// The sockets that it is for.
    pub fn filter(&self) -> Option<&str> {
        match self {
            Self::Join { filter, .. }
            | Self::Leave { filter, .. }
            | Self::Disconnect { filter, .. }
            | Self::Emit { filter, .. } => filter.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(event: &str, args: &str) -> Option<Command> {
        Command::read(event, &Args::list(args).unwrap())
    }

    #[test]
    fn commands_of_the_page() {
        let join = |filter: Option<&str>| {
            Some(Command::Join { namespace: "/".into(), room: "r".into(), filter: filter.map(Into::into) })
        };
        assert_eq!(read("join", r#"["/","r","id"]"#), join(Some("id")));
        for all in [r#"["/","r"]"#, r#"["/","r",null]"#, r#"["/","r",""]"#] {
            assert_eq!(read("join", all), join(None), "{all}");
        }
        assert_eq!(
            read("_disconnect", r#"["/chat",true,"id"]"#),
            Some(Command::Disconnect { namespace: "/chat".into(), filter: Some("id".into()) })
        );
        let emit = read("emit", r#"["/","r","e",1,{"a":[2]}]"#);
        let Some(Command::Emit { event, args, .. }) = emit else { panic!("{emit:?}") };
        assert_eq!((&*event, args.as_array()), ("e", r#"[1,{"a":[2]}]"#));
        for bad in [r#"[]"#, r#"["/"]"#, r#"[7,"r"]"#, r#"["/",{}]"#, r#"["/","r",{}]"#, r#"["/","r",["a"]]"#] {
            assert_eq!(read("leave", bad), None, "{bad}");
        }
        assert_eq!(read("shutdown", r#"["/","r"]"#), None);
    }

    #[test]
    fn credentials_of_the_form_and_of_a_page_that_comes_back() {
        let read = |auth| {
            let Credentials { password, session } = Credentials::read(Some(auth));
            (password, session)
        };
        assert_eq!(read(r#"{"username":"admin","password":"p\u0041"}"#), (Some("pA".into()), None));
        assert_eq!(read(r#"{"sessionId":"s"}"#), (None, Some("s".into())));
        for none in ["{}", "[]", "7", r#"{"sessionId":null,"password":7}"#] {
            assert_eq!(read(none), (None, None), "{none}");
        }
    }
}
