//! `backend.stream`: a Redis stream to which requests are added instead of posting them.
//!
//! Callers on any thread queue their request and wait; one task adds all that wait in one pipeline. Redis itself compares
//! its clock with the caller's deadline, so that nothing is added after its caller got an error. If Redis' reply is lost,
//! the request is added again under the same id, as long as its caller waits.

use crate::backend::BackendError;
use crate::backend::request::EncodedRequest;
use crate::redis::clock::RedisClock;
use crate::redis::config::RedisConfig;
use crate::redis::connection::{Connector, RedisConnection};
use crate::redis::error::RedisError;
use crate::redis::reconnect::Reconnect;
use crate::redis::url::RedisUrlError;
use parking_lot::{Mutex, MutexGuard};
use redis::{Pipeline, Value};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// How often the connection is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A pipeline takes no further request once it has this many bytes.
const PIPELINE_BYTES: usize = 1 << 20;
/// Tenths of the caller's time that are left for Redis' reply: nothing is added later than that before the deadline.
const REPLY_TENTHS: u32 = 1;

/// KEYS: the stream. ARGV: deadline in ms of Redis' clock, maximum length of the stream, then the fields. Returns the
/// entry's id; nil after the deadline; 0 when the stream is full.
const ADD: &str = "local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) > tonumber(ARGV[1]) then return false end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
return redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))";

/// The stream, and the requests that wait to be added.
pub struct BackendStream {
    connector: Connector,
    stream: String,
    /// `backend.stream_limit`.
    max: u64,
    /// Of one call to Redis.
    timeout: Duration,
    waiting: Mutex<VecDeque<QueuedRequest>>,
    arrival: Notify,
    is_connected: AtomicBool,
    /// Whether the last request found the stream full, which is logged once.
    is_full: AtomicBool,
}

struct QueuedRequest {
    request: EncodedRequest,
    /// Redis adds it before this moment or not at all.
    deadline: Instant,
    reply: oneshot::Sender<Result<(), BackendError>>,
}

impl QueuedRequest {
    /// Whether there is time left and the caller still waits.
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed() && self.deadline > Instant::now()
    }
}

impl BackendStream {
    /// The stream of exactly this name, with at most `max` entries. Connects in `run`.
    ///
    /// # Errors
    /// When the URL is missing or not served.
    pub fn new(redis: &RedisConfig, stream: &str, max: u64) -> Result<Self, RedisUrlError> {
        let log = Connector::new(redis)?;
        Ok(Self {
            connector: log.for_key(stream).unwrap_or(log),
            stream: stream.to_owned(),
            max,
            timeout: redis.timeout,
            waiting: Mutex::default(),
            arrival: Notify::new(),
            is_connected: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
        })
    }

