use super::*;
use crate::model::args::Args;
use crate::model::draft::Source;
use proptest::prelude::*;
use std::sync::Arc;

fn event(name: &str) -> Content {
    Content::Event(Draft::new("r", name, Args::none(), Source::Emitter))
}

fn names(handed_out: &[(u64, Content)]) -> Vec<Arc<str>> {
    let name = |(_, content): &'_ (u64, Content)| match content {
        Content::Event(draft) => draft.event.clone(),
        Content::SessionCommand(_) => "command".into(),
    };
    handed_out.iter().map(name).collect()
}

#[test]
fn a_successor_has_exactly_what_the_log_lacks() {
    let mut tracker = CopyTracker::default();
    for name in ["tick", "a", "tick", "b", "tick"] {
        assert!(tracker.track(event(name), 0));
    }
    tracker.saw_copy(event("tick").digest(), 1);
    tracker.saw_copy(event("a").digest(), 1);
    tracker.saw_copy(event("tick").digest(), 1);
    assert_eq!(names(&tracker.hand_out(10, 1 << 20)), ["b".into(), "tick".into()] as [Arc<str>; 2]);
    assert!(tracker.hand_out(10, 1 << 20).is_empty());
    tracker.saw_copy(event("b").digest(), 2);
    tracker.start_over();
    assert_eq!(names(&tracker.hand_out(10, 1 << 20)), ["tick".into()] as [Arc<str>; 1]);
    tracker.saw_copy(event("tick").digest(), 3);
    assert_eq!((tracker.items.len(), tracker.bytes, tracker.uncopied.len()), (0, 0, 0));
}

#[test]
fn a_copy_may_come_before_its_message_but_not_long() {
    let mut tracker = CopyTracker::default();
    tracker.saw_copy(event("a").digest(), 0);
    assert!(tracker.track(event("a"), EARLY_COPY_MS - 1));
    assert!(tracker.items.is_empty());
    tracker.saw_copy(event("a").digest(), 0);
    assert!(tracker.track(event("a"), EARLY_COPY_MS));
    assert_eq!(tracker.items.len(), 1);
    for n in 0..3 * MAX_EARLY_COPIES as u64 {
        tracker.saw_copy(Digest(u128::from(n).to_be_bytes()), 0);
    }
    assert!(tracker.early_copies.len() <= MAX_EARLY_COPIES);
    tracker.expire(EARLY_COPY_MS);
    assert_eq!((tracker.early_copies.len(), tracker.early_order.len()), (0, 0));
}

#[test]
fn what_waits_is_bounded_in_time_and_bytes() {
    let mut tracker = CopyTracker::default();
    let big = Content::Event(Draft::new(
        "r",
        "big",
        Args::one(&format!("\"{}\"", "x".repeat(4 << 20))).unwrap(),
        Source::Emitter,
    ));
    let taken = (0..10).filter(|_| tracker.track(big.clone(), 0)).count();
    assert_eq!(taken, 7);
    assert_eq!(tracker.oldest_ms(), Some(0));
    tracker.accepted(0);
    assert_eq!(tracker.expire(MAX_AGE_MS - 1), 0);
    assert_eq!(tracker.expire(MAX_AGE_MS), 6);
    assert_eq!((tracker.bytes, tracker.items.len(), tracker.uncopied.len(), tracker.oldest_ms()), (0, 0, 0, None));
}

#[test]
fn volatile_events_are_handed_out_once_and_wait_for_no_copy() {
    let mut tracker = CopyTracker::default();
    let Content::Event(draft) = event("v") else { panic!() };
    assert!(tracker.track(Content::Event(Draft { volatile: true, ..draft }), 0));
    assert_eq!(names(&tracker.hand_out(10, 1 << 20)), ["v".into()] as [Arc<str>; 1]);
    tracker.start_over();
    assert!(tracker.hand_out(10, 1 << 20).is_empty());
    assert_eq!((tracker.items.len(), tracker.bytes), (0, 0));
}

proptest! {
    /// Two nodes receive the same; the first copies some and dies at any point; what the second hands out after it has read
    /// the log to its end makes the log hold each message as often as it was published.
    #[test]
    fn a_takeover_neither_doubles_nor_loses(
        published in prop::collection::vec(0u8..4, 0..60),
        copied in 0usize..60,
        lag in 0usize..60,
    ) {
        let (mut first, mut second) = (CopyTracker::default(), CopyTracker::default());
        let mut log = Vec::new();
        for (at, name) in published.iter().enumerate() {
            let content = event(&name.to_string());
            prop_assert!(first.track(content.clone(), 0));
            if at < copied {
                log.extend(first.hand_out(1, 1 << 20).into_iter().map(|(_, content)| content));
            }
            // The second one's subscription is behind its tail, or before it.
            if at >= lag {
                let content = event(&published[at - lag].to_string());
                prop_assert!(second.track(content, 0));
            }
            if at < copied {
                second.saw_copy(content.digest(), 0);
            }
        }
        for name in &published[published.len().saturating_sub(lag)..] {
            prop_assert!(second.track(event(&name.to_string()), 0));
        }
        second.start_over();
        log.extend(second.hand_out(1000, 1 << 20).into_iter().map(|(_, content)| content));
        let count = |name: u8| published.iter().filter(|other| **other == name).count();
        for name in 0..4 {
            let digest = event(&name.to_string()).digest();
            prop_assert_eq!(log.iter().filter(|content| content.digest() == digest).count(), count(name));
        }
    }
}
