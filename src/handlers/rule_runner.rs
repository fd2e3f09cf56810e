//! Carries out an `[[on]]` rule for a client's event.

use crate::auth::Identity;
use crate::backend::BackendError;
use crate::backend::answer::EventAnswer;
use crate::handlers::action_error::{ActionError, Failure};
use crate::handlers::backend_calls;
use crate::handlers::backend_calls::{Ask, CLIENT_SPAN};
use crate::handlers::backend_lane;
use crate::handlers::backend_lane::Need;
use crate::handlers::rights;
use crate::handlers::room_access;
use crate::handlers::room_access::JoinError;
use crate::handlers::rule_plan::{Outside, Plan, plan};
use crate::handlers::send::send_to_session;
use crate::model::args::Args;
use crate::model::draft::{Draft, DraftError, Source};
use crate::model::happening::Kind;
use crate::model::names::Room;
use crate::model::place::Place;
use crate::model::provenance::Provenance;
use crate::model::refusal::Refusal;
use crate::model::session_note::{LeftBy, SessionNote};
use crate::model::trace_context::TraceContext;
use crate::node::context::LocalNode;
use crate::presence::local::Reservation;
use crate::refusals::shown;
use crate::rules::{Call, Message, OnRule, Problem};
use crate::session::caller::with_caller;
use crate::session::connection::SessionKey;
use crate::telemetry::{Parent, Span, SpanKind, shortened};
use std::rc::Rc;
use std::sync::Arc;

/// The span that the events of a rule belong to.
type Trace = Option<Box<TraceContext>>;

/// What became of an event.
#[derive(Debug)]
pub enum Ran {
    /// Its rule was carried out; with the acknowledgement's arguments.
    Done(Option<Args>),
    /// Nothing was done: it has to wait for the backend.
    Deferred(Need),
}

impl Ran {
    /// The acknowledgement's arguments.
    pub fn ack(self) -> Option<Args> {
        match self {
            Self::Done(ack) => ack,
            Self::Deferred(_) => None,
        }
    }
}

/// Carries out the rule for a client's event: forward, join and leave, reply, emit; answers the acknowledgement, the
/// backend's or else the rule's. `ask`: its turn with the backend has come.
///
/// # Errors
/// The error for the caller. Nothing was done, except joins and the reply if the log fails afterwards.
pub async fn run(
    local: &Rc<LocalNode>,
    key: SessionKey,
    rule: &OnRule,
    event: &str,
    args: &Args,
    ask: Option<&Ask>,
) -> Result<Ran, Failure> {
    if ask.is_none() {
        local.shard.report(Kind::EventIn, key, |happening| {
            happening.event = Some(shown(event));
            happening.bytes = Some(args.len() as u64);
        });
    }
    if tracing::enabled!(tracing::Level::DEBUG) && ask.is_none() {
        local.shard.with_session(key, |session| tracing::debug!(session = %session.id, ?event, "event in"));
    }
    // A packet that has waited for the backend has its span already.
    let mut span = match ask {
        Some(_) => Span::default(),
        None => local.context.telemetry.start(CLIENT_SPAN, SpanKind::Server, Parent::None),
    };
    span.set("roomcast.event", || shortened(event));
    let trace = ask.map_or_else(|| span.context(), Ask::trace);
    match attempt(local, key, rule, event, args, ask, trace).await {
        Ok(ran) => {
            if matches!(ran, Ran::Deferred(_)) {
                span.discard();
            }
            Ok(ran)
        }
        Err(error) => {
            span.fail(error.code());
            note_refusal(local, key, event, &error);
            if !matches!(error, ActionError::Join(_)) {
                local.shard.note(key, SessionNote::Refused { code: error.code(), room: None });
            }
            local.context.metrics.events.refused(Source::Client, error.code());
            let text = error.to_string();
            let told = local.shard.with_session(key, |session| {
                with_caller(session, local.context.namespaces.name(session.namespace), |caller| {
                    let call = Call { caller, args };
                    let problem = Problem { code: error.code(), message: &text };
                    (rule.on_error(&call, problem), rule.ack_error(&call, problem))
                })
            });
            let (message, ack) = told.unwrap_or_default();
            message.iter().for_each(|message| send_to_session(local, key, message));
            Err(Failure { error, ack })
        }
    }
}