    /// How many entries the stream has and may have, asked on a connection of its own.
    ///
    /// # Errors
    /// A text that says why Redis did not answer.
    pub async fn entries(&self) -> Result<(u64, u64), String> {
        let explain = |error: RedisError| format!("{}: {error}", self.connector.describe());
        let mut connection = RedisConnection::open(&self.connector, self.timeout).await.map_err(explain)?;
        match connection.call(redis::cmd("XLEN").arg(&self.stream)).await.map_err(explain)? {
            Value::Int(entries) => Ok((u64::try_from(entries).unwrap_or(0), self.max)),
            _ => Err(explain(RedisError::UnexpectedReply("XLEN"))),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// Adds a request and waits until it is in the stream. If the caller drops this at the deadline, the request is not
    /// added later.
    pub(super) async fn add(&self, request: EncodedRequest, deadline: Instant) -> Result<(), BackendError> {
        let (reply, answer) = oneshot::channel();
        let left = deadline.saturating_duration_since(Instant::now());
        let deadline = deadline - left / 10 * REPLY_TENTHS;
        {
            let mut waiting = self.waiting();
            waiting.retain(QueuedRequest::is_wanted);
            waiting.push_back(QueuedRequest { request, deadline, reply });
        }
        self.arrival.notify_one();
        match answer.await {
            Ok(answer) => answer,
            // It was dropped because its time was over; the caller has the same deadline.
            Err(_) => std::future::pending().await,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<QueuedRequest>> {
        self.waiting.lock()
    }

    /// Adds what waits until dropped; reconnects by itself.
    pub(super) async fn run(&self) {
        let mut reconnect = Reconnect::default();
        loop {
            let Err(error) = self.connected(&mut reconnect).await;
            self.is_connected.store(false, Ordering::Relaxed);
            reconnect.wait("adding to `backend.stream`", &self.connector, &error).await;
        }
    }

    async fn connected(&self, reconnect: &mut Reconnect) -> Result<Infallible, RedisError> {
        let mut connection = RedisConnection::open(&self.connector, self.timeout).await?;
        loop {
            connection.check().await?;
            let clock = RedisClock::read(&mut connection).await?;
            reconnect.reset();
            self.is_connected.store(true, Ordering::Relaxed);
            let next_check = Instant::now() + CHECK_INTERVAL;
            while let Ok(entries) = tokio::time::timeout_at(next_check, self.next()).await {
                self.send(&mut connection, &clock, entries).await?;
            }
        }
    }

    /// The next requests for one pipeline.
    async fn next(&self) -> Vec<QueuedRequest> {
        loop {
            let entries = self.take();
            if !entries.is_empty() {
                return entries;
            }
            self.arrival.notified().await;
        }
    }

    fn take(&self) -> Vec<QueuedRequest> {
        let mut waiting = self.waiting();
        waiting.retain(QueuedRequest::is_wanted);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while bytes < PIPELINE_BYTES {
            let Some(entry) = waiting.pop_front() else { break };
            bytes += entry.request.body.len();
            entries.push(entry);
        }
        entries
    }

    /// Puts requests back to the front, in their order, for the next connection.
    fn put_back(&self, requests: Vec<QueuedRequest>) {
        let mut waiting = self.waiting();
        for request in requests.into_iter().rev() {
            waiting.push_front(request);
        }
    }

    async fn send(
        &self,
        connection: &mut RedisConnection,
        clock: &RedisClock,
        requests: Vec<QueuedRequest>,
    ) -> Result<(), RedisError> {
        let mut pipeline = Pipeline::with_capacity(requests.len());
        for queued in &requests {
            let EncodedRequest { kind, id, body, trace } = &queued.request;
            pipeline.cmd("EVAL").arg(ADD).arg(1).arg(&self.stream).arg(clock.redis_ms(queued.deadline)).arg(self.max);
            pipeline.arg("id").arg(id.to_string()).arg("type").arg(kind.label()).arg("body").arg(&body[..]);
            if let Some(trace) = trace {
                pipeline.arg("traceparent").arg(trace.to_string());
            }
        }
        let answers = match connection.pipeline_raw(&pipeline).await {
            Ok(answers) => answers,
            Err(error) => {
                self.put_back(requests);
                return Err(error);
            }
        };
        let (mut retry, mut last_error) = (Vec::new(), None);
        for (request, answer) in requests.into_iter().zip(answers) {
            match self.read(answer) {
                // Nobody may be waiting any more.
                Ok(answer) => drop(request.reply.send(answer)),
                Err(error) => {
                    retry.push(request);
                    last_error.get_or_insert(error);
                }
            }
        }
        self.put_back(retry);
        last_error.map_or(Ok(()), Err)
    }

    /// Reads the reply to one request; an error means that another connection may add it.
    fn read(&self, answer: Value) -> Result<Result<(), BackendError>, RedisError> {
        let answer = match answer.extract_error().map_err(RedisError::from) {
            Ok(Value::Nil) => Err(BackendError::Unreachable("Redis was reached too late".into())),
            Ok(Value::Int(_)) => Err(BackendError::StreamFull(self.max)),
            Ok(_) => Ok(()),
            Err(RedisError::Reply(refused)) => Err(BackendError::Unreachable(refused)),
            Err(error) => return Err(error),
        };
        if let Ok(()) | Err(BackendError::StreamFull(_)) = answer {
            self.note_fullness(answer.is_err());
        }
        Ok(answer)
    }

    fn note_fullness(&self, full: bool) {
        if self.is_full.swap(full, Ordering::Relaxed) == full {
            return;
        }
        match full {
            true => tracing::warn!(
                stream = self.stream,
                entries = self.max,
                "`backend.stream` is full and requests are refused; its reader must delete entries that are done (XDEL)"
            ),
            false => tracing::info!(stream = self.stream, "`backend.stream` has room again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::request::RequestKind;
    use crate::model::id::Id;
    use crate::model::secret::Secret;

    fn stream() -> BackendStream {
        let redis = RedisConfig { url: Some(Secret::new("redis://127.0.0.1")), ..RedisConfig::default() };
        BackendStream::new(&redis, "inbox", 3).unwrap()
    }

    fn entry(number: usize, bytes: usize) -> (QueuedRequest, oneshot::Receiver<Result<(), BackendError>>) {
        let (reply, answer) = oneshot::channel();
        let body = format!("{number}{}", "x".repeat(bytes));
        let request = EncodedRequest { kind: RequestKind::Event, id: Id::random(), body: body.into(), trace: None };
        (QueuedRequest { request, deadline: Instant::now() + Duration::from_secs(60), reply }, answer)
    }

    #[test]
    fn requests_keep_their_order_and_abandoned_ones_are_dropped() {
        let stream = stream();
        let (mut entries, mut answers): (Vec<_>, Vec<_>) = (0..4).map(|number| entry(number, 0)).unzip();
        stream.waiting().push_back(entries.pop().unwrap());
        stream.put_back(entries);
        answers.remove(1);
        let (mut late, _answer) = entry(9, 0);
        late.deadline = Instant::now();
        stream.waiting().push_front(late);
        let bodies: Vec<_> = stream.take().into_iter().map(|entry| entry.request.body).collect();
        assert_eq!(bodies, ["0", "2", "3"]);
        assert!(stream.take().is_empty());
    }

    #[test]
    fn a_pipeline_is_bounded() {
        let stream = stream();
        let (entries, _answers): (Vec<_>, Vec<_>) = (0..3).map(|number| entry(number, PIPELINE_BYTES)).unzip();
        stream.put_back(entries);
        assert_eq!((stream.take().len(), stream.take().len(), stream.take().len(), stream.take().len()), (1, 1, 1, 0));
    }

    #[test]
    fn replies_of_redis_are_distinguished() {
        let read = |answer: &str| stream().read(redis::parse_redis_value(answer.as_bytes()).unwrap());
        assert_eq!(read("$3\r\n1-1\r\n").unwrap(), Ok(()));
        assert_eq!(read(":0\r\n").unwrap(), Err(BackendError::StreamFull(3)));
        for refused in ["$-1\r\n", "-NOPERM no\r\n", "-OOM no\r\n", "-WRONGTYPE no\r\n"] {
            assert!(matches!(read(refused), Ok(Err(BackendError::Unreachable(_)))), "{refused}");
        }
        for elsewhere in ["-MOVED 1 h:1\r\n", "-READONLY x\r\n", "-LOADING x\r\n"] {
            assert!(matches!(read(elsewhere), Err(RedisError::NotServing(_))), "{elsewhere}");
        }
    }
}
