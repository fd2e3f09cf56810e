//! What waits to be written to one connection (sans-IO). An idle outbox holds no heap memory.

use crate::model::event::{Delivery, Event, Format};
use crate::model::offset::Offset;
use crate::model::place;
use crate::model::place::Place;
use crate::protocol::socketio_encode::Encoded;
use bytes::Bytes;
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// An event as one shard holds it: its counter is not shared with other shards, between whose cores it would go to and fro.
pub struct LocalDelivery(Arc<Delivery>);

impl LocalDelivery {
    /// For the outboxes of one shard.
    pub fn new(delivery: Arc<Delivery>) -> Arc<Self> {
        Arc::new(Self(delivery))
    }
}

impl Deref for LocalDelivery {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        &self.0
    }
}

/// An event for clients that are at the same place of a log with partitions once they have it. The place is that of the
/// moment of the delivery, so it cannot be found out when the event is encoded.
pub struct PlacedDelivery {
    /// The event.
    pub event: Arc<Event>,
    /// The text of the place.
    pub place: Box<str>,
    encoded: [OnceLock<Bytes>; 5],
}

/// What is before the offset of a `/ws` event.
const OFFSET: &[u8] = b"\"offset\":\"";

/// One thing to write.
#[derive(Clone)]
pub enum Frame {
    /// An event from a log with partitions.
    Placed(Arc<PlacedDelivery>),
    /// An event from the log, shared by all its receivers, encoded when it is written.
    Event(Arc<LocalDelivery>),
    /// A Socket.IO packet for this connection alone.
    Packet(Arc<Encoded>),
    /// An Engine.IO control packet (`2`, `6`, `1`, the handshake), without its framing.
    Engine(Bytes),
    /// Bytes that go out as they are: a `/ws` message in its frame, a WebSocket pong or close, an SSE block.
    Raw(Bytes),
}

impl Frame {
    /// An event for one connection alone, such as one that is replayed.
    pub fn event(event: Arc<Event>) -> Self {
        Self::Event(LocalDelivery::new(Arc::new(Delivery::new(event))))
    }

    /// An event for clients that are at this place once they have it.
    pub fn placed(event: Arc<Event>, place: &Place) -> Self {
        let place = place.at(event.offset).to_string().into();
        Self::Placed(Arc::new(PlacedDelivery { event, place, encoded: Default::default() }))
    }

    /// The event, if it is one that clients share.
    fn event_of(&self) -> Option<&Event> {
        match self {
            Self::Event(delivery) => Some(&delivery.event),
            Self::Placed(delivery) => Some(&delivery.event),
            _ => None,
        }
    }

    /// Where in the log it is, if it is a stored event.
    fn offset(&self) -> Option<Offset> {
        self.event_of().filter(|event| !event.draft.volatile).map(|event| event.offset)
    }

    /// Bytes it counts for in the outbox, the same whatever the transport.
    pub fn size(&self) -> usize {
        match self {
            Self::Event(delivery) => delivery.event.size(),
            Self::Placed(delivery) => delivery.event.size() + delivery.place.len(),
            Self::Packet(packet) => packet.text.len() + packet.attachments.iter().map(Vec::len).sum::<usize>(),
            Self::Engine(bytes) | Self::Raw(bytes) => bytes.len(),
        }
    }
}

/// The sums over all outboxes of a shard: kept as frames come and go, because adding them up takes too long with very many
/// connections. Where several threads use the outboxes in turns, each has its part, and only the sum of the parts is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    bytes: usize,
    own: usize,
}

impl Totals {
    /// Bytes that wait, near enough for limits.
    pub fn waiting(self) -> usize {
        self.bytes
    }

    /// Bytes of memory that the outboxes hold. Events are not among them: many outboxes share one.
    pub fn held(self) -> usize {
        self.own
    }

