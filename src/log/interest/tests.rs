use super::*;
use crate::model::args::Args;
use crate::model::draft::{Draft, Source};
use crate::model::offset::{Epoch, Offset};
use crate::model::partition::Line;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const MAIN: NamespaceIndex = NamespaceIndex::new(0);
const KEPT: Duration = Duration::from_secs(100);

fn interest() -> Interest {
    Interest::of_sessions(Namespaces::new(&["/".to_owned()]), KEPT)
}

/// Lets time pass, as the tail does.
fn pass(interest: &Interest, now: &mut u64, seconds: u64) {
    for _ in 0..seconds {
        *now += 1000;
        interest.expire(*now);
    }
}

fn at(ms: u64) -> Position {
    Position { ms, seq: 0 }
}

fn room(name: &str) -> Room {
    name.into()
}

#[test]
fn a_room_is_wanted_while_somebody_is_in_it_and_for_the_window_after() {
    let (interest, mut now) = (interest(), 0);
    assert!(!interest.wants("/", "a", at(1)));
    interest.enter(MAIN, &room("a"));
    interest.enter(MAIN, &room("a"));
    assert!(interest.wants("/", "a", at(2)) && !interest.wants("/", "b", at(2)) && !interest.wants("/x", "a", at(2)));
    interest.leave(MAIN, &room("a"));
    pass(&interest, &mut now, 500);
    assert!(interest.wants("/", "a", at(3)), "another shard has members");
    interest.leave(MAIN, &room("a"));
    pass(&interest, &mut now, 99);
    assert!(interest.wants("/", "a", at(4)));
    interest.enter(MAIN, &room("a"));
    pass(&interest, &mut now, 200);
    assert!(interest.wants("/", "a", at(5)), "somebody came back");
    interest.leave(MAIN, &room("a"));
    now += 1_000_000;
    interest.expire(now);
    assert!(interest.wants("/", "a", at(6)), "the node did not run meanwhile");
    pass(&interest, &mut now, 103);
    assert!(!interest.wants("/", "a", at(7)));
    assert_eq!(interest.rooms(), 0);
}

#[test]
fn what_was_skipped_is_known_and_what_came_after_is_covered() {
    let interest = interest();
    assert!(interest.covers("/", "a", at(0)), "it never had an event");
    interest.wants("/", "a", at(5));
    assert!(!interest.covers("/", "a", at(4)) && interest.covers("/", "a", at(5)));
    interest.touch(MAIN, &room("a"));
    assert!(interest.wants("/", "a", at(9)));
    assert!(!interest.covers("/", "a", at(4)) && interest.covers("/", "a", at(5)));
    interest.fill("/", "a", at(2), at(4));
    assert!(!interest.covers("/", "a", at(4)), "the event at 5 was not read again");
    interest.fill("/", "a", at(2), at(5));
    assert!(!interest.covers("/", "a", at(1)) && interest.covers("/", "a", at(2)));
    interest.reset(at(20));
    assert!(!interest.covers("/", "a", at(19)) && interest.covers("/", "a", at(20)));
    assert!(!interest.covers("/", "never seen", at(19)), "before it nothing is known");
}

#[test]
fn sessions_ids_and_everybody_are_always_wanted() {
    let (interest, id) = (interest(), Id::random_session().to_string());
    assert!(interest.wants("/", &id, at(1)) && interest.wants("/", EVERYBODY, at(1)));
    interest.reset(at(10));
    assert!(!interest.covers("/", &id, at(9)) && interest.covers("/", &id, at(10)));
    interest.fill_always(at(3), at(9));
    assert!(!interest.covers("/", &id, at(9)));
    interest.fill_always(at(3), at(10));
    assert!(interest.covers("/", &id, at(3)) && interest.covers("/", EVERYBODY, at(3)));
    let everything = Interest::everything(Namespaces::new(&[]));
    assert!(everything.wants("/", "a", at(1)) && everything.covers("/", "a", at(0)));
}

#[test]
fn rooms_that_come_and_go_leave_nothing_behind() {
    let interest = interest();
    for n in 0..200_000 {
        let room = room(&format!("room:{n}"));
        interest.enter(MAIN, &room);
        interest.leave(MAIN, &room);
    }
    assert!(interest.rooms() <= MAX_LEFT, "{}", interest.rooms());
    pass(&interest, &mut 0, 110);
    let table = interest.table.as_ref().unwrap();
    let capacity: usize = table.stripes.iter().map(|stripe| stripe.lock().rooms.capacity()).sum();
    assert!(interest.rooms() == 0 && capacity < 2_000, "{} of {capacity}", interest.rooms());
}

