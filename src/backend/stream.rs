//! The backend's inbox: a Redis stream to which requests are added instead of posting them.
//!
//! Callers on any thread leave their entry and wait; one task adds all that waits as one pipeline. What becomes of an
//! entry is never in doubt for long: Redis itself does not add it after its caller was told that it failed. An entry whose
//! answer was lost is added again under the same id, for as long as its caller waits.

use crate::backend::BackendError;
use crate::backend::call::Request;
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

/// How often the connection is asked whether it still leads to the right place.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A pipeline takes no further entry once it has this much.
const PIPELINE_BYTES: usize = 1 << 20;
/// Time that Redis' answer has to arrive: later than that before the caller's deadline nothing is added.
const ANSWER_TENTHS: u32 = 1;

/// KEYS the stream; ARGV the deadline in ms of Redis' clock, the most entries, then the fields. The entry's id, nothing
/// where it is too late, 0 where the stream is full.
const ADD: &str = "local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) > tonumber(ARGV[1]) then return false end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
return redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))";

/// The stream that a backend reads.
pub struct BackendStream {
    connector: Connector,
    stream: String,
    /// Entries that it takes.
    max: u64,
    /// Of each call to Redis.
    timeout: Duration,
    waiting: Mutex<VecDeque<Entry>>,
    arrival: Notify,
    up: AtomicBool,
    /// Whether the last entry met a full stream; said once.
    full: AtomicBool,
}

/// A request that waits to be in the stream.
struct Entry {
    request: Request,
    /// Redis adds it before this moment or not at all.
    before: Instant,
    added: oneshot::Sender<Result<(), BackendError>>,
}

impl Entry {
    /// Whether it may still be added, and somebody waits for it.
    fn is_wanted(&self) -> bool {
        !self.added.is_closed() && self.before > Instant::now()
    }
}