    /// Both parts together.
    pub fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes.wrapping_add(other.bytes), own: self.own.wrapping_add(other.own) }
    }

    fn minus(self, other: Self) -> Self {
        Self { bytes: self.bytes.wrapping_sub(other.bytes), own: self.own.wrapping_sub(other.own) }
    }
}

thread_local! {
    /// This thread's part of its shard's.
    static TOTALS: Cell<Totals> = const { Cell::new(Totals { bytes: 0, own: 0 }) };
}

/// This thread's part of the sums of its shard.
pub fn totals() -> Totals {
    TOTALS.get()
}

/// Uses the outboxes of another thread's shard. Answers, too, what this adds to that shard's sums.
pub fn on_behalf<T>(act: impl FnOnce() -> T) -> (T, Totals) {
    let own = TOTALS.get();
    let result = act();
    (result, TOTALS.replace(own).minus(own))
}

fn came(frame: &Frame, size: usize) {
    TOTALS.set(TOTALS.get().plus(Totals { bytes: size, own: own(frame, size) }));
}

fn gone(frame: &Frame, size: usize) {
    TOTALS.set(TOTALS.get().minus(Totals { bytes: size, own: own(frame, size) }));
}

/// Bytes of memory of one frame.
fn own(frame: &Frame, size: usize) -> usize {
    size_of::<Frame>() + if frame.event_of().is_some() { 0 } else { size }
}

/// A queue of frames, counted in bytes. Idle connections have an empty one, which is a null pointer.
#[derive(Default)]
pub struct Outbox(Option<Box<Queue>>);

/// Most frames are written before the next one comes: the first needs no memory besides this.
struct Queue {
    first: Frame,
    rest: VecDeque<Frame>,
    bytes: usize,
    /// Bytes of the first frame that are written already.
    written: usize,
}

impl Queue {
    fn iter(&self) -> impl Iterator<Item = &Frame> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}

impl Outbox {
    /// Adds a frame at the end.
    pub fn push(&mut self, frame: Frame) {
        let size = frame.size();
        came(&frame, size);
        match &mut self.0 {
            Some(queue) => {
                queue.bytes += size;
                queue.rest.push_back(frame);
            }
            None => self.0 = Some(Box::new(Queue { first: frame, rest: VecDeque::new(), bytes: size, written: 0 })),
        }
    }

    /// Puts a frame before all others, but behind one that is partly on the wire.
    pub fn push_ahead(&mut self, frame: Frame) {
        let is_mid_frame = self.is_mid_frame();
        let Some(queue) = &mut self.0 else { return self.push(frame) };
        let size = frame.size();
        came(&frame, size);
        queue.bytes += size;
        let next = if is_mid_frame { frame } else { std::mem::replace(&mut queue.first, frame) };
        queue.rest.push_front(next);
    }

    /// Bytes waiting, near enough for limits.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// Bytes of memory it may hold: events are shared with other outboxes, but somebody must hold them.
    pub fn held(&self) -> usize {
        let of_queue = |queue: &Queue| queue.bytes + size_of::<Queue>() + queue.rest.capacity() * size_of::<Frame>();
        self.0.as_deref().map_or(0, of_queue)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the first frame is partly on the wire, so that nothing may be put before the rest of it.
    pub fn is_mid_frame(&self) -> bool {
        self.written() > 0
    }

    /// The waiting frames in order, and how many bytes of the first are written already.
    pub fn waiting(&self) -> (impl Iterator<Item = &Frame>, usize) {
        (self.frames(), self.written())
    }

    fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.0.iter().flat_map(|queue| queue.iter())
    }

