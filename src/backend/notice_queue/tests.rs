use super::*;
use crate::backend::request::RequestKind;

const MAX: usize = 10_000;

fn request(name: &str) -> EncodedRequest {
    EncodedRequest { kind: RequestKind::Connect, id: Id::random(), body: name.to_owned().into(), trace: None }
}

fn push(queue: &mut NoticeQueue, user: &str, session: Id, name: &str) -> Lost {
    queue.push(&Source::user(user), Subject::Session(session), request(name))
}

fn sent(queue: &mut NoticeQueue, now_ms: u64) -> Option<(String, Notice)> {
    match queue.next(now_ms) {
        Next::Send(notice) => Some((String::from_utf8(notice.request.body.to_vec()).unwrap(), notice)),
        Next::At(_) | Next::Nothing => None,
    }
}

fn is_empty(queue: &NoticeQueue) -> bool {
    queue.lanes.is_empty()
        && queue.subjects.is_empty()
        && queue.ready.is_empty()
        && queue.delayed.is_empty()
        && queue.by_size.is_empty()
        && (queue.bytes, queue.len) == (0, 0)
}

#[test]
fn one_user_at_a_time_in_order_and_users_in_turn() {
    let mut queue = NoticeQueue::new(MAX);
    for name in ["a1", "a2", "b1"] {
        assert_eq!(push(&mut queue, &name[..1], Id::random(), name), Lost::default());
    }
    let (name, first) = sent(&mut queue, 0).unwrap();
    assert_eq!((&*name, &*sent(&mut queue, 0).unwrap().0), ("a1", "b1"));
    assert!(sent(&mut queue, 0).is_none(), "the second of a waits for the first");
    queue.done(&first);
    assert_eq!(sent(&mut queue, 0).unwrap().0, "a2");
}

#[test]
fn of_one_session_at_most_two_wait() {
    let mut queue = NoticeQueue::new(MAX);
    let (session, other) = (Id::random(), Id::random());
    let [connect, disconnect] = [RequestKind::Connect, RequestKind::Disconnect];
    let about = |queue: &mut NoticeQueue, kind: RequestKind, name: &str| {
        let merged =
            queue.push(&Source::user("a"), Subject::Session(session), EncodedRequest { kind, ..request(name) });
        merged.merged
    };
    assert_eq!(about(&mut queue, connect, "connect"), 0);
    push(&mut queue, "a", other, "other");
    assert_eq!(about(&mut queue, disconnect, "disconnect"), 0);
    assert_eq!(about(&mut queue, connect, "connect 2"), 2);
    assert_eq!(about(&mut queue, disconnect, "disconnect 2"), 0);
    let (name, notice) = sent(&mut queue, 0).unwrap();
    assert_eq!(name, "connect 2", "in the place of the first");
    assert_eq!(about(&mut queue, connect, "connect 3"), 0);
    assert_eq!(queue.retry(notice, 100), Lost::default(), "it may have arrived, so it is not replaced");
    assert_eq!(about(&mut queue, disconnect, "disconnect 3"), 2);
    assert_eq!(about(&mut queue, disconnect, "disconnect 4"), 1);
    assert!(matches!(queue.next(99), Next::At(100)));
    for expected in ["connect 2", "other", "disconnect 4"] {
        let (name, notice) = sent(&mut queue, 100).unwrap();
        assert_eq!(name, expected);
        queue.done(&notice);
    }
    assert!(is_empty(&queue));
}

#[test]
fn a_retry_comes_before_the_others_of_its_lane_and_delays_no_other() {
    let mut queue = NoticeQueue::new(MAX);
    push(&mut queue, "a", Id::random(), "a1");
    push(&mut queue, "a", Id::random(), "a2");
    let (_, notice) = sent(&mut queue, 0).unwrap();
    queue.retry(notice, 50);
    push(&mut queue, "b", Id::random(), "b1");
    assert_eq!(sent(&mut queue, 0).unwrap().0, "b1");
    assert!(sent(&mut queue, 49).is_none());
    let (name, notice) = sent(&mut queue, 50).unwrap();
    assert_eq!(name, "a1");
    queue.done(&notice);
    assert_eq!(sent(&mut queue, 50).unwrap().0, "a2");
}

#[test]
fn the_largest_source_loses_its_oldest_first() {
    let mut queue = NoticeQueue::new(MAX);
    let bystander = Id::random();
    push(&mut queue, "bystander", bystander, "bystander");
    let mut dropped = 0;
    for number in 0..1_000 {
        dropped += push(&mut queue, "flood", Id::random(), &format!("{number}")).dropped;
        assert!(queue.bytes() <= MAX);
    }
    assert_eq!(dropped as usize + queue.len, 1_001);
    push(&mut queue, "bystander", bystander, "bystander left");
    assert_eq!(sent(&mut queue, 0).unwrap().0, "bystander left");
    let (name, _) = sent(&mut queue, 0).unwrap();
    assert_eq!(name, dropped.to_string(), "the oldest went");
    assert_eq!(push(&mut queue, "large", Id::random(), &"x".repeat(2 * MAX)).dropped, 1, "it never fits");
}

#[test]
fn lanes_whose_notices_were_dropped_are_forgotten() {
    let mut queue = NoticeQueue::new(MAX);
    push(&mut queue, "a", Id::random(), &"x".repeat(5_000));
    let (_, notice) = sent(&mut queue, 0).unwrap();
    queue.retry(notice, 1_000);
    push(&mut queue, "b", Id::random(), &"x".repeat(4_990));
    push(&mut queue, "c", Id::random(), "c");
    assert_eq!(queue.len, 2);
    assert!(!queue.subjects.values().any(|place| place.is_sent));
    for _ in 0..2 {
        let (_, notice) = sent(&mut queue, 1_000).unwrap();
        queue.done(&notice);
    }
    assert!(sent(&mut queue, 2_000).is_none());
    assert!(is_empty(&queue));
}

#[test]
fn sessions_of_an_address_are_sent_side_by_side() {
    let mut queue = NoticeQueue::new(1_000_000);
    let source = Source::address([10, 0, 0, 1].into());
    for _ in 0..100 {
        queue.push(&source, Subject::Session(Id::random()), request("x"));
    }
    let sending = std::iter::from_fn(|| sent(&mut queue, 0)).count();
    assert_eq!(sending as u64, PARTS);
}
