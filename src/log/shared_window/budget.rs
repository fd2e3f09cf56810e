//! The bytes that the windows of all lines have together. A line may use what the others do not need. Over the bytes, who holds
//! most over all lines gives its oldest events away, whichever line was written: also one that gets no events any more.

use crate::log::recent_events::{Holder, LARGE_FRACTION, OF_CLIENTS};
use crate::log::window::Window;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Over the bytes, this fraction of them is freed at once, so that few of the batches pay for looking at all lines.
const FREED_FRACTION: usize = 256;
/// So many of each line's largest holders are compared. Who is on several lines and on none of them among these has less than
/// a sixteenth of the bytes.
const COMPARED: usize = 64;
/// Events that go under one lock.
const MAX_AT_ONCE: usize = 256;

/// A bound, and what is used of it. Where there is one line, its window keeps the bound by itself.
pub(super) struct Budget {
    max: usize,
    used: AtomicUsize,
    settling: Mutex<()>,
}

/// Where somebody holds how much.
#[derive(Default)]
struct Held {
    bytes: usize,
    /// The most on one line, and that line's index.
    most: (usize, usize),
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self { max, used: AtomicUsize::new(0), settling: Mutex::new(()) }
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A line's window had so many bytes, and has so many. To be called while it is locked.
    pub(super) fn note(&self, before: usize, now: usize) {
        match now >= before {
            true => self.used.fetch_add(now - before, Ordering::Relaxed),
            false => self.used.fetch_sub(before - now, Ordering::Relaxed),
        };
    }

    /// Drops what is too much. To be called while no line is locked by the caller.
    pub(super) fn settle(&self, lines: &[RwLock<Window>]) {
        if self.used() <= self.max {
            return;
        }
        let _one_at_a_time = self.settling.lock();
        let goal = self.max - self.max / FREED_FRACTION;
        while self.used() > self.max && self.round(lines, goal) {}
    }

    /// Comes nearer to a goal; `false` where there is nothing to drop.
    fn round(&self, lines: &[RwLock<Window>], goal: usize) -> bool {
        let sizes = |share: usize| lines.iter().map(move |line| line.read().events().shares[share].bytes());
        let share = usize::from(sizes(OF_CLIENTS).sum::<usize>() > self.max / 2);
        match largest(lines, share).filter(|(_, held)| held.bytes >= self.max / LARGE_FRACTION) {
            Some((holder, held)) => self.shorten(lines, share, &holder, &held, goal),
            None => self.drop_oldest(lines, share, goal),
        }
    }

    /// Takes from a holder where it has most, and at most half of that: then another one, or another line, may have more.
    fn shorten(&self, lines: &[RwLock<Window>], share: usize, holder: &Holder, held: &Held, goal: usize) -> bool {
        let (most, line) = held.most;
        let mut left = most.div_ceil(2);
        self.drop_some(&lines[line], |window| {
            if left == 0 || self.used() <= goal {
                return None;
            }
            left = left.saturating_sub(window.events_mut().evict_of(share, holder)?);
            Some(())
        })
    }

    /// Drops the oldest events of all lines, as far as they are of about the same age.
    fn drop_oldest(&self, lines: &[RwLock<Window>], share: usize, goal: usize) -> bool {
        let ages = lines.iter().filter_map(|line| line.read().events().shares[share].ages());
        let Some((oldest, newest)) = ages.reduce(|all, ages| (all.0.min(ages.0), all.1.max(ages.1))) else {
            return false;
        };
        let up_to = oldest + newest.saturating_sub(oldest) / FREED_FRACTION as u64;
        let mut freed = false;
        for line in lines {
            freed |= self.drop_some(line, |window| {
                let is_over = self.used() > goal;
                is_over.then(|| window.events_mut().evict_oldest(share, up_to))?.map(drop)
            });
        }
        freed
    }

    /// Drops events of a line until `next` has none, and lets others have it in between. Answers whether there were any.
    fn drop_some(&self, line: &RwLock<Window>, mut next: impl FnMut(&mut Window) -> Option<()>) -> bool {
        let mut freed = false;
        loop {
            let mut window = line.write();
            for _ in 0..MAX_AT_ONCE {
                let before = window.bytes();
                if next(&mut window).is_none() {
                    return freed;
                }
                freed = true;
                self.note(before, window.bytes());
            }
        }
    }
}

/// Who holds most of a share over all lines.
fn largest(lines: &[RwLock<Window>], share: usize) -> Option<(Holder, Held)> {
    let mut all: HashMap<Holder, Held> = HashMap::new();
    for (index, line) in lines.iter().enumerate() {
        for (holder, bytes) in line.read().events().shares[share].largest(COMPARED) {
            let held = all.entry(holder).or_default();
            held.bytes += bytes;
            held.most = held.most.max((bytes, index));
        }
    }
    all.into_iter().max_by_key(|(_, held)| held.bytes)
}