    fn written(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.written)
    }

    /// The first stored event of each of so many lines that waits behind so many frames. What was encoded for one client
    /// alone is not looked at.
    pub fn first_events(&self, behind: usize, lines: usize) -> Vec<Offset> {
        let mut first: Vec<Offset> = Vec::new();
        for offset in self.frames().skip(behind).filter_map(Frame::offset) {
            if first.len() == lines {
                break;
            }
            if first.iter().all(|known| known.line != offset.line) {
                first.push(offset);
            }
        }
        first
    }

    /// Whether the event of this offset waits.
    pub fn has_event(&self, offset: &Offset) -> bool {
        self.frames().any(|frame| match frame {
            Frame::Event(_) | Frame::Placed(_) => frame.offset() == Some(*offset),
            // A `/ws` client's own copy ends with its offset.
            Frame::Raw(bytes) => last_offset(bytes).and_then(place::event_of) == Some(*offset),
            Frame::Packet(_) | Frame::Engine(_) => false,
        })
    }

    /// The first frame.
    pub fn front(&self) -> Option<&Frame> {
        self.0.as_ref().map(|queue| &queue.first)
    }

    /// Removes the first frame: it is written.
    pub fn pop(&mut self) -> Option<Frame> {
        let mut queue = self.0.take()?;
        let Some(next) = queue.rest.pop_front() else {
            // No connection keeps the queue of its busiest moment.
            gone(&queue.first, queue.bytes);
            return Some(queue.first);
        };
        let frame = std::mem::replace(&mut queue.first, next);
        let size = frame.size();
        queue.bytes -= size;
        queue.written = 0;
        self.0 = Some(queue);
        gone(&frame, size);
        Some(frame)
    }

    /// How many frames wait.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| 1 + queue.rest.len())
    }

    /// Notes that so many bytes are written, from the front; `len` gives a frame's length on the wire.
    pub fn wrote(&mut self, mut bytes: usize, len: impl Fn(&Frame) -> usize) {
        while let Some(queue) = &mut self.0 {
            let left = len(&queue.first) - queue.written;
            if bytes < left {
                queue.written += bytes;
                return;
            }
            bytes -= left;
            self.pop();
        }
    }

    /// Forgets everything behind the frame that is partly written, if one is; how many events were lost.
    pub fn keep_started(&mut self) -> usize {
        if !self.is_mid_frame() {
            return self.clear();
        }
        let Some(queue) = &mut self.0 else { return 0 };
        let mut lost = 0;
        for frame in std::mem::take(&mut queue.rest) {
            let size = frame.size();
            queue.bytes -= size;
            gone(&frame, size);
            lost += usize::from(frame.event_of().is_some());
        }
        lost
    }

    /// Forgets everything; how many events were lost with it.
    pub fn clear(&mut self) -> usize {
        let events = self.frames().filter(|frame| frame.event_of().is_some()).count();
        *self = Self::default();
        events
    }
}

/// The offset at the end of a `/ws` event.
fn last_offset(message: &[u8]) -> Option<&str> {
    let end = message.strip_suffix(b"\"}")?;
    let end = &end[end.len().saturating_sub(place::MAX_TEXT + OFFSET.len())..];
    let begin = end.windows(OFFSET.len()).rposition(|part| part == OFFSET)?;
    std::str::from_utf8(&end[begin + OFFSET.len()..]).ok()
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.frames().for_each(|frame| gone(frame, frame.size()));
    }
}

