//! Large messages between two nodes, cut into pieces. Of each receiver's pieces only so many bytes are on their way:
//! Redis closes a subscription whose unread messages grow over a limit (`client-output-buffer-limit pubsub`, 8 MB for a
//! minute or 32 MB by default), and what clients send must never come near it. The receiver says what it has read.

use crate::cluster::jobs::Sent;
use crate::cluster::rpc::message::Body;
use crate::model::id::NodeId;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A message with more than this is sent in pieces, and counts.
pub(crate) const WHOLE: usize = 1_000;
/// Bytes of one piece.
const PIECE: usize = 64 << 10;
/// Unread bytes on their way to one node. Even twenty senders together stay far below Redis' limit.
const WINDOW: usize = 512 << 10;
/// Bytes that may wait for one node. Above it a message fails at once, unless it is alone.
const MAX_WAITING: usize = 16 << 20;
/// The same for a message of more than one piece. Large bodies of a few clients leave the rest to questions about sids, and
/// to what most clients send and get.
const MAX_WAITING_LARGE: usize = MAX_WAITING / 2;
/// If the receiver reads nothing for so long, what was on its way is lost.
const STALLED: Duration = Duration::from_secs(5);
/// A message whose next piece does not arrive for so long is forgotten.
const ABANDONED: Duration = Duration::from_secs(30);

/// What waits for each receiver.
#[derive(Default)]
pub(crate) struct Lanes(HashMap<NodeId, Lane>);

#[derive(Default)]
struct Lane {
    /// Each gets one piece in turn, so that a small message does not wait for a large one.
    waiting: VecDeque<Outgoing>,
    waiting_bytes: usize,
    /// Bytes of each message that are on their way, by the message's name.
    unread: HashMap<u64, usize>,
    unread_bytes: usize,
    progress: Option<Instant>,
}

struct Outgoing {
    name: u64,
    text: String,
    sent: usize,
    index: u32,
    reply: oneshot::Sender<Sent>,
}

/// The next piece, and who wants to know that it was sent: only of the last one.
pub(crate) struct Piece {
    pub body: Body,
    pub reply: Option<oneshot::Sender<Sent>>,
}

