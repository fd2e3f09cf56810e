//! Requests to the backend, by webhook or by stream. At most `backend.concurrency` are under way at once, of one source at
//! most `backend.per_user`; sources take turns. Each is answered within `backend.timeout`, waiting included.

use crate::backend::circuit_breaker::{CircuitBreaker, Failure, Opened, Topic};
use crate::backend::config::BackendConfig;
use crate::backend::notices::Notices;
use crate::backend::places::{Place, Places};
use crate::backend::request::{BackendRequest, EncodedRequest, Origin, RequestKind};
use crate::backend::stream::BackendStream;
use crate::backend::turns::Turns;
use crate::backend::webhook::Webhook;
use crate::backend::{BackendError, Source, Subject};
use crate::budget::MemoryBudget;
use crate::metrics::Metrics;
use crate::model::id::Id;
use crate::telemetry::{Parent, Span, SpanKind, Telemetry, shortened};
use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A request is not sent when less than this part of `backend.timeout` is left: its answer would hardly come in time, and the
/// backend would have done what its caller takes for failed.
const LEAST_PART: u32 = 10;

/// How requests reach the backend.
pub enum BackendTransport {
    /// HTTP POST, with an answer.
    Webhook(Webhook),
    /// A Redis stream, without answers.
    Stream(BackendStream),
}

/// What a reload replaces.
struct Live {
    transport: Arc<BackendTransport>,
    timeout: Duration,
}

/// Settings that can be put in force.
pub struct PreparedBackend {
    /// `None`: requests go where they went.
    webhook: Option<Webhook>,
    config: BackendConfig,
}

impl PreparedBackend {
    /// Checks changed settings of the same kind of transport. `is_same`: the webhook needs no other client.
    ///
    /// # Errors
    /// A text, when the URL or the system's certificates cannot be used.
    pub async fn new(config: &BackendConfig, max_answer: usize, is_same: bool) -> Result<Self, String> {
        let config = config.clone();
        if is_same || config.url.is_none() {
            return Ok(Self { webhook: None, config });
        }
        let made = tokio::task::spawn_blocking(move || Webhook::new(&config, max_answer).map(|made| (made, config)));
        let (webhook, config) = made.await.map_err(|error| error.to_string())??;
        Ok(Self { webhook: Some(webhook), config })
    }
}

/// The backend as the shards use it.
pub struct Backend {
    live: ArcSwap<Live>,
    places: Arc<Places>,
    turns: Mutex<Turns<oneshot::Sender<()>>>,
    breaker: Mutex<CircuitBreaker>,
    started: Instant,
    metrics: Arc<Metrics>,
    telemetry: Arc<Telemetry>,
    pub(super) notices: Notices,
}

impl Backend {
    /// A backend behind this transport. [`crate::backend::run`] must run beside it.
    pub fn new(
        transport: BackendTransport,
        config: &BackendConfig,
        metrics: Arc<Metrics>,
        memory: Arc<MemoryBudget>,
        telemetry: Arc<Telemetry>,
    ) -> Arc<Self> {
        Arc::new(Self {
            live: ArcSwap::from_pointee(Live { transport: Arc::new(transport), timeout: config.timeout }),
            places: Places::new(config, memory.clone()),
            turns: Mutex::new(Turns::new(config.concurrency, config.per_user)),
            breaker: Mutex::default(),
            started: Instant::now(),
            notices: Notices::new(config, metrics.clone(), memory),
            metrics,
            telemetry,
        })
    }

    /// Adds to the stream until dropped.
    pub(super) async fn feed_stream(&self) {
        // A reload does not replace a stream.
        let transport = self.live.load().transport.clone();
        if let BackendTransport::Stream(stream) = &*transport {
            stream.run().await;
        }
    }

    /// How long an answer may take, from the arrival of what needs it.
    pub fn timeout(&self) -> Duration {
        self.live.load().timeout
    }

