//! Volatile events: published on `{prefix}:volatile`, received by every node, never stored
//! (docs/decisions/13-one-redis-connection-per-job.md).

use crate::log::redis::RedisLog;
use crate::log::redis::entry;
use crate::model::args::Args;
use crate::model::close::DropReason;
use crate::model::draft::{Draft, DraftError, DraftLimits, Source};
use crate::model::names::{Namespace, Room};
use crate::model::offset::Position;
use crate::protocol::socketio_encode::check_draft;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes of messages that may wait for the tail. Above it messages are dropped and counted, as volatile events may be.
const MAX_WAITING_BYTES: usize = 16 << 20;
/// How often the connection is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A draft as compact JSON. Unknown fields are ignored: they are of a newer release.
#[derive(Serialize, Deserialize)]
struct Message<'a> {
    n: Namespace,
    r: Vec<Room>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    x: Vec<Room>,
    e: Arc<str>,
    #[serde(borrow)]
    a: &'a RawValue,
    t: u64,
    s: std::borrow::Cow<'a, str>,
    /// The entry of the control line that clients get before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p: Option<String>,
    /// `traceparent` and `tracestate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    c: Option<(String, Option<Arc<str>>)>,
    /// Whoever receives it later, in milliseconds of Redis' clock, drops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    u: Option<u64>,
}

/// A volatile event that was received.
#[derive(Debug, PartialEq)]
pub(super) struct Volatile {
    pub draft: Draft,
    /// When a node accepted it, Unix microseconds.
    pub accepted_us: u64,
    /// Clients get what the control line has up to here before it.
    pub after: Position,
    /// Milliseconds of Redis' clock after which it is not delivered.
    pub until_ms: Option<u64>,
}

/// Encodes a draft that clients get after the entry at `after`, and not if Redis publishes it after `until_ms`.
pub(super) fn encode(draft: &Draft, accepted_us: u64, after: Position, until_ms: Option<u64>) -> String {
    let message = Message {
        n: draft.namespace.clone(),
        r: draft.rooms.clone(),
        x: draft.except.clone(),
        e: draft.event.clone(),
        a: serde_json::from_str(draft.args.as_array()).expect("arguments are JSON text"),
        t: accepted_us,
        s: draft.source.label().into(),
        p: (after != Position::default()).then(|| after.to_string()),
        c: draft.trace.as_ref().map(|trace| (trace.to_string(), trace.state.clone())),
        u: until_ms,
    };
    serde_json::to_string(&message).expect("strings and raw JSON are always JSON")
}

/// Decodes a message.
pub(super) fn decode(message: &[u8], limits: &DraftLimits) -> Result<Volatile, DraftError> {
    let bad = |error: &dyn std::fmt::Display| DraftError::Json(format!("volatile message: {error}"));
    let message: Message<'_> = serde_json::from_slice(message).map_err(|error| bad(&error))?;
    let draft = Draft {
        namespace: message.n,
        rooms: message.r,
        except: message.x,
        event: message.e,
        args: Args::list(message.a.get()).map_err(|error| bad(&error))?,
        volatile: true,
        id: None,
        source: entry::source_of(&message.s),
        trace: message
            .c
            .and_then(|(parent, state)| entry::trace_of(parent.as_bytes(), state.as_ref().map(|s| s.as_bytes()))),
    };
    check_draft(&draft, limits)?;
    let after = message.p.as_deref().and_then(Position::parse).unwrap_or_default();
    Ok(Volatile { draft, accepted_us: message.t, after, until_ms: message.u })
}

/// A message, and when it was received: milliseconds of Redis' clock, if that is known.
type Received = (Option<u64>, Vec<u8>);

/// Messages that wait for the tail.
#[derive(Default)]
pub(super) struct PubSubBuffer {
    messages: Mutex<Messages>,
    wake: Notify,
}

#[derive(Default)]
struct Messages {
    queue: VecDeque<Received>,
    bytes: usize,
}

impl PubSubBuffer {
    /// Takes a message; `false` where there is no room for it.
    fn push(&self, received_ms: Option<u64>, message: Vec<u8>) -> bool {
        let mut messages = self.messages.lock();
        if messages.bytes + message.len() > MAX_WAITING_BYTES {
            return false;
        }
        messages.bytes += message.len();
        messages.queue.push_back((received_ms, message));
        drop(messages);
        self.wake.notify_one();
        true
    }