impl Lanes {
    /// Bytes that wait for all nodes.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.0.values().map(|lane| lane.waiting_bytes).sum()
    }

    /// Queues the JSON of a body. A reply channel that closes without a word means that it was not sent.
    pub(crate) fn push(&mut self, to: NodeId, name: u64, text: String, reply: oneshot::Sender<Sent>) {
        let lane = self.0.entry(to).or_default();
        let max = if text.len() > PIECE { MAX_WAITING_LARGE } else { MAX_WAITING };
        if lane.waiting_bytes > 0 && lane.waiting_bytes + text.len() > max {
            // The caller may be gone.
            let _ = reply.send(Sent::Busy);
            return;
        }
        lane.waiting_bytes += text.len();
        lane.waiting.push_back(Outgoing { name, text, sent: 0, index: 0, reply });
    }

    /// The next piece that may be sent now.
    pub(crate) fn next(&mut self, to: NodeId, now: Instant) -> Option<Piece> {
        let lane = self.0.get_mut(&to)?;
        let piece = lane.next(now);
        if lane.waiting.is_empty() && lane.unread.is_empty() {
            self.0.remove(&to);
        }
        piece
    }

    /// The receiver has read so many bytes of a message.
    pub(crate) fn read(&mut self, from: NodeId, name: u64, bytes: usize, now: Instant) {
        let Some(lane) = self.0.get_mut(&from) else { return };
        let Some(unread) = lane.unread.get_mut(&name) else { return };
        let bytes = bytes.min(*unread);
        *unread -= bytes;
        if *unread == 0 {
            lane.unread.remove(&name);
        }
        lane.unread_bytes -= bytes;
        lane.progress = Some(now);
    }

    /// Forgets what nobody waits for any more, and the receivers that are gone and for which nothing waits.
    pub(crate) fn retain(&mut self, is_live: impl Fn(NodeId) -> bool) {
        self.0.retain(|node, lane| {
            lane.drop_abandoned();
            !lane.waiting.is_empty() || is_live(*node)
        });
    }

    /// What receivers have read will not be learned.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Lane {
    /// Nothing asks for the next piece to a node that is gone, or reads nothing, so its messages would stay.
    fn drop_abandoned(&mut self) {
        let bytes = &mut self.waiting_bytes;
        self.waiting.retain(|outgoing| {
            let is_wanted = !outgoing.reply.is_closed();
            if !is_wanted {
                *bytes -= outgoing.text.len() - outgoing.sent;
            }
            is_wanted
        });
    }

    fn next(&mut self, now: Instant) -> Option<Piece> {
        if self.unread_bytes > 0 && self.progress.is_some_and(|last| now - last > STALLED) {
            self.unread.clear();
            self.unread_bytes = 0;
        }
        let mut outgoing = loop {
            let outgoing = self.waiting.pop_front()?;
            if !outgoing.reply.is_closed() {
                break outgoing;
            }
            self.waiting_bytes -= outgoing.text.len() - outgoing.sent;
        };
        let piece = piece_at(&outgoing.text, outgoing.sent);
        if self.unread_bytes > 0 && self.unread_bytes + piece.len() > WINDOW {
            self.waiting.push_front(outgoing);
            return None;
        }
        if self.unread_bytes == 0 {
            self.progress = Some(now);
        }
        self.unread_bytes += piece.len();
        *self.unread.entry(outgoing.name).or_default() += piece.len();
        self.waiting_bytes -= piece.len();
        let is_last = outgoing.sent + piece.len() == outgoing.text.len();
        let body = Body::Piece(outgoing.name, outgoing.index, is_last, piece.to_owned());
        if is_last {
            return Some(Piece { body, reply: Some(outgoing.reply) });
        }
        outgoing.sent += piece.len();
        outgoing.index += 1;
        self.waiting.push_back(outgoing);
        Some(Piece { body, reply: None })
    }
}

