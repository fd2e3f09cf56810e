//! What an `[[on]]` rule comes to for one call. All templates are filled first, so that a failure leaves nothing half done.

use crate::handlers::action_error::ActionError;
use crate::model::args::Args;
use crate::model::draft::{Draft, Source};
use crate::model::names::{Namespace, Room};
use crate::node::context::LocalNode;
use crate::protocol::socketio_encode::{check_args, check_draft};
use crate::rules::{Call, Emission, Message, OnRule};
use crate::session::Session;
use crate::session::caller::with_caller;

/// What a rule comes to for one call.
pub(super) struct Plan {
    pub joins: Vec<Room>,
    pub leaves: Vec<Room>,
    pub reply: Option<Message>,
    pub drafts: Vec<Draft>,
    pub ack: Option<Args>,
}

/// What becomes of an emit to a room that the session is not in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outside {
    /// The caller asked for it, and gets an error.
    Refuse,
    /// At `disconnect` nobody asked: the rule means the rooms that the session happened to be in.
    Skip,
}

/// Fills all templates of a rule. `inside`: the rooms that the session is in.
pub(super) fn plan(
    local: &LocalNode,
    session: &Session,
    rule: &OnRule,
    args: &Args,
    inside: impl Fn(&str) -> bool,
    outside: Outside,
) -> Result<Plan, ActionError> {
    let namespace = local.context.namespaces.name(session.namespace).clone();
    with_caller(session, &namespace.clone(), |caller| {
        let call = Call { caller, args };
        let joins = rule.joins(&call).map_err(ActionError::Template)?;
        let mut drafts = Vec::new();
        for emission in rule.emits(&call).map_err(ActionError::Template)? {
            if !inside(&emission.room) && !joins.contains(&emission.room) {
                match outside {
                    Outside::Refuse => return Err(ActionError::NotInRoom(emission.room)),
                    Outside::Skip => continue,
                }
            }
            let draft = draft(emission, &namespace, caller.session);
            check_draft(&draft, &local.context.draft_limits).map_err(ActionError::Draft)?;
            drafts.push(draft);
        }
        let reply = rule.reply(&call).map_err(ActionError::Template)?;
        let ack = rule.ack(&call).map_err(ActionError::Template)?;
        for args in reply.iter().map(|reply| &reply.args).chain(&ack) {
            check_args(args).map_err(ActionError::Unwritable)?;
        }
        Ok(Plan { joins, leaves: rule.leaves(&call).map_err(ActionError::Template)?, reply, drafts, ack })
    })
}

fn draft(emission: Emission, namespace: &Namespace, caller: &str) -> Draft {
    let except = if emission.include_caller { Vec::new() } else { vec![caller.into()] };
    Draft {
        namespace: namespace.clone(),
        rooms: vec![emission.room],
        except,
        event: emission.message.event,
        args: emission.message.args,
        volatile: emission.volatile,
        id: None,
        source: Source::Client,
        trace: None,
    }
}