impl BackendStream {
    /// The stream of exactly this name, which takes so many entries. Connects in `run`.
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
            up: AtomicBool::new(false),
            full: AtomicBool::new(false),
        })
    }

    /// How many entries are in the stream and how many it takes, asked on a connection of its own.
    ///
    /// # Errors
    /// In words, what keeps requests from being added.
    pub async fn entries(&self) -> Result<(u64, u64), String> {
        let told = |error: RedisError| format!("{}: {error}", self.connector.describe());
        let mut connection = RedisConnection::open(&self.connector, self.timeout).await.map_err(told)?;
        match connection.call(redis::cmd("XLEN").arg(&self.stream)).await.map_err(told)? {
            Value::Int(entries) => Ok((u64::try_from(entries).unwrap_or(0), self.max)),
            _ => Err(told(RedisError::UnexpectedReply("XLEN"))),
        }
    }

    /// Whether there is a connection.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Adds a request, and waits until it is in the stream. Dropped at the deadline, it is not added later.
    pub(super) async fn add(&self, request: Request, deadline: Instant) -> Result<(), BackendError> {
        let (added, answer) = oneshot::channel();
        let left = deadline.saturating_duration_since(Instant::now());
        let before = deadline - left / 10 * ANSWER_TENTHS;
        {
            let mut waiting = self.waiting();
            waiting.retain(Entry::is_wanted);
            waiting.push_back(Entry { request, before, added });
        }
        self.arrival.notify_one();
        match answer.await {
            Ok(answer) => answer,
            // Thrown away because its time was over; who waits sees that by itself.
            Err(_) => std::future::pending().await,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.waiting.lock()
    }

    /// Adds what waits until dropped; reconnects by itself.
    pub(super) async fn run(&self) {
        let mut reconnect = Reconnect::default();
        loop {
            let Err(error) = self.connected(&mut reconnect).await;
            self.up.store(false, Ordering::Relaxed);
            reconnect.wait("the backend's inbox", &self.connector, &error).await;
        }
    }

    async fn connected(&self, reconnect: &mut Reconnect) -> Result<Infallible, RedisError> {
        let mut connection = RedisConnection::open(&self.connector, self.timeout).await?;
        loop {
            connection.check().await?;
            let clock = RedisClock::read(&mut connection).await?;
            reconnect.reset();
            self.up.store(true, Ordering::Relaxed);
            let checked_again = Instant::now() + CHECK_EVERY;
            while let Ok(entries) = tokio::time::timeout_at(checked_again, self.next()).await {
                self.send(&mut connection, &clock, entries).await?;
            }
        }
    }

    /// The next entries for one pipeline.
    async fn next(&self) -> Vec<Entry> {
        loop {
            let entries = self.take();
            if !entries.is_empty() {
                return entries;
            }
            self.arrival.notified().await;
        }
    }

    fn take(&self) -> Vec<Entry> {
        let mut waiting = self.waiting();
        waiting.retain(Entry::is_wanted);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while bytes < PIPELINE_BYTES {
            let Some(entry) = waiting.pop_front() else { break };
            bytes += entry.request.body.len();
            entries.push(entry);
        }
        entries
    }

    /// Back to the front, in their order: the next connection has them.
    fn put_back(&self, entries: Vec<Entry>) {
        let mut waiting = self.waiting();
        for entry in entries.into_iter().rev() {
            waiting.push_front(entry);
        }
    }

    async fn send(
        &self,
        connection: &mut RedisConnection,
        clock: &RedisClock,
        entries: Vec<Entry>,
    ) -> Result<(), RedisError> {
        let mut pipeline = Pipeline::with_capacity(entries.len());
        for entry in &entries {
            let Request { kind, id, body } = &entry.request;
            pipeline.cmd("EVAL").arg(ADD).arg(1).arg(&self.stream).arg(clock.redis_ms(entry.before)).arg(self.max);
            pipeline.arg("id").arg(id.to_string()).arg("type").arg(kind).arg("body").arg(body);
        }
        let answers = match connection.pipeline_raw(&pipeline).await {
            Ok(answers) => answers,
            Err(error) => {
                self.put_back(entries);
                return Err(error);
            }
        };
        let (mut displaced, mut problem) = (Vec::new(), None);
        for (entry, answer) in entries.into_iter().zip(answers) {
            match self.read(answer) {
                // Nobody may be waiting any more.
                Ok(answer) => drop(entry.added.send(answer)),
                Err(error) => {
                    displaced.push(entry);
                    problem.get_or_insert(error);
                }
            }
        }
        self.put_back(displaced);
        problem.map_or(Ok(()), Err)
    }

    /// What Redis said of one entry; an error where another connection may take it.
    fn read(&self, answer: Value) -> Result<Result<(), BackendError>, RedisError> {
        let answer = match answer.extract_error().map_err(RedisError::from) {
            Ok(Value::Nil) => Err(BackendError::Unreachable("the inbox was reached too late".into())),
            Ok(Value::Int(_)) => Err(BackendError::Full(self.max)),
            Ok(_) => Ok(()),
            Err(RedisError::Reply(refused)) => Err(BackendError::Unreachable(refused)),
            Err(error) => return Err(error),
        };
        if let Ok(()) | Err(BackendError::Full(_)) = answer {
            self.note_full(answer.is_err());
        }
        Ok(answer)
    }

    fn note_full(&self, full: bool) {
        if self.full.swap(full, Ordering::Relaxed) == full {
            return;
        }
        match full {
            true => tracing::warn!(
                stream = self.stream,
                entries = self.max,
                "the backend's inbox is full and takes nothing more; whoever reads it must delete what is done (XDEL)"
            ),
            false => tracing::info!(stream = self.stream, "the backend's inbox has room again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Id;
    use crate::model::secret::Secret;

    fn inbox() -> BackendStream {
        let redis = RedisConfig { url: Some(Secret::new("redis://127.0.0.1")), ..RedisConfig::default() };
        BackendStream::new(&redis, "inbox", 3).unwrap()
    }

    fn entry(number: usize, bytes: usize) -> (Entry, oneshot::Receiver<Result<(), BackendError>>) {
        let (added, answer) = oneshot::channel();
        let body = format!("{number}{}", "x".repeat(bytes));
        let request = Request { kind: "event", id: Id::random(), body };
        (Entry { request, before: Instant::now() + Duration::from_secs(60), added }, answer)
    }

    #[test]
    fn entries_keep_their_order_and_those_of_nobody_are_forgotten() {
        let inbox = inbox();
        let (mut entries, mut answers): (Vec<_>, Vec<_>) = (0..4).map(|number| entry(number, 0)).unzip();
        inbox.waiting().push_back(entries.pop().unwrap());
        inbox.put_back(entries);
        answers.remove(1);
        let (mut late, _answer) = entry(9, 0);
        late.before = Instant::now();
        inbox.waiting().push_front(late);
        let bodies: Vec<_> = inbox.take().into_iter().map(|entry| entry.request.body).collect();
        assert_eq!(bodies, ["0", "2", "3"]);
        assert!(inbox.take().is_empty());
    }

    #[test]
    fn a_pipeline_is_bounded() {
        let inbox = inbox();
        let (entries, _answers): (Vec<_>, Vec<_>) = (0..3).map(|number| entry(number, PIPELINE_BYTES)).unzip();
        inbox.put_back(entries);
        assert_eq!((inbox.take().len(), inbox.take().len(), inbox.take().len(), inbox.take().len()), (1, 1, 1, 0));
    }

    #[test]
    fn answers_of_redis_are_told_apart() {
        let read = |answer: &str| inbox().read(redis::parse_redis_value(answer.as_bytes()).unwrap());
        assert_eq!(read("$3\r\n1-1\r\n").unwrap(), Ok(()));
        assert_eq!(read(":0\r\n").unwrap(), Err(BackendError::Full(3)));
        for refused in ["$-1\r\n", "-NOPERM no\r\n", "-OOM no\r\n", "-WRONGTYPE no\r\n"] {
            assert!(matches!(read(refused), Ok(Err(BackendError::Unreachable(_)))), "{refused}");
        }
        for elsewhere in ["-MOVED 1 h:1\r\n", "-READONLY x\r\n", "-LOADING x\r\n"] {
            assert!(matches!(read(elsewhere), Err(RedisError::NotServing(_))), "{elsewhere}");
        }
    }
}