/// Notes a client's event that was refused, rather than one that failed or whose join was noted as refused.
pub fn note_refusal(local: &LocalNode, key: SessionKey, event: &str, error: &ActionError) {
    let namespace = local.shard.with_session(key, |session| session.namespace);
    let namespace = namespace.map_or("", |namespace| local.context.namespaces.name(namespace));
    // A name may be as long as a payload.
    let event = shown(event);
    let note = |reason, why: std::fmt::Arguments<'_>| {
        local.context.refusals.note(reason, &local.shard.who_of(key), why);
    };
    match error {
        ActionError::NoRule(_) => {
            note(Refusal::Event, format_args!("no [[on]] rule has event \"{event}\" in namespace \"{namespace}\""));
        }
        ActionError::NotInRoom(room) => {
            let why = format_args!("event \"{event}\" emits to room {}, which it is not in", shown(room));
            note(Refusal::Event, why);
        }
        ActionError::Draft(DraftError::TooBig { .. }) => {
            note(Refusal::Size, format_args!("event \"{event}\" is over publish.max_event"));
        }
        // Names the placeholder, as {0.chatId}, and no value.
        ActionError::Template(why) => {
            note(Refusal::Event, format_args!("event \"{event}\": {why}; its arguments do not fit its [[on]] rule"));
        }
        ActionError::Draft(_) | ActionError::Unwritable(_) => {
            let why = format_args!("event \"{event}\": {}; its arguments do not fit its [[on]] rule", error.code());
            note(Refusal::Event, why);
        }
        ActionError::Backend(BackendError::Refused(_)) => {
            note(Refusal::Backend, format_args!("the backend refuses event \"{event}\""));
        }
        ActionError::Join(_) | ActionError::Append(_) | ActionError::Unsettled | ActionError::Backend(_) => {}
    }
}

async fn attempt(
    local: &Rc<LocalNode>,
    key: SessionKey,
    rule: &OnRule,
    event: &str,
    args: &Args,
    ask: Option<&Ask>,
    trace: Trace,
) -> Result<Ran, ActionError> {
    let planned = local.shard.with_session(key, |session| {
        let plan = plan(local, session, rule, args, |room| session.is_in(room), Outside::Refuse);
        (plan, session.identity.clone())
    });
    let (plan, begun_with) = planned.ok_or(ActionError::Join(JoinError::Gone))?;
    let need = match &plan {
        _ if ask.is_some() => None,
        Ok(plan) => backend_lane::need(local, key, rule.forward(), &plan.joins, &plan.leaves),
        Err(ActionError::NotInRoom(_)) => backend_lane::need_of_emit(local, key),
        Err(_) => None,
    };
    if let Some(need) = need {
        return Ok(Ran::Deferred(need));
    }
    let plan = plan?;
    let answer = match ask {
        Some(ask) if rule.forward() => {
            announced_first(local, key).await?;
            backend_calls::event(local, key, event, args, ask).await.map_err(ActionError::Backend)?
        }
        _ => EventAnswer::default(),
    };
    if rule.forward() && !local.shard.has_session(key) {
        // The caller has disconnected meanwhile. The backend has done its work, so the others still get its events.
        let drafts = if plan.joins.is_empty() { plan.drafts } else { Vec::new() };
        append(local, drafts.into_iter().chain(answer.emit).collect(), trace).await?;
        return Ok(Ran::Done(answer.ack.or(plan.ack)));
    }
    let by = allow(local, key, &plan, &answer.join, ask, &begun_with).await?;
    let (joins, leaves) = ([plan.joins, answer.join].concat(), [plan.leaves, answer.leave].concat());
    change_rooms(local, key, &joins, by, &leaves).await?;
    let drafts: Vec<Draft> = plan.drafts.into_iter().chain(answer.emit).collect();
    if !drafts.is_empty() {
        announced_first(local, key).await?;
    }
    let replies = answer.reply.into_iter().map(|(event, args)| Message { event, args });
    plan.reply.into_iter().chain(replies).for_each(|message| send_to_session(local, key, &message));
    let heard = drafts.iter().any(|draft| draft.except.is_empty());
    let last = append(local, drafts, trace).await?;
    if heard && let Some(last) = last {
        // The acknowledgement comes after the events that the caller gets itself.
        local.shard.catch_up_with(&last).await;
    }
    Ok(Ran::Done(answer.ack.or(plan.ack)))
}

