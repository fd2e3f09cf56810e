//! Pages of Socket.IO's Admin UI, in the namespace `/admin`. A page has a connection of its own and no session, so that it is in no
//! room, no count of users and no notice to the backend.

use crate::handlers::fail;
use crate::model::args::Args;
use crate::model::clock::unix_ms;
use crate::model::close::CloseReason;
use crate::model::command::{Action, Selector};
use crate::model::draft::{Draft, Source, check_room_name};
use crate::model::id::Id;
use crate::model::names::{EVERYBODY, Room};
use crate::model::refusal::Refusal;
use crate::node::admin_ui::access::Proof;
use crate::node::admin_ui::look::Look;
use crate::node::admin_ui::state::{AdminUi, Denied, Seat};
use crate::node::commands::submit;
use crate::node::context::LocalNode;
use crate::protocol::admin_ui as protocol;
use crate::protocol::admin_ui::{Command, Credentials, NAMESPACE};
use crate::protocol::socketio_encode as encode;
use crate::refusals::shown;
use crate::session::connection::{ConnectionKey, ConnectionUse};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a page's handshake auth.
const MAX_AUTH: usize = 4_096;
/// How often is looked whether a page is still there, and has taken what it was sent.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Whether a packet of this namespace is one of the Admin UI.
pub fn is_ours(local: &LocalNode, namespace: &str) -> bool {
    namespace == NAMESPACE && local.node.admin_ui.is_some()
}

/// A CONNECT to `/admin`.
pub fn connect(local: &Rc<LocalNode>, key: ConnectionKey, auth: Option<&str>) {
    let Some(ui) = local.node.admin_ui.clone() else { return };
    let who = local.shard.who(key);
    let refuse = |message: &str| {
        local.context.refusals.note(Refusal::AdminUi, &who, format_args!("{message}"));
        local.shard.push_packet(key, encode::connect_error(NAMESPACE, message, None));
    };
    match local.shard.connection_use(key) {
        ConnectionUse::Clients if ui.settings.admin_apart => {
            return refuse("the Admin UI is served on admin_listen, not here");
        }
        ConnectionUse::Clients if local.shard.has_sessions(key) => {
            return refuse("the Admin UI needs a connection of its own: set forceNew");
        }
        ConnectionUse::AdminUi => return fail(local, key, CloseReason::ParseError),
        ConnectionUse::Clients | ConnectionUse::AdminListener => {}
    }
    let credentials = Credentials::read(auth.filter(|auth| auth.len() <= MAX_AUTH));
    let Some(address) = local.shard.address(key) else { return };
    let proof = match ui.log_in(&credentials, address, unix_ms() / 1_000) {
        Ok(proof) => proof,
        Err(Denied::Invalid) => return refuse(protocol::INVALID_CREDENTIALS),
        Err(Denied::TooManyGuesses) => {
            return refuse("too many wrong passwords; try again in a minute");
        }
    };
    let Some(seat) = ui.enter() else {
        return refuse("as many Admin UIs are open as console.admin_ui_sessions allows");
    };
    local.shard.become_admin_ui(key);
    tracing::info!(%who, "an Admin UI was opened");
    let config = &ui.settings.config;
    let id = ui.id(&proof).filter(|id| credentials.session.as_ref() != Some(id));
    local.shard.push_packet(key, encode::connect(NAMESPACE, &Id::random().to_string(), None));
    // Behind the reply: the page listens for events only once it is connected.
    for packet in id
        .and_then(|id| protocol::session(&id))
        .into_iter()
        .chain(protocol::config(config.sockets > 0, config.readonly))
    {
        local.shard.push_packet(key, packet);
    }
    tokio::task::spawn_local(follow(local.clone(), key, seat, ui, proof));
}