#[test]
fn a_room_that_is_touched_again_and_again_is_listed_a_few_times() {
    let interest = interest();
    for second in 0..90 {
        interest.expire(second * 1000);
        interest.touch(MAIN, &room("a"));
    }
    let table = interest.table.as_ref().unwrap();
    let listed: usize = table.stripes.iter().map(|stripe| stripe.lock().left.len()).sum();
    assert!(listed < 10, "{listed}");
    let mut now = 90_000;
    pass(&interest, &mut now, 60);
    assert!(interest.wants("/", "a", at(1)));
    pass(&interest, &mut now, 50);
    assert!(!interest.wants("/", "a", at(2)));
}

#[derive(Clone, Debug)]
enum Step {
    Event(u8),
    Enter(u8),
    Leave(u8),
    Touch(u8),
    Later(u64),
    /// Of a room, from so far back.
    Fill(u8, u64),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..4).prop_map(Step::Event),
        3 => (0u8..4).prop_map(Step::Enter),
        3 => (0u8..4).prop_map(Step::Leave),
        1 => (0u8..4).prop_map(Step::Touch),
        2 => (1u64..60_000).prop_map(Step::Later),
        2 => ((0u8..4), 1u64..40).prop_map(|(room, back)| Step::Fill(room, back)),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    /// What is covered was wanted, event by event; and a room with members has every event from their coming on.
    #[test]
    fn never_covers_what_was_skipped(steps in prop::collection::vec(step(), 1..200)) {
        let interest = interest();
        let (mut head, mut now, mut floor) = (1, 0, 0);
        let mut skipped: BTreeMap<u8, BTreeSet<u64>> = BTreeMap::new();
        let mut members: BTreeMap<u8, (usize, u64)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Event(n) => {
                    head += 1;
                    if !interest.wants("/", &format!("r{n}"), at(head)) {
                        skipped.entry(n).or_default().insert(head);
                    }
                }
                Step::Enter(n) => {
                    interest.enter(MAIN, &room(&format!("r{n}")));
                    let (count, since) = members.entry(n).or_insert((0, head));
                    if *count == 0 { *since = head; }
                    *count += 1;
                }
                Step::Leave(n) => {
                    if let Some((count, _)) = members.get_mut(&n).filter(|(count, _)| *count > 0) {
                        *count -= 1;
                        interest.leave(MAIN, &room(&format!("r{n}")));
                    }
                }
                Step::Touch(n) => interest.touch(MAIN, &room(&format!("r{n}"))),
                Step::Later(ms) => {
                    (0..ms / 1000).for_each(|_| { now += 1000; interest.expire(now); });
                    now += ms % 1000;
                    interest.expire(now);
                }
                Step::Fill(n, back) => {
                    let (name, after) = (format!("r{n}"), head.saturating_sub(back).max(floor));
                    let since = interest.since("/", &name).unwrap();
                    if since > at(after) {
                        interest.fill("/", &name, at(after), since);
                        // Kept where the room is wanted.
                        if interest.covers("/", &name, at(after)) {
                            skipped.entry(n).or_default().retain(|at| *at <= after);
                        }
                    }
                }
                Step::Reset => {
                    floor = head;
                    interest.reset(at(head));
                    members.values_mut().for_each(|(_, since)| *since = head);
                }
            }
            for n in 0..4 {
                let last = skipped.get(&n).and_then(|all| all.last()).copied().unwrap_or(0).max(floor);
                let name = format!("r{n}");
                prop_assert!(!(0..last).any(|after| interest.covers("/", &name, at(after))), "{name} before {last}");
                prop_assert!(interest.covers("/", &name, at(head)));
                if let Some((_, since)) = members.get(&n).filter(|(count, _)| *count > 0) {
                    prop_assert!(interest.covers("/", &name, at(*since)), "{name} since {since}");
                }
            }
        }
    }
}

#[test]
fn a_volatile_event_is_not_kept_and_not_missing() {
    let (interest, mut draft) = (interest(), Draft::new("", "e", Args::none(), Source::Http));
    draft.rooms = vec!["a".into()];
    draft.volatile = true;
    let offset = Offset { epoch: Epoch(7), position: at(5), line: Line::CONTROL };
    let event = Event { offset, draft, accepted_us: 0, after: None };
    assert!(!interest.wants_event(&event));
    assert!(interest.covers("/", "a", at(4)), "nobody reads the log for it");
    interest.enter(MAIN, &room("a"));
    assert!(!interest.wants_event(&event));
}