    /// Puts changed settings in force. What is under way ends by those that it began with.
    pub fn apply(&self, prepared: PreparedBackend) {
        let PreparedBackend { webhook, config } = prepared;
        if webhook.is_some() {
            // What another address did says nothing about this one.
            *self.breaker.lock() = CircuitBreaker::default();
        }
        let transport = match webhook {
            Some(webhook) => Arc::new(BackendTransport::Webhook(webhook)),
            None => self.live.load().transport.clone(),
        };
        self.live.store(Arc::new(Live { transport, timeout: config.timeout }));
        self.places.allow(&config);
        self.notices.allow(&config);
        self.turns.lock().allow(config.concurrency, config.per_user);
        self.begin_turns();
    }

    /// A place for a request of about so many bytes, for as long as it waits and is under way.
    ///
    /// # Errors
    /// [`BackendError::Busy`], counted.
    pub fn take_place(&self, kind: RequestKind, source: Source, bytes: usize) -> Result<Place, BackendError> {
        let place = self.places.take(source, bytes);
        if let Err(error) = &place {
            self.metrics.backend.request(kind.label(), error.label());
        }
        place
    }

    /// Sends a request when its turn comes and reads its answer with `read`, all before `deadline`. A stream's answer is
    /// empty.
    ///
    /// # Errors
    /// When there is no usable answer.
    pub async fn call<T>(
        &self,
        place: &Place,
        deadline: Instant,
        request: &BackendRequest<'_>,
        read: impl FnOnce(&[u8]) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let topic = Topic { kind: request.kind, event: request.event };
        let parent = match &request.trace {
            Origin::Nobody => Parent::None,
            Origin::Client(event) => Parent::Of(event.as_deref()),
        };
        let mut span = self.span(topic, request.id, parent);
        let trace = span.context();
        let answer = async {
            self.check_circuit(topic, place.source())?;
            let Ok(_turn) = tokio::time::timeout_at(deadline, self.turn(place.source())).await else {
                return Err(self.timed_out());
            };
            if deadline.saturating_duration_since(Instant::now()) < self.timeout() / LEAST_PART {
                return Err(self.timed_out());
            }
            let encoded = EncodedRequest { trace, ..request.encode() };
            self.transmit(topic, place.source(), encoded, deadline).await
        };
        let result = self.measured(request.kind, answer, read).await;
        note_result(&mut span, &result);
        result
    }

    /// Whether requests go to a Redis stream.
    pub fn is_stream(&self) -> bool {
        matches!(*self.live.load().transport, BackendTransport::Stream(_))
    }

    /// Whether the backend wants notices of this kind.
    pub fn wants(&self, kind: RequestKind) -> bool {
        self.notices.wants(kind)
    }

    /// Queues a notice about a subject, at the expense of its source.
    pub fn notify(&self, source: &Source, subject: Subject, notice: &BackendRequest<'_>) {
        self.notices.push(&source.without_tenant(), subject, notice.encode());
    }

    /// How many notices wait or are being sent.
    pub fn pending_notices(&self) -> usize {
        self.notices.pending()
    }

    /// Waits until all notices are sent, at most for `timeout`; returns how many are not.
    pub async fn wait_until_notified(&self, timeout: Duration) -> usize {
        self.notices.wait_until_sent(timeout).await
    }

    /// Sends a notice, once and at once.
    pub(super) async fn send_notice(&self, source: &Source, mut notice: EncodedRequest) -> Result<(), BackendError> {
        let kind = notice.kind;
        let topic = Topic { kind, event: None };
        let mut span = self.span(topic, notice.id, Parent::None);
        notice.trace = span.context();
        let answer = async {
            self.check_circuit(topic, source)?;
            self.transmit(topic, source, notice, Instant::now() + self.timeout()).await
        };
        let result = self.measured(kind, answer, |_| Ok(())).await;
        note_result(&mut span, &result);
        result
    }

    /// The span of a request, from now until it is answered.
    fn span(&self, topic: Topic<'_>, id: Id, parent: Parent<'_>) -> Span {
        let mut span = self.telemetry.start("webhook", SpanKind::Client, parent);
        span.set("roomcast.request", || topic.kind.label());
        span.set("roomcast.request_id", || id.to_string());
        span.set("roomcast.event", || shortened(topic.event.unwrap_or_default()));
        span
    }

