//! The subscription, and on the same connection the lease: a node that receives nothing must not keep it.

use crate::bridge::copy_tracker::Content;
use crate::bridge::emitter;
use crate::bridge::redis::EmitterBridge;
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

/// How often the lease is renewed or asked for, and the connection checked.
const RENEW_INTERVAL: Duration = Duration::from_millis(500);
/// The holder copies within milliseconds. If a message is not copied for this long, the holder may not have received it.
const UNCOPIED_LIMIT: Duration = Duration::from_millis(1500);

/// Receives until dropped. Reconnects by itself.
pub(super) async fn run(bridge: &Arc<EmitterBridge>) {
    let mut reconnect = Reconnect::default();
    loop {
        let Err(error) = subscribed(bridge, &mut reconnect).await;
        bridge.lease.send_replace(None);
        reconnect.wait("receiving from emitters", bridge.log.redis().0, &error).await;
    }
}

async fn subscribed(bridge: &Arc<EmitterBridge>, reconnect: &mut Reconnect) -> Result<Infallible, RedisError> {
    let on_push = {
        let bridge = bridge.clone();
        move |push: PushInfo| -> Result<(), Infallible> {
            receive(&bridge, push);
            Ok(())
        }
    };
    let (connector, timeout) = bridge.log.redis();
    let mut connection = RedisConnection::open_subscriber(connector, timeout, on_push).await?;
    if let Some(key) = &bridge.key {
        let key = escape(key);
        for pattern in [key.clone(), format!("{key}#*"), format!("{key}-request#*")] {
            connection.psubscribe(&pattern).await?;
        }
    }
    let token = bridge.log.new_lease_token(&mut connection).await?;
    let mut leaving = bridge.leaving.subscribe();
    let mut renewal = tokio::time::interval(RENEW_INTERVAL);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = renewal.tick() => {}
            () = async { drop(leaving.wait_for(|leaving| *leaving).await) } => {
                bridge.log.release_lease(&mut connection, &token).await?;
                bridge.lease.send_replace(None);
                return std::future::pending().await;
            }
        }
        connection.check().await?;
        let lost = bridge.tracker().expire(bridge.now_ms());
        if lost > 0 && bridge.lease().is_some() {
            tracing::error!(lost, "emitters' events could not be copied into the log in time and are lost");
        }
        let lease = bridge.log.acquire_lease(&mut connection, &token, uncopied(bridge)).await?;
        reconnect.reset();
        bridge.lease.send_if_modified(|now| {
            let changed = now.is_some() != lease;
            *now = lease.then(|| token.clone());
            changed
        });
    }
}

/// For how long this node has had a message that nobody copies, where that is too long.
fn uncopied(bridge: &EmitterBridge) -> Option<Duration> {
    let oldest = bridge.tracker().oldest_ms()?;
    Some(Duration::from_millis(bridge.now_ms().saturating_sub(oldest))).filter(|uncopied| *uncopied >= UNCOPIED_LIMIT)
}

/// A pattern that matches only this key.
fn escape(key: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^');
    key.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

fn receive(bridge: &EmitterBridge, push: PushInfo) {
    if push.kind != PushKind::PMessage {
        return;
    }
    let mut data = push.data.into_iter().skip(1);
    let (Some(Value::BulkString(channel)), Some(Value::BulkString(message))) = (data.next(), data.next()) else {
        return;
    };
    let channel = String::from_utf8_lossy(&channel);
    let Some(key) = &bridge.key else { return };
    let content = match emitter::decode(key, &channel, &message, &bridge.limits) {
        // Only the holder copies volatile events, and only now.
        Ok(Request::Event(draft)) if draft.volatile && bridge.lease().is_none() => return,
        Ok(Request::Event(draft)) => Content::Event(*draft),
        Ok(Request::SessionCommand(directive)) => Content::SessionCommand(directive),
        Ok(Request::Foreign) => return,
        Err(error) => return bridge.refuse(&channel, &error),
    };
    if !bridge.tracker().track(content, bridge.now_ms()) {
        if bridge.lease().is_some() {
            bridge.metrics.events.refused(Source::Emitter, "overloaded");
        }
        if bridge.may_warn() {
            tracing::error!("too many of the emitters' messages wait to be copied into the log; this one is lost");
        }
        return;
    }
    bridge.arrival.notify_one();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_in_patterns() {
        assert_eq!(escape("socket.io"), "socket.io");
        assert_eq!(escape("a*b[c]?\\^"), "a\\*b\\[c\\]\\?\\\\\\^");
    }
}