/// At most [`PIECE`] bytes from here, whole characters.
fn piece_at(text: &str, from: usize) -> &str {
    let mut end = text.len().min(from + PIECE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[from..end]
}

/// Messages of other nodes of which some pieces have arrived. Their senders bound them.
#[derive(Default)]
pub(crate) struct Assemblies(HashMap<(NodeId, u64), Assembly>);

struct Assembly {
    text: String,
    next: u32,
    at: Instant,
}

impl Assemblies {
    /// Adds a piece; the whole text once it is complete.
    pub(crate) fn add(
        &mut self,
        key: (NodeId, u64),
        index: u32,
        is_last: bool,
        text: String,
        now: Instant,
    ) -> Option<String> {
        if index == 0 {
            self.0.retain(|_, assembly| now - assembly.at < ABANDONED);
            self.0.insert(key, Assembly { text: String::new(), next: 0, at: now });
        }
        let assembly = self.0.get_mut(&key)?;
        if assembly.next != index {
            // One is missing: whoever waits for an answer gets none.
            self.0.remove(&key);
            return None;
        }
        assembly.text.push_str(&text);
        (assembly.next, assembly.at) = (index + 1, now);
        if is_last { self.0.remove(&key).map(|assembly| assembly.text) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends what may be sent now; the names and texts of the pieces.
    fn drain(lanes: &mut Lanes, to: NodeId, now: Instant) -> Vec<(u64, u32, bool, String)> {
        std::iter::from_fn(|| lanes.next(to, now))
            .map(|piece| match piece.body {
                Body::Piece(name, index, is_last, text) => (name, index, is_last, text),
                _ => panic!("not a piece"),
            })
            .collect()
    }

    #[test]
    fn no_more_than_the_window_is_on_its_way_and_all_arrives() {
        let (mut lanes, mut assemblies) = (Lanes::default(), Assemblies::default());
        let (to, from, now) = (NodeId::random(), NodeId::random(), Instant::now());
        let texts: Vec<String> = (0..5).map(|n| format!("{n}é").repeat(100_000)).collect();
        let replies: Vec<_> = (0..5)
            .map(|n| {
                let (reply, sent) = oneshot::channel();
                lanes.push(to, n as u64, texts[n].clone(), reply);
                sent
            })
            .collect();
        let mut complete = HashMap::new();
        loop {
            let sent = drain(&mut lanes, to, now);
            if sent.is_empty() {
                break;
            }
            let bytes: usize = sent.iter().map(|(.., text)| text.len()).sum();
            assert!(bytes <= WINDOW, "{bytes}");
            for (name, index, is_last, text) in sent {
                lanes.read(to, name, text.len(), now);
                complete.extend(assemblies.add((from, name), index, is_last, text, now).map(|text| (name, text)));
            }
        }
        assert!((0..5).all(|n| complete[&(n as u64)] == texts[n]));
        assert!(lanes.0.is_empty() && assemblies.0.is_empty());
        drop(replies);
    }

    #[test]
    fn too_much_fails_at_once_and_a_receiver_that_reads_nothing_blocks_nobody_for_long() {
        let (mut lanes, to, now) = (Lanes::default(), NodeId::random(), Instant::now());
        let (reply, _first) = oneshot::channel();
        lanes.push(to, 1, "a".repeat(MAX_WAITING * 2), reply);
        let (reply, mut second) = oneshot::channel();
        lanes.push(to, 2, "b".into(), reply);
        assert_eq!(second.try_recv(), Ok(Sent::Busy), "alone a message may be larger");
        assert_eq!(drain(&mut lanes, to, now).len(), WINDOW / PIECE);
        assert!(drain(&mut lanes, to, now + STALLED).is_empty());
        assert_eq!(drain(&mut lanes, to, now + STALLED * 2).len(), WINDOW / PIECE);
    }

    #[test]
    fn large_messages_leave_room_for_small_ones() {
        let (mut lanes, to) = (Lanes::default(), NodeId::random());
        let mut push = |bytes: usize| {
            let (reply, mut sent) = oneshot::channel();
            lanes.push(to, 1, "a".repeat(bytes), reply);
            let is_queued = sent.try_recv().is_err();
            (is_queued, sent)
        };
        let large: Vec<_> = (0..20).map(|_| push(1 << 20)).collect();
        assert_eq!(large.iter().filter(|(is_queued, _)| *is_queued).count(), MAX_WAITING_LARGE >> 20);
        let small: Vec<_> = (0..200).map(|_| push(PIECE)).collect();
        assert_eq!(small.iter().filter(|(is_queued, _)| *is_queued).count(), MAX_WAITING_LARGE / PIECE);
    }

    #[test]
    fn nothing_is_kept_for_a_node_that_is_gone() {
        let (mut lanes, to, now) = (Lanes::default(), NodeId::random(), Instant::now());
        let (first, kept) = oneshot::channel();
        lanes.push(to, 1, "a".repeat(WINDOW * 2), first);
        let (second, gone) = oneshot::channel();
        lanes.push(to, 2, "b".repeat(WINDOW), second);
        drain(&mut lanes, to, now);
        drop(gone);
        lanes.retain(|_| false);
        assert!((1..=WINDOW * 2).contains(&lanes.waiting_bytes()), "the first caller still waits");
        drop(kept);
        lanes.retain(|_| false);
        assert_eq!((lanes.waiting_bytes(), lanes.0.len()), (0, 0));
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_sent_and_a_missing_piece_ends_its_message() {
        let (mut lanes, to, now) = (Lanes::default(), NodeId::random(), Instant::now());
        let (reply, gone) = oneshot::channel();
        lanes.push(to, 1, "a".into(), reply);
        drop(gone);
        assert!(lanes.next(to, now).is_none() && lanes.0.is_empty());
        let mut assemblies = Assemblies::default();
        assert_eq!(assemblies.add((to, 1), 0, false, "a".into(), now), None);
        assert_eq!(assemblies.add((to, 1), 2, true, "c".into(), now), None);
        assert_eq!(assemblies.add((to, 1), 1, true, "b".into(), now), None);
        assert_eq!(assemblies.add((to, 2), 0, true, "whole".into(), now).as_deref(), Some("whole"));
    }
}
