//! Response bodies, and the reading of request bodies within limits.

use crate::budget::{Holding, Level, MemoryBudget};
use crate::http::stream::TextStream;
use crate::transport::sse::SseBody;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Time for a request body. A slow client occupies one connection no longer than this.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The same while the node is over `limits.memory`: half bodies would stay otherwise.
pub(super) const HASTE: Duration = Duration::from_secs(1);

/// The body of a response.
pub enum Answer {
    /// Bytes at once.
    Full(Full<Bytes>),
    /// A stream of events.
    Sse(SseBody),
    /// A stream for an operator.
    Text(TextStream),
}

impl Answer {
    /// Bytes at once.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Full::new(bytes.into()))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Full(full) => Pin::new(full).poll_frame(context),
            Self::Sse(sse) => Pin::new(sse).poll_frame(context),
            Self::Text(text) => Pin::new(text).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(full) => full.is_end_stream(),
            Self::Sse(sse) => sse.is_end_stream(),
            Self::Text(text) => text.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Sse(sse) => sse.size_hint(),
            Self::Text(text) => text.size_hint(),
        }
    }
}

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// Over the limit.
    TooBig,
    /// Not complete in time.
    Slow,
    /// The client disconnected, or sent invalid chunks.
    Broken,
}

impl BodyError {
    /// The `code` of the error body, and the `reason` of `roomcast_events_refused_total`.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooBig => "body_too_big",
            Self::Slow => "body_timeout",
            Self::Broken => "bad_body",
        }
    }
}

/// Whether a request's body has been read to its end. It travels with the request.
#[derive(Clone)]
pub struct BodyState {
    read: Arc<AtomicBool>,
    memory: Arc<MemoryBudget>,
}

impl BodyState {
    /// For a request; `None` if it has no body.
    pub fn attach(request: &mut Request<Incoming>, memory: &Arc<MemoryBudget>) -> Option<Self> {
        if request.body().is_end_stream() {
            return None;
        }
        let state = Self { read: Arc::default(), memory: memory.clone() };
        request.extensions_mut().insert(state.clone());
        Some(state)
    }

    /// Whether the client may still be sending.
    pub fn is_unread(&self) -> bool {
        !self.read.load(Ordering::Relaxed)
    }
}

/// Reads a whole body of at most `max` bytes. A longer one is refused by its announced length, if there is one.
///
/// # Errors
/// See [`BodyError`].
pub async fn read(request: Request<Incoming>, max: usize) -> Result<Bytes, BodyError> {
    let (parts, body) = request.into_parts();
    if body.size_hint().lower() > max as u64 {
        return Err(BodyError::TooBig);
    }
    let Some(state) = parts.extensions.get::<BodyState>() else {
        // It has no body.
        return Ok(Bytes::new());
    };
    let reading = collect(body, max, &state.memory);
    let bytes = tokio::time::timeout(READ_TIMEOUT, reading).await.unwrap_or(Err(BodyError::Slow))?;
    state.read.store(true, Ordering::Relaxed);
    Ok(bytes)
}

async fn collect(mut body: Incoming, max: usize, memory: &Arc<MemoryBudget>) -> Result<Bytes, BodyError> {
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    let mut held = memory.hold(Holding::Bodies, 0);
    let began = Instant::now();
    loop {
        held.resize(all.len() + first.as_ref().map_or(0, Bytes::len));
        let next = tokio::time::timeout(HASTE, body.frame()).await;
        if began.elapsed() >= HASTE && memory.level() == Level::Over {
            return Err(BodyError::Slow);
        }
        let Ok(next) = next else { continue };
        let Some(frame) = next else { break };
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if all.len() + first.as_ref().map_or(0, Bytes::len) + data.len() > max {
            return Err(BodyError::TooBig);
        }
        // Most bodies arrive in one piece, which needs no copy.
        match first.take() {
            None if all.is_empty() => first = Some(data),
            None => all.extend_from_slice(&data),
            Some(piece) => {
                all.extend_from_slice(&piece);
                all.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}
