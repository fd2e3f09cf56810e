//! The subscription, and on the same connection the lease: a node that hears nothing does not keep it.

use crate::bridge::copy_tracker::Content;
use crate::bridge::emitter;
use crate::bridge::redis::Emitters;
use crate::bridge::request::Request;
use crate::model::draft::Source;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use redis::{PushInfo, PushKind, Value};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often the lease is renewed or asked for, and the connection looked after.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// The holder copies within milliseconds; what it has not copied for so long, it may not have heard.
const UNCOPIED: Duration = Duration::from_millis(1500);

/// Listens until dropped; reconnects by itself.
pub(super) async fn run(emitters: &Arc<Emitters>) {
    let mut reconnect = Reconnect::default();
    loop {
        let Err(error) = listen(emitters, &mut reconnect).await;
        emitters.held.send_replace(None);
        reconnect.wait("listening to emitters", emitters.log.redis().0, &error).await;
    }
}

async fn listen(emitters: &Arc<Emitters>, reconnect: &mut Reconnect) -> Result<Infallible, RedisError> {
    let on_push = {
        let emitters = emitters.clone();
        move |push: PushInfo| -> Result<(), Infallible> {
            take(&emitters, push);
            Ok(())
        }
    };
    let (connector, timeout) = emitters.log.redis();
    let mut connection = RedisConnection::open_subscriber(connector, timeout, on_push).await?;
    if let Some(key) = &emitters.key {
        let key = escape(key);
        for pattern in [key.clone(), format!("{key}#*"), format!("{key}-request#*")] {
            connection.psubscribe(&pattern).await?;
        }
    }
    let claim = emitters.log.new_claim(&mut connection).await?;
    reconnect.reset();
    let mut leaving = emitters.leaving.subscribe();
    let mut turn = tokio::time::interval(RENEW_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turn.tick() => {}
            () = async { drop(leaving.wait_for(|leaving| *leaving).await) } => {
                emitters.log.resign(&mut connection, &claim).await?;
                emitters.held.send_replace(None);
                return std::future::pending().await;
            }
        }
        connection.check().await?;
        let lost = emitters.heard().expire(emitters.now_ms());
        if lost > 0 && emitters.claim().is_some() {
            tracing::error!(lost, "events of emitters could not be copied into the log in time; they are lost");
        }
        let held = emitters.log.claim(&mut connection, &claim, uncopied(emitters)).await?;
        emitters.held.send_if_modified(|now| {
            let changed = now.is_some() != held;
            *now = held.then(|| claim.clone());
            changed
        });
    }
}

/// For how long something was heard that nobody copies, where that is worth a word.
fn uncopied(emitters: &Emitters) -> Option<Duration> {
    let oldest = emitters.heard().oldest_ms()?;
    Some(Duration::from_millis(emitters.now_ms().saturating_sub(oldest))).filter(|uncopied| *uncopied >= UNCOPIED)
}

/// A key as a pattern that matches only it.
fn escape(key: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^');
    key.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

fn take(emitters: &Emitters, push: PushInfo) {
    if push.kind != PushKind::PMessage {
        return;
    }
    let mut data = push.data.into_iter().skip(1);
    let (Some(Value::BulkString(channel)), Some(Value::BulkString(message))) = (data.next(), data.next()) else {
        return;
    };
    let channel = String::from_utf8_lossy(&channel);
    let Some(key) = &emitters.key else { return };
    let content = match emitter::decode(key, &channel, &message, &emitters.limits) {
        // Only the one that copies does that now; nobody does it later.
        Ok(Request::Event(draft)) if draft.volatile && emitters.claim().is_none() => return,
        Ok(Request::Event(draft)) => Content::Event(*draft),
        Ok(Request::SessionCommand(directive)) => Content::SessionCommand(directive),
        Ok(Request::Foreign) => return,
        Err(error) => return emitters.refuse(&channel, &error),
    };
    if !emitters.heard().hear(content, emitters.now_ms()) {
        if emitters.claim().is_some() {
            emitters.metrics.refused(Source::Emitter, "overloaded");
        }
        if emitters.may_complain() {
            tracing::error!("too much of emitters waits to be copied into the log; what comes now is lost");
        }
        return;
    }
    emitters.arrival.notify_one();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_no_patterns() {
        assert_eq!(escape("socket.io"), "socket.io");
        assert_eq!(escape("a*b[c]?\\^"), "a\\*b\\[c\\]\\?\\\\\\^");
    }
}