    /// Completes when there may be something to take.
    pub(super) async fn arrival(&self) {
        self.wake.notified().await;
    }

    /// All messages that wait.
    fn take(&self) -> VecDeque<Received> {
        std::mem::take(&mut *self.messages.lock()).queue
    }
}

/// Receives until dropped. Messages that are published while the connection is broken are lost.
pub(super) async fn run(log: &Arc<RedisLog>) {
    let mut reconnect = Reconnect::among(log.lines.repeats.clone());
    loop {
        let Err(error) = subscribe(log, &mut reconnect).await;
        reconnect.wait("the subscription to volatile events", &log.connector, &error).await;
    }
}

async fn subscribe(log: &Arc<RedisLog>, reconnect: &mut Reconnect) -> Result<Infallible, RedisError> {
    let on_push = {
        let log = log.clone();
        move |push: PushInfo| -> Result<(), Infallible> {
            receive(&log, push);
            Ok(())
        }
    };
    let mut connection = RedisConnection::open_subscriber(&log.connector, log.timeout, on_push).await?;
    connection.subscribe(&log.keys.volatile).await?;
    reconnect.reset();
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        connection.check().await?;
    }
}

fn receive(log: &RedisLog, push: PushInfo) {
    if push.kind != PushKind::Message {
        return;
    }
    if let Some(Value::BulkString(message)) = push.data.into_iter().nth(1)
        && !log.pubsub_buffer.push(log.clock_offset.redis_now_ms(), message)
    {
        log.metrics.events.dropped(DropReason::VolatileNotWritable, 1);
    }
}

/// Takes and decodes all messages that wait. What cannot be decoded is counted and dropped.
pub(super) fn take(log: &RedisLog) -> Vec<Volatile> {
    let decode_one = |(received_ms, message): Received| match decode(&message, &log.limits) {
        // Its publisher has an error by now.
        Ok(decoded) if received_ms.zip(decoded.until_ms).is_some_and(|(received, until)| received > until) => {
            log.metrics.events.dropped(DropReason::Late, 1);
            None
        }
        Ok(decoded) => Some(decoded),
        Err(error) => {
            tracing::warn!(%error, channel = log.keys.volatile, "a volatile event that cannot be read is dropped");
            log.metrics.events.dropped(DropReason::Malformed, 1);
            log.metrics.events.refused(Source::Stream, error.code());
            None
        }
    };
    log.pubsub_buffer.take().into_iter().filter_map(decode_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DraftLimits = DraftLimits { max_event: 1000, room_name_bytes: 50, rooms: 3 };

    #[test]
    fn encoded_drafts_are_decoded() {
        let mut draft = Draft::new("r\"", "é", Args::list("[1, {\"a\":2.50}]").unwrap(), Source::Client);
        draft.volatile = true;
        for after in [Position::default(), Position { ms: 5, seq: 1 }] {
            let until_ms = (after.ms > 0).then_some(9);
            let message = encode(&draft, 7, after, until_ms);
            let decoded = Volatile { draft: draft.clone(), accepted_us: 7, after, until_ms };
            assert_eq!(decode(message.as_bytes(), &LIMITS), Ok(decoded));
            draft.except = vec!["x".into()];
            draft.namespace = "/chat".into();
        }
    }

    #[test]
    fn garbage_is_an_error() {
        for bad in ["", "{}", "[]", "{\"n\":\"/\",\"r\":[\"a\"],\"e\":\"disconnect\",\"a\":[],\"t\":1,\"s\":\"http\"}"]
        {
            assert!(decode(bad.as_bytes(), &LIMITS).is_err());
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let message = format!("{{\"n\":\"/\",\"r\":[\"a\"],\"e\":\"e\",\"a\":{deep},\"t\":1,\"s\":\"http\"}}");
        assert!(decode(message.as_bytes(), &LIMITS).is_err());
    }

    #[test]
    fn waiting_messages_are_bounded() {
        let buffer = PubSubBuffer::default();
        let pushed = (0..100).filter(|_| buffer.push(None, vec![0; 1 << 20])).count();
        assert_eq!(pushed, 16);
        assert_eq!(buffer.take().len(), 16);
        assert!(buffer.push(None, vec![0; 1 << 20]));
    }
}
