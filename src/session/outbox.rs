//! What waits to be written to one connection (sans-IO). An idle outbox holds no heap memory.

mod totals;

pub use totals::{Totals, on_behalf, totals};

use crate::model::offset::Offset;
use crate::session::frame::Frame;
use std::collections::VecDeque;
use totals::{came, gone};

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
        self.frames().any(|frame| frame.is_event(offset))
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

impl Drop for Outbox {
    fn drop(&mut self) {
        self.frames().for_each(|frame| gone(frame, frame.size()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

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