/// What allows each room that the rule joins, and then each of the `answered` ones, once the shard has passed what was left out
/// of these. Only then: nobody makes the node keep rooms that it may not be in.
async fn allow(
    local: &LocalNode,
    key: SessionKey,
    plan: &Plan,
    answered: &[Room],
    ask: Option<&Ask>,
    begun_with: &Arc<Identity>,
) -> Result<Vec<Provenance>, ActionError> {
    let allow = || room_access::allow(local, key, &plan.joins, ask);
    let mut allowed = allow().await.map_err(ActionError::Join)?;
    let joins = [&plan.joins[..], answered].concat();
    let decided_with = local.shard.with_session(key, |session| session.identity.clone());
    room_access::pass_left_out(local, key, &joins).await;
    if decided_with.is_some_and(|identity| rights::has_changed(local, key, &identity)) {
        allowed = allow().await.map_err(ActionError::Join)?;
    }
    if !rights::has_changed(local, key, begun_with) {
        allowed.extend(answered.iter().map(|_| Provenance::Answered));
        return Ok(allowed);
    }
    // A fresh token came while the backend worked.
    still_inside(local, key, plan)?;
    let of_answer = rights::of_answer(local, key, answered)
        .inspect_err(|error| room_access::note_refusal(local, key, answered, error))
        .map_err(ActionError::Join)?;
    allowed.extend(of_answer);
    Ok(allowed)
}

/// Joins and leaves, and waits until that is written.
async fn change_rooms(
    local: &Rc<LocalNode>,
    key: SessionKey,
    joins: &[Room],
    by: Vec<Provenance>,
    leaves: &[Room],
) -> Result<(), ActionError> {
    room_access::within_limit(local, key, joins).map_err(ActionError::Join)?;
    let joined = local.shard.join(key, joins.iter().zip(by), &mut Reservation::default());
    local.shard.leave(key, leaves, LeftBy::Client);
    let changes = !joins.is_empty() || !leaves.is_empty();
    if changes && !room_access::settled(local, key, !leaves.is_empty()).await {
        // Another node could resume the session as it was. Leaves are not undone: it does no harm to repeat them, and events of
        // the meantime could not be delivered any more.
        local.shard.leave(key, &joined, LeftBy::Undone);
        return Err(ActionError::Unsettled);
    }
    Ok(())
}

/// Whether the session is still in the rooms that it emits to, or joins them.
fn still_inside(local: &LocalNode, key: SessionKey, plan: &Plan) -> Result<(), ActionError> {
    let rooms = || plan.drafts.iter().flat_map(|draft| &draft.rooms);
    let left = local
        .shard
        .with_session(key, |session| rooms().find(|room| !session.is_in(room) && !plan.joins.contains(room)).cloned());
    left.flatten().map_or(Ok(()), |room| Err(ActionError::NotInRoom(room)))
}

/// Waits until the session's joins are announced, so that other members get them before anything that it sends.
async fn announced_first(local: &LocalNode, key: SessionKey) -> Result<(), ActionError> {
    match local.node.presence.written(local.shard.announced(key), false).await {
        true => Ok(()),
        false => Err(ActionError::Unsettled),
    }
}

/// Appends events of a rule. Answers where the last ones that are stored are, on each line; `None` where nothing is.
pub(super) async fn append(
    local: &Rc<LocalNode>,
    mut drafts: Vec<Draft>,
    trace: Trace,
) -> Result<Option<Place>, ActionError> {
    if drafts.is_empty() {
        return Ok(None);
    }
    if trace.is_some() {
        drafts.iter_mut().for_each(|draft| draft.trace.clone_from(&trace));
    }
    let backends = drafts.iter().filter(|draft| draft.source == Source::Backend).count() as u64;
    let all = drafts.len() as u64;
    let mut last: Option<Place> = None;
    for appended in local.node.log.append(drafts).await {
        if let Some(offset) = appended.map_err(ActionError::Append)?.offset {
            last.get_or_insert_default().set(offset);
        }
    }
    local.context.metrics.events.accepted(Source::Client, all - backends);
    local.context.metrics.events.accepted(Source::Backend, backends);
    Ok(last)
}