/// The frame's bytes in a transport's format. `with_offset` is whether Socket.IO events carry their offset.
pub fn encode(frame: &Frame, format: Format, with_offset: bool) -> Cow<'_, [u8]> {
    use crate::protocol::{plain_ws, socketio_encode as socketio, sse, websocket};
    match (frame, format) {
        (Frame::Event(delivery), _) => Cow::Borrowed(delivery.bytes(format, |event: &Event| match format {
            Format::SocketIoFrames => socketio::event_frames(event, with_offset),
            Format::SocketIoTextFrames => socketio::event_text_frames(event, with_offset),
            Format::SocketIoPayload => socketio::event_payload(event, with_offset),
            Format::JsonFrame => plain_ws::event_frame(event),
            Format::Sse => sse::event_block(event),
        })),
        (Frame::Placed(delivery), _) => Cow::Borrowed(delivery.encoded[format as usize].get_or_init(|| {
            let (event, place) = (&*delivery.event, &*delivery.place);
            let offset = with_offset.then_some(place);
            match format {
                Format::SocketIoFrames => socketio::event_frames_at(event, offset),
                Format::SocketIoTextFrames => socketio::event_text_frames_at(event, offset),
                Format::SocketIoPayload => socketio::event_payload_at(event, offset),
                Format::JsonFrame => plain_ws::event_frame_at(event, place),
                Format::Sse => sse::event_block_at(event, place),
            }
        })),
        (Frame::Packet(packet), Format::SocketIoPayload) => Cow::Owned(packet.payload().into()),
        (Frame::Packet(packet), Format::SocketIoTextFrames) => Cow::Owned(packet.text_frames().into()),
        (Frame::Packet(packet), _) => Cow::Owned(packet.frames().into()),
        (Frame::Engine(bytes), Format::SocketIoFrames | Format::SocketIoTextFrames) => {
            let mut frame = Vec::with_capacity(bytes.len() + 10);
            websocket::push_frame(&mut frame, websocket::Opcode::Text, bytes);
            Cow::Owned(frame)
        }
        (Frame::Engine(bytes) | Frame::Raw(bytes), _) => Cow::Borrowed(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_thread_queues_and_this_one_writes_adds_up() {
        let mut outbox = Outbox::default();
        outbox.push(Frame::Raw(Bytes::from_static(b"12345")));
        let (mut outbox, of_other) = std::thread::spawn(move || {
            on_behalf(|| {
                outbox.push(Frame::Raw(Bytes::from_static(b"123")));
                outbox.pop();
                outbox
            })
        })
        .join()
        .unwrap();
        assert_eq!(totals().plus(of_other).waiting(), 3);
        outbox.pop();
        assert_eq!(totals().plus(of_other), Totals::default());
    }

    #[test]
    fn an_event_is_found_in_the_copy_of_one_client() {
        let offset = Offset::parse("ab-5-1_3").unwrap();
        let mut outbox = Outbox::default();
        let copy = |of: &str| format!(r#"..{{"data":"\"offset\":\"","offset":"{of}"}}"#);
        outbox.push(Frame::Raw(copy("ab-5-2_3.0_a_2_0").into()));
        assert!(!outbox.has_event(&offset));
        outbox.push(Frame::Raw(copy("ab-5-1_3.0_a_2_0").into()));
        assert!(outbox.has_event(&offset) && !outbox.has_event(&Offset::parse("ab-5-1").unwrap()));
    }

    #[test]
    fn counts_and_gives_its_memory_back() {
        let mut outbox = Outbox::default();
        outbox.push(Frame::Raw(Bytes::from_static(b"12345")));
        outbox.push(Frame::Engine(Bytes::from_static(b"2")));
        assert_eq!(outbox.bytes(), 6);
        outbox.wrote(2, |_| 5);
        assert!(outbox.is_mid_frame());
        outbox.wrote(3, |_| 5);
        assert!(!outbox.is_mid_frame());
        assert_eq!(outbox.bytes(), 1);
        outbox.pop();
        assert_eq!((outbox.bytes(), outbox.held()), (0, 0));
        assert_eq!((totals().waiting(), totals().held()), (0, 0));
        (0..3).for_each(|_| outbox.push(Frame::Raw(Bytes::from_static(b"12345"))));
        assert_eq!((totals().waiting(), totals().held()), (15, 15 + 3 * size_of::<Frame>()));
        outbox.wrote(2, |_| 5);
        outbox.keep_started();
        assert_eq!((outbox.bytes(), totals().waiting()), (5, 5));
        outbox.pop();
        outbox.push(Frame::Raw(Bytes::from_static(b"12345")));
        assert_eq!(outbox.clear(), 0);
        assert!(outbox.is_empty());
        outbox.push(Frame::Raw(Bytes::from_static(b"12345")));
        drop(outbox);
        assert_eq!((totals().waiting(), totals().held()), (0, 0));
    }
}
