//! Messages received on Pub/Sub that are not in the log yet, as far as this node has read it. Sans-IO.
//!
//! One node at a time copies. Every node keeps each message until its copy comes out of the log, so that the next holder of
//! the lease has exactly what the log lacks. Copies are recognized by their content; two identical messages are two items
//! here and need two copies. A copy that arrives before its message, over another connection, waits for it for
//! [`EARLY_COPY_MS`].
//!
//! Limit: if this node did not receive a message, and receives an identical one within [`EARLY_COPY_MS`] of the first one's
//! copy, it takes that copy for the second one's. The second message is lost if the copying node dies before it copies it and
//! no other node has it.

use crate::bridge::request::Directive;
use crate::model::draft::Draft;
use aws_lc_rs::digest;
use std::collections::{HashMap, VecDeque};

/// How long a message waits to be copied: longer than a lease and a takeover.
pub const MAX_AGE_MS: u64 = 30_000;
/// How long a copy waits for its message.
pub const EARLY_COPY_MS: u64 = 5_000;
/// Bytes of messages that are kept. Above it new ones are refused.
const MAX_BYTES: usize = 32 << 20;
/// Copies that wait for their messages. Above it the oldest are forgotten.
const MAX_EARLY_COPIES: usize = 10_000;
/// Bytes of a message besides its text.
const OVERHEAD: usize = 300;

/// The hash of what a message and its copy have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest([u8; 16]);

/// A message that is to be copied.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// An event.
    Event(Draft),
    /// A command to sessions.
    SessionCommand(Directive),
}

impl Content {
    /// The same for the message and for its copy.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Event(draft) => {
                let Draft { namespace, rooms, except, event, args, .. } = draft;
                hash(&(namespace, rooms, except, event, args.as_array()))
            }
            Self::SessionCommand(Directive { namespace, selector, action }) => hash(&(namespace, selector, action)),
        }
    }

    fn is_volatile(&self) -> bool {
        matches!(self, Self::Event(draft) if draft.volatile)
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Event(draft) => {
                let names: usize = draft.rooms.iter().chain(&draft.except).map(|room| room.len() + 16).sum();
                OVERHEAD + names + draft.event.len() + draft.args.len()
            }
            // The decoder allows at most a hundred names in each list.
            Self::SessionCommand(_) => OVERHEAD * 10,
        }
    }
}

fn hash(content: &impl serde::Serialize) -> Digest {
    let text = serde_json::to_vec(content).expect("texts and lists are always JSON");
    let digest = digest::digest(&digest::SHA256, &text);
    let mut start = [0; 16];
    start.copy_from_slice(&digest.as_ref()[..16]);
    Digest(start)
}

/// See the module.
#[derive(Debug, Default)]
pub struct CopyTracker {
    items: VecDeque<Item>,
    /// The number of the first item; numbers never repeat.
    first: u64,
    /// Items with lower numbers were handed out.
    handed_out: u64,
    uncopied: HashMap<Digest, VecDeque<u64>>,
    early_copies: HashMap<Digest, u32>,
    early_order: VecDeque<(u64, Digest)>,
    bytes: usize,
}

#[derive(Debug)]
struct Item {
    /// `None` once its copy was seen, or it is volatile and was handed out.
    content: Option<Content>,
    digest: Digest,
    received_ms: u64,
    bytes: usize,
    accepted: bool,
}

impl CopyTracker {
    /// Takes a message; `false` where there is no room for it.
    pub fn track(&mut self, content: Content, now_ms: u64) -> bool {
        let digest = content.digest();
        self.forget_early_copies(now_ms);
        if !content.is_volatile()
            && let Some(copies) = self.early_copies.get_mut(&digest).filter(|copies| **copies > 0)
        {
            *copies -= 1;
            return true;
        }
        let bytes = content.bytes();
        if self.bytes + bytes > MAX_BYTES {
            return false;
        }
        if !content.is_volatile() {
            self.uncopied.entry(digest).or_default().push_back(self.first + self.items.len() as u64);
        }
        self.bytes += bytes;
        self.items.push_back(Item { content: Some(content), digest, received_ms: now_ms, bytes, accepted: false });
        true
    }

    /// A copy came out of the log.
    pub fn saw_copy(&mut self, digest: Digest, now_ms: u64) {
        let Some(numbers) = self.uncopied.get_mut(&digest) else {
            *self.early_copies.entry(digest).or_default() += 1;
            self.early_order.push_back((now_ms + EARLY_COPY_MS, digest));
            return self.forget_early_copies(now_ms);
        };
        let oldest = numbers.pop_front();
        if numbers.is_empty() {
            self.uncopied.remove(&digest);
        }
        if let Some(item) = oldest.and_then(|number| self.item(number)) {
            item.content = None;
        }
        self.pop_done();
    }

    /// The next messages to copy with their numbers, oldest first: at most `max`, and about `max_bytes`.
    pub fn hand_out(&mut self, max: usize, max_bytes: usize) -> Vec<(u64, Content)> {
        let (mut out, mut bytes) = (Vec::new(), 0);
        let end = self.first + self.items.len() as u64;
        self.handed_out = self.handed_out.max(self.first);
        while self.handed_out < end && out.len() < max && bytes < max_bytes {
            let number = self.handed_out;
            self.handed_out += 1;
            let Some(item) = self.item(number) else { break };
            let content = match &item.content {
                Some(content) if content.is_volatile() => item.content.take(),
                content => content.clone(),
            };
            bytes += item.bytes;
            out.extend(content.map(|content| (number, content)));
        }
        self.pop_done();
        out
    }

    /// The log has this message. It stays until its copy is seen.
    pub fn accepted(&mut self, number: u64) {
        if let Some(item) = self.item(number) {
            item.accepted = true;
        }
    }

    /// Messages that were handed out and have not come out of the log since are handed out again.
    pub fn start_over(&mut self) {
        self.handed_out = self.first;
    }

    /// Drops messages that wait too long; returns how many of them are not known to be in the log.
    pub fn expire(&mut self, now_ms: u64) -> usize {
        self.forget_early_copies(now_ms);
        let mut lost = 0;
        while let Some(item) = self.items.front().filter(|item| item.received_ms + MAX_AGE_MS <= now_ms) {
            lost += usize::from(item.content.is_some() && !item.accepted);
            let (digest, number) = (item.digest, self.first);
            if let Some(numbers) = self.uncopied.get_mut(&digest) {
                numbers.retain(|uncopied| *uncopied != number);
                if numbers.is_empty() {
                    self.uncopied.remove(&digest);
                }
            }
            self.pop();
        }
        lost
    }

    /// When the oldest message without a copy was received.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.items.iter().find(|item| item.content.is_some() && !item.accepted).map(|item| item.received_ms)
    }

    fn item(&mut self, number: u64) -> Option<&mut Item> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.items.get_mut(at)
    }

    fn pop_done(&mut self) {
        while self.items.front().is_some_and(|item| item.content.is_none()) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(item) = self.items.pop_front() {
            self.bytes -= item.bytes;
            self.first += 1;
        }
    }

    fn forget_early_copies(&mut self, now_ms: u64) {
        while self.early_order.len() > MAX_EARLY_COPIES
            || self.early_order.front().is_some_and(|(until, _)| *until <= now_ms)
        {
            let Some((_, digest)) = self.early_order.pop_front() else { return };
            if let Some(copies) = self.early_copies.get_mut(&digest) {
                // Its message may have arrived already.
                *copies = copies.saturating_sub(1);
                if *copies == 0 {
                    self.early_copies.remove(&digest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
