//! The rules for `connection` and `disconnect`, which no client sends.

use crate::backend::request::RequestKind;
use crate::handlers::action_error::ActionError;
use crate::handlers::backend_calls;
use crate::handlers::backend_calls::Ask;
use crate::handlers::fail;
use crate::handlers::rule_plan::{Outside, plan};
use crate::handlers::rule_runner::{Ran, append, run};
use crate::model::args::Args;
use crate::model::close::CloseReason;
use crate::model::draft::Source;
use crate::node::context::LocalNode;
use crate::session::connection::SessionKey;
use crate::shard::ended::Ended;
use std::rc::Rc;

/// Carries out the `connection` rule of a session that has just begun or was resumed. If its rooms could not be written, the
/// connection is closed so that the client comes again: it did not ask for these rooms, so it would not ask a second time.
/// Where it needs the backend it waits, and the client's packets do not wait for it.
pub async fn run_connection(local: &Rc<LocalNode>, key: SessionKey, namespace: &str) {
    let settings = local.context.settings();
    let Some(rule) = settings.rules.connection(namespace) else { return };
    // Boxed: every CONNECT would have room for a rule.
    match Box::pin(run(local, key, rule, "connection", &Args::none(), None)).await {
        Ok(Ran::Done(_)) => {}
        Ok(Ran::Deferred(need)) => match backend_calls::take_place(local, need.kind, key, 0) {
            Ok(place) => crate::handlers::defer_connection(local, key, need, place),
            Err(error) => failed_connection(local, key, namespace, &ActionError::Backend(error)),
        },
        Err(failure) => failed_connection(local, key, namespace, &failure.error),
    }
}

/// The same when its turn with the backend has come.
pub async fn run_connection_now(local: &Rc<LocalNode>, key: SessionKey, ask: Option<&Ask>) {
    let Some(namespace) = local.shard.with_session(key, |session| session.namespace) else { return };
    let namespace = local.context.namespaces.name(namespace);
    let settings = local.context.settings();
    let Some(rule) = settings.rules.connection(namespace) else { return };
    if let Err(failure) = run(local, key, rule, "connection", &Args::none(), ask).await {
        failed_connection(local, key, namespace, &failure.error);
    }
}

fn failed_connection(local: &LocalNode, key: SessionKey, namespace: &str, error: &ActionError) {
    tracing::warn!(%error, %namespace, "the connection rule failed");
    if matches!(error, ActionError::Unsettled) {
        local
            .shard
            .connection_of(key)
            .into_iter()
            .for_each(|connection| fail(local, connection, CloseReason::Unreachable));
    }
}

/// Carries out the `disconnect` rules of sessions that have ended, with one append for all. Only their emits still have a
/// meaning.
pub async fn run_disconnects(local: &Rc<LocalNode>, ended: Vec<Ended>) {
    let count = ended.len();
    let mut drafts = Vec::new();
    for ended in ended {
        let namespace = local.context.namespaces.name(ended.session.namespace);
        // As Socket.IO words it: `transport close`, `ping timeout`.
        let reason = ended.reason.label().replace('_', " ");
        let source = backend_calls::source(local, &ended.session, ended.address);
        backend_calls::disconnected(local, &source, &ended.session, &ended.rooms, &reason);
        let settings = local.context.settings();
        let Some(rule) = settings.rules.disconnect(namespace) else { continue };
        let inside = |room: &str| ended.rooms.iter().any(|own| &**own == room);
        let args = Args::trusted(format!("[\"{reason}\"]"), 1);
        match plan(local, &ended.session, rule, &args, inside, Outside::Skip) {
            Ok(plan) => drafts.extend(plan.drafts),
            Err(error) => failed_disconnect(local, &error),
        }
        if rule.forward() {
            match Ask::of_source(local, RequestKind::Event, source) {
                Ok(ask) => forward_disconnect(local, ended, args, ask),
                Err(error) => failed_disconnect(local, &ActionError::Backend(error)),
            }
        }
    }
    if let Err(error) = append(local, drafts, None).await {
        failed_disconnect(local, &error);
    }
    local.shard.finish_disconnect_work(count);
}

/// Forwards a disconnection to the backend, which may answer with events for rooms. Only the graceful stop waits for it.
fn forward_disconnect(local: &Rc<LocalNode>, ended: Ended, args: Args, ask: Ask) {
    local.shard.begin_disconnect_work();
    let local = local.clone();
    tokio::task::spawn_local(async move {
        let about = backend_calls::about(&local, &ended.session, ended.rooms);
        let answer = backend_calls::forward(&local, about, "disconnect", &args, &ask).await;
        let told = match answer.map_err(ActionError::Backend) {
            Ok(answer) => append(&local, answer.emit, ask.trace()).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            failed_disconnect(&local, &error);
        }
        local.shard.finish_disconnect_work(1);
    });
}

fn failed_disconnect(local: &LocalNode, error: &ActionError) {
    local.context.metrics.events.refused(Source::Client, error.code());
    tracing::warn!(%error, "a disconnect rule failed");
}