/// Sends what changes, as long as the page is there. One that is slow gets less often what has changed since.
async fn follow(local: Rc<LocalNode>, key: ConnectionKey, _seat: Seat, ui: Arc<AdminUi>, proof: Proof) {
    let mut looks = ui.looks();
    let begun = looks.borrow_and_update().number;
    let mut sent: Option<Arc<Look>> = None;
    ui.look_soon();
    loop {
        // Also without a new look: the page may have gone, or taken what it was sent.
        let _ = tokio::time::timeout(LOOK_AGAIN, looks.changed()).await;
        let Some(unsent) = local.shard.unsent(key) else { return };
        if !ui.still_holds(&proof, unix_ms() / 1_000) {
            return fail(&local, key, CloseReason::TokenExpired);
        }
        let look = looks.borrow_and_update().clone();
        let known = sent.as_ref().map_or(begun, |sent| sent.number);
        if unsent > 0 || look.number <= known {
            continue;
        }
        for packet in look.packets_after(sent.as_deref(), ui.settings.config.sockets > 0) {
            local.shard.push_packet(key, packet);
        }
        sent = Some(look);
    }
}

/// A page leaves the namespace. Nothing else is on its connection.
pub fn leave(local: &LocalNode, key: ConnectionKey) {
    if local.shard.connection_use(key) == ConnectionUse::AdminUi {
        fail(local, key, CloseReason::ClientClose);
    }
}

/// An event of a page: what an operator asks for.
pub async fn event(local: &Rc<LocalNode>, key: ConnectionKey, ack: Option<&str>, event: &str, args: &Args) {
    let Some(ui) = local.node.admin_ui.clone().filter(|_| local.shard.connection_use(key) == ConnectionUse::AdminUi)
    else {
        return fail(local, key, CloseReason::ParseError);
    };
    let who = local.shard.who(key);
    let refuse = |why: fmt::Arguments<'_>| local.context.refusals.note(Refusal::AdminUi, &who, why);
    match Command::read(event, args) {
        _ if ui.settings.config.readonly => {
            refuse(format_args!("{}: console.admin_ui_readonly is set", shown(event)));
        }
        None => refuse(format_args!("{} is not a command of the Admin UI, or its arguments are not", shown(event))),
        Some(command) => match carry_out(local, &command).await {
            Ok(()) => {
                let (namespace, filter) = (shown(command.namespace()), shown(command.filter().unwrap_or("*")));
                tracing::info!(%who, command = event, %namespace, %filter, "carried out for an Admin UI");
                ui.look_soon();
            }
            Err(why) => refuse(format_args!("{}: {why}", shown(event))),
        },
    }
    // The page asks for none, but a client that does waits for it.
    if let Some(Ok(packet)) = ack.map(|ack| encode::ack(NAMESPACE, ack, &Args::none())) {
        local.shard.push_packet(key, packet);
    }
}

async fn carry_out(local: &Rc<LocalNode>, command: &Command) -> Result<(), String> {
    let node = &local.node;
    let namespace = local.context.namespaces.find(command.namespace());
    let namespace = namespace.ok_or_else(|| "the namespace is not in socketio.namespaces".to_owned())?;
    // The id of a session is a room with that one member, and no room is the whole namespace, as in Socket.IO.
    let rooms: Vec<Room> = command.filter().map(Room::from).into_iter().collect();
    for room in &rooms {
        check_room_name(room, local.context.draft_limits.room_name_bytes).map_err(|error| error.to_string())?;
    }
    let selector = Selector::RoomsExcept { rooms: rooms.clone(), except: Vec::new() };
    let action = match command {
        Command::Join { room, .. } => Action::Join(checked(local, room)?),
        Command::Leave { room, .. } => Action::Leave(checked(local, room)?),
        Command::Disconnect { .. } => Action::Disconnect,
        Command::Emit { event, args, .. } => {
            let namespace = local.context.namespaces.name(namespace).clone();
            let rooms = if rooms.is_empty() { vec![EVERYBODY.into()] } else { rooms };
            // A Socket.IO emitter would publish the same.
            let draft = Draft { namespace, rooms, ..Draft::new("", event, args.clone(), Source::Emitter) };
            encode::check_draft(&draft, &local.context.draft_limits).map_err(|error| error.to_string())?;
            let appended = node.log.append(vec![draft]).await;
            return appended.into_iter().try_for_each(|appended| appended.map(drop).map_err(|error| error.to_string()));
        }
    };
    submit(node, selector, Some(namespace), action).await.map(drop).map_err(|error| error.to_string())
}

fn checked(local: &LocalNode, room: &str) -> Result<Vec<Room>, String> {
    check_room_name(room, local.context.draft_limits.room_name_bytes).map_err(|error| error.to_string())?;
    Ok(vec![room.into()])
}