    /// Completes when the circuit is closed, or when something may try whether the backend is back.
    pub(super) async fn circuit_rested(&self) {
        loop {
            let next_trial = self.breaker.lock().next_trial();
            match next_trial.filter(|at| *at > self.now_ms()) {
                Some(at) => tokio::time::sleep_until(self.started + Duration::from_millis(at)).await,
                None => return,
            }
        }
    }

    async fn measured<T>(
        &self,
        kind: RequestKind,
        answer: impl Future<Output = Result<Bytes, BackendError>>,
        read: impl FnOnce(&[u8]) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let (started, kind) = (Instant::now(), kind.label());
        let result = answer.await.and_then(|answer| read(&answer));
        self.metrics.backend.request(kind, result.as_ref().err().map_or("ok", BackendError::label));
        self.metrics.backend.took(kind, started.elapsed());
        if let Err(error) = &result
            && !matches!(error, BackendError::Refused(_) | BackendError::CircuitOpen | BackendError::StreamFull(_))
        {
            tracing::warn!(?error, kind, "a request to the backend failed");
        }
        result
    }

    /// Waits until a request of this source may begin.
    async fn turn(&self, source: &Source) -> Turn<'_> {
        let (begin, begun) = oneshot::channel();
        let number = self.turns.lock().wait(source, begin);
        let turn = Turn { backend: self, source: source.clone(), number };
        self.begin_turns();
        // The sender stays in `turns` until the turn comes or `turn` is dropped.
        let _ = begun.await;
        turn
    }

    fn begin_turns(&self) {
        let mut turns = self.turns.lock();
        while let Some(begin) = turns.next() {
            // Where nobody waits any more, the turn that is dropped gives the place back.
            let _ = begin.send(());
        }
    }

    fn check_circuit(&self, topic: Topic<'_>, source: &Source) -> Result<(), BackendError> {
        let now_ms = self.now_ms();
        if self.breaker.lock().allows(topic, source, now_ms) { Ok(()) } else { Err(BackendError::CircuitOpen) }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn transmit(
        &self,
        topic: Topic<'_>,
        source: &Source,
        request: EncodedRequest,
        deadline: Instant,
    ) -> Result<Bytes, BackendError> {
        let transport = self.live.load().transport.clone();
        let transmitted = async {
            match &*transport {
                BackendTransport::Webhook(webhook) => webhook.post(request).await,
                BackendTransport::Stream(stream) => stream.add(request, deadline).await.map(|()| Bytes::new()),
            }
        };
        let answer = match tokio::time::timeout_at(deadline, transmitted).await {
            Ok(answer) => answer,
            Err(_) => Err(self.timed_out()),
        };
        self.note_health(topic, source, &answer);
        answer
    }

    fn note_health(&self, topic: Topic<'_>, source: &Source, answer: &Result<Bytes, BackendError>) {
        let failure = match answer {
            Err(BackendError::Unreachable(_)) => Failure::Unreachable,
            Err(error) if error.counts_as_failure() => Failure::Unanswered,
            _ => return self.breaker.lock().record_success(topic, source),
        };
        let now_ms = self.now_ms();
        let opened = self.breaker.lock().record_failure(failure, topic, source, now_ms);
        let Topic { kind, event } = topic;
        match opened {
            Some(Opened::All) => {
                tracing::warn!("the backend cannot be reached; requests to it fail at once for a second");
            }
            Some(Opened::Topic) => tracing::warn!(
                ?kind,
                event,
                "the backend does not answer requests of one kind; those fail at once for a second"
            ),
            None => {}
        }
    }

    fn timed_out(&self) -> BackendError {
        match &*self.live.load().transport {
            BackendTransport::Stream(stream) if !stream.is_connected() => {
                BackendError::Unreachable("no connection to `backend.stream`".into())
            }
            _ => BackendError::Timeout(self.timeout()),
        }
    }
}

fn note_result<T>(span: &mut Span, result: &Result<T, BackendError>) {
    if let Err(error) = result {
        span.fail(error.label());
    }
}

/// A request that waits for its turn or has it, until dropped.
struct Turn<'a> {
    backend: &'a Backend,
    source: Source,
    number: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.backend.turns.lock().end(&self.source, self.number);
        self.backend.begin_turns();
    }
}
