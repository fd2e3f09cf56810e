//! What waits to be written to one connection (sans-IO). An idle outbox holds no heap memory.

use crate::model::event::{Delivery, Event, Format};
use crate::protocol::socketio_encode::Encoded;
use bytes::Bytes;
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// An event as one shard holds it: counted without atomics, of which a room of thousands would cost thousands.
pub struct LocalDelivery(Arc<Delivery>);

impl LocalDelivery {
    /// For the outboxes of one shard.
    pub fn new(delivery: Arc<Delivery>) -> Rc<Self> {
        Rc::new(Self(delivery))
    }
}

impl Deref for LocalDelivery {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        &self.0
    }
}

/// One thing to write.
#[derive(Clone)]
pub enum Frame {
    /// An event from the log, shared by all its receivers, encoded when it is written.
    Event(Rc<LocalDelivery>),
    /// A Socket.IO packet for this connection alone.
    Packet(Rc<Encoded>),
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

    /// Bytes it counts for in the outbox, the same whatever the transport.
    pub fn size(&self) -> usize {
        match self {
            Self::Event(delivery) => delivery.event.size(),
            Self::Packet(packet) => packet.text.len() + packet.attachments.iter().map(Vec::len).sum::<usize>(),
            Self::Engine(bytes) | Self::Raw(bytes) => bytes.len(),
        }
    }
}

thread_local! {
    /// Bytes in all outboxes of this thread, which is a shard: `/metrics` asks for them, and must not look at each outbox.
    static WAITING: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that wait in all outboxes of this thread.
pub fn waiting_on_thread() -> usize {
    WAITING.get()
}

/// Bytes of one outbox, which are also in [`WAITING`].
#[derive(Default)]
struct Counted(usize);

impl Counted {
    fn set(&mut self, bytes: usize) {
        WAITING.set(WAITING.get() - self.0 + bytes);
        self.0 = bytes;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A queue of frames, counted in bytes.
#[derive(Default)]
pub struct Outbox {
    queue: VecDeque<Frame>,
    bytes: Counted,
    /// Bytes of the first frame that are written already.
    written: usize,
}

impl Outbox {
    /// Adds a frame at the end.
    pub fn push(&mut self, frame: Frame) {
        self.bytes.set(self.bytes.0 + frame.size());
        if self.queue.capacity() == 0 {
            // Most pushes are alone: VecDeque's own first step would be four frames.
            self.queue.reserve_exact(1);
        }
        self.queue.push_back(frame);
    }

    /// Bytes waiting, near enough for limits.
    pub fn bytes(&self) -> usize {
        self.bytes.0
    }

    /// Bytes of memory it may hold: events are shared with other outboxes, but somebody must hold them.
    pub fn held(&self) -> usize {
        self.bytes.0 + self.queue.capacity() * size_of::<Frame>()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the first frame is partly on the wire, so that nothing may be put before the rest of it.
    pub fn is_mid_frame(&self) -> bool {
        self.written > 0
    }

    /// The waiting frames in order, and how many bytes of the first are written already.
    pub fn waiting(&self) -> (impl Iterator<Item = &Frame>, usize) {
        (self.queue.iter(), self.written)
    }

    /// The first frame.
    pub fn front(&self) -> Option<&Frame> {
        self.queue.front()
    }

    /// Removes the first frame: it is written.
    pub fn pop(&mut self) -> Option<Frame> {
        self.written = 0;
        let frame = self.queue.pop_front()?;
        self.bytes.set(self.bytes.0 - frame.size());
        if self.queue.is_empty() {
            // Without this, every connection would keep the queue of its busiest moment.
            self.queue = VecDeque::new();
        }
        Some(frame)
    }

    /// How many frames wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Notes that so many bytes are written, from the front; `len` gives a frame's length on the wire.
    pub fn wrote(&mut self, mut bytes: usize, len: impl Fn(&Frame) -> usize) {
        while let Some(frame) = self.queue.front() {
            let left = len(frame) - self.written;
            if bytes < left {
                self.written += bytes;
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
        let lost = self.queue.iter().skip(1).filter(|frame| matches!(frame, Frame::Event(_))).count();
        self.queue.truncate(1);
        self.bytes.set(self.queue.iter().map(Frame::size).sum());
        lost
    }

    /// Forgets everything; how many events were lost with it.
    pub fn clear(&mut self) -> usize {
        let events = self.queue.iter().filter(|frame| matches!(frame, Frame::Event(_))).count();
        *self = Self::default();
        events
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
    fn counts_and_gives_its_memory_back() {
        let mut outbox = Outbox::default();
        outbox.push(Frame::Raw(Bytes::from_static(b"12345")));
        outbox.push(Frame::Engine(Bytes::from_static(b"2")));
        assert_eq!((outbox.bytes(), waiting_on_thread()), (6, 6));
        outbox.wrote(2, |_| 5);
        assert!(outbox.is_mid_frame());
        outbox.wrote(3, |_| 5);
        assert!(!outbox.is_mid_frame());
        assert_eq!(outbox.bytes(), 1);
        outbox.pop();
        assert_eq!((outbox.bytes(), outbox.queue.capacity()), (0, 0));
        outbox.push(Frame::Raw(Bytes::from_static(b"12345")));
        assert_eq!((outbox.clear(), waiting_on_thread()), (0, 0));
        assert!(outbox.is_empty());
    }
}
