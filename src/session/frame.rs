//! One thing to write to a connection, and its bytes in each format (sans-IO).

use crate::model::event::{Delivery, Event, Format};
use crate::model::offset::Offset;
use crate::model::place;
use crate::model::place::Place;
use crate::protocol::socketio_encode::Encoded;
use bytes::Bytes;
use std::borrow::Cow;
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
    pub(super) fn event_of(&self) -> Option<&Event> {
        match self {
            Self::Event(delivery) => Some(&delivery.event),
            Self::Placed(delivery) => Some(&delivery.event),
            _ => None,
        }
    }

    /// Where in the log it is, if it is a stored event.
    pub(super) fn offset(&self) -> Option<Offset> {
        self.event_of().filter(|event| !event.draft.volatile).map(|event| event.offset)
    }

    /// Whether it is the event of this offset.
    pub(super) fn is_event(&self, offset: &Offset) -> bool {
        match self {
            Self::Event(_) | Self::Placed(_) => self.offset() == Some(*offset),
            // A `/ws` client's own copy ends with its offset.
            Self::Raw(bytes) => last_offset(bytes).and_then(place::event_of) == Some(*offset),
            Self::Packet(_) | Self::Engine(_) => false,
        }
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

/// The offset at the end of a `/ws` event.
fn last_offset(message: &[u8]) -> Option<&str> {
    let end = message.strip_suffix(b"\"}")?;
    let end = &end[end.len().saturating_sub(place::MAX_TEXT + OFFSET.len())..];
    let begin = end.windows(OFFSET.len()).rposition(|part| part == OFFSET)?;
    std::str::from_utf8(&end[begin + OFFSET.len()..]).ok()
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
