use super::*;
use crate::log::Snapshot;
use crate::log::window::Window;
use crate::model::args::Args;
use crate::model::draft::{Draft, Source};
use crate::model::event::Event;
use crate::model::offset::Epoch;
use crate::model::partition::Line;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

const MAX: Slice = Slice { events: 3, bytes: 1 << 20 };

fn at(ms: u64) -> Position {
    Position { ms, seq: 0 }
}

fn offset(ms: u64) -> Offset {
    Offset { epoch: Epoch(7), position: at(ms), line: Line::CONTROL }
}

fn place(ms: u64) -> Place {
    offset(ms).into()
}

fn window() -> Window {
    let mut window = Window::new(Duration::from_secs(1_000), 1 << 20);
    window.reset(
        &Snapshot {
            line: Line::CONTROL,
            epoch: Epoch(7),
            floor: at(0),
            head: at(0),
            history: Vec::new(),
            commands: Vec::new(),
        },
        0,
    );
    window
}

fn publish(window: &mut Window, ms: u64, rooms: &[&str], except: &[&str]) {
    let mut draft = Draft::new("", &ms.to_string(), Args::none(), Source::Http);
    draft.rooms = rooms.iter().map(|&room| room.into()).collect();
    draft.except = except.iter().map(|&room| room.into()).collect();
    window.push(Arc::new(Event { offset: offset(ms), draft, accepted_us: 0, after: None }), ms);
}

fn change(ms: u64, room: &str, joined: bool) -> Change {
    Change { after: at(ms), partition: None, room: room.into(), joined }
}

fn cursor(rooms: &[&str], after: u64, changes: Vec<Change>, here: u64) -> Replay {
    let rooms = rooms.iter().map(|&room| room.into()).collect();
    Replay::new(&Id::random(), vec![Missing { after: offset(after), rooms, changes }], &place(here))
}

/// Everything up to `here`; each event by its position, and the index of the room it is for.
fn run(replay: &mut Replay, window: &Window, here: u64) -> Vec<(u64, usize)> {
    let mut all = Vec::new();
    while !replay.is_over(&place(here)) {
        match replay.step(window, &place(here), "/", MAX) {
            Step::Events(missed) => all.extend(missed.iter().map(|one| (one.event.offset.position.ms, one.room))),
            other => panic!("{other:?}"),
        }
    }
    all
}

#[test]
fn each_event_comes_by_the_rooms_of_its_time() {
    let mut window = window();
    for ms in 1..=9 {
        publish(&mut window, ms, &["a"], &[]);
        publish(&mut window, 10 * ms, &["b"], &[]);
    }
    let mut window = self::window();
    for (ms, rooms, except) in [
        (1, &["a"][..], &[][..]),
        (2, &["b"], &[]),
        (3, &["c", "b"], &[]),
        (4, &["a"], &["b"]),
        (5, &["a"], &[]),
        (6, &["b"], &[]),
    ] {
        publish(&mut window, ms, rooms, except);
    }
    let mut replay = cursor(&["a"], 0, vec![change(2, "b", true), change(4, "a", false)], 6);
    assert_eq!(run(&mut replay, &window, 6), [(1, 0), (3, 1), (6, 0)]);
    assert_eq!(replay.position_on(Line::CONTROL), Some(at(6)));
}

#[test]
fn live_events_come_after_what_was_missed_and_changes_count_from_their_place() {
    let mut window = window();
    (1..=20).for_each(|ms| publish(&mut window, ms, &[if ms % 2 == 0 { "a" } else { "b" }], &[]));
    let mut replay = cursor(&["a"], 0, Vec::new(), 10);
    let Step::Events(first) = replay.step(&window, &place(10), "/", MAX) else { panic!() };
    assert_eq!((first.len(), first[0].is_late, replay.position_on(Line::CONTROL)), (3, false, Some(at(6))));
    // The shard goes on, and the session joins and leaves, while its client has not taken more.
    replay.note(&change(12, "b", true));
    replay.note(&change(16, "a", false));
    assert!(!replay.is_over(&place(20)));
    let rest: Vec<_> = run(&mut replay, &window, 20).into_iter().map(|(ms, _)| ms).collect();
    assert_eq!(rest, [8, 10, 12, 13, 14, 15, 16, 17, 19]);
}

#[test]
fn pasts_of_rooms_come_in_log_order_and_once() {
    let mut window = window();
    for ms in 1..=30 {
        publish(&mut window, ms, [&["a"][..], &["b"], &["c", "a"]][ms as usize % 3], &[]);
    }
    // Live in `c` at 20, it joins `a` from 5 and `b` from 12 at 20 and 21.
    let mut replay = cursor(&["c"], 20, Vec::new(), 20);
    replay.note(&change(20, "a", true));
    replay.add_past(&"a".into(), &place(5), &place(20));
    replay.note(&change(21, "b", true));
    replay.add_past(&"b".into(), &place(12), &place(21));
    assert_eq!(replay.position_on(Line::CONTROL), Some(at(5)));
    let got = run(&mut replay, &window, 30);
    let want = (6..=30).filter(|ms| ms % 3 != 1 || *ms > 12);
    assert_eq!(got, want.map(|ms| (ms, usize::from(ms % 3 == 2 && ms <= 20))).collect::<Vec<_>>());
}

#[test]
fn who_leaves_a_room_before_having_its_past_gets_no_more_of_it() {
    let mut window = window();
    for ms in 1..=20 {
        let (room, except): (_, &[&str]) = if ms == 13 { ("b", &["a"]) } else { ("a", &[]) };
        publish(&mut window, ms, &[room], except);
    }
    let mut replay = cursor(&["b"], 10, Vec::new(), 10);
    replay.note(&change(10, "a", true));
    replay.add_past(&"a".into(), &place(0), &place(10));
    let Step::Events(first) = replay.step(&window, &place(20), "/", MAX) else { panic!() };
    replay.note(&change(15, "a", false));
    replay.forget(&"a".into(), &place(15));
    // What came after the join would hide that 4 to 10 are missing. Still, it was in the room then: 13 is not for it.
    assert_eq!((first.len(), run(&mut replay, &window, 18)), (3, vec![]));
    replay.note(&change(18, "a", true));
    replay.add_past(&"a".into(), &place(3), &place(18));
    let again: Vec<_> = run(&mut replay, &window, 20).into_iter().map(|(ms, _)| ms).collect();
    assert_eq!(again, (4..=20).filter(|ms| *ms != 13).collect::<Vec<_>>());
}

/// What a session in `a` and `b` gets that leaves `a` at 12 and joins it again at 16, while its client has nothing after 3.
fn left_and_joined_again(for_good: bool) -> Vec<u64> {
    let mut window = window();
    for ms in 1..=20 {
        let (rooms, except): (&[&str], &[&str]) = match ms {
            5 => (&["b"], &["a"]),
            8 => (&["a", "b"], &[]),
            14 => (&["b"], &[]),
            _ => (&["a"], &[]),
        };
        publish(&mut window, ms, rooms, except);
    }
    let mut replay = cursor(&["a", "b"], 3, Vec::new(), 10);
    replay.note(&change(12, "a", false));
    if for_good {
        replay.forget(&"a".into(), &place(12));
    }
    replay.note(&change(16, "a", true));
    assert_eq!(replay.place_of(&"a".into(), &place(16)), place(if for_good { 16 } else { 3 }));
    run(&mut replay, &window, 20).into_iter().map(|(ms, _)| ms).collect()
}

#[test]
fn who_leaves_a_room_at_its_own_wish_gets_nothing_more_of_it_until_it_joins_again() {
    assert_eq!(left_and_joined_again(true), [8, 14, 17, 18, 19, 20], "8 by the other room, 5 excepts it");
}

#[test]
fn who_is_made_to_leave_a_room_gets_what_it_had_before() {
    assert_eq!(left_and_joined_again(false), [4, 6, 7, 8, 9, 10, 11, 12, 14, 17, 18, 19, 20]);
}

#[test]
fn who_is_made_to_leave_a_room_gets_the_past_that_it_asked_for() {
    let mut window = window();
    (1..=20).for_each(|ms| publish(&mut window, ms, &["a"], &[]));
    let mut replay = cursor(&["b"], 10, Vec::new(), 10);
    replay.note(&change(10, "a", true));
    replay.add_past(&"a".into(), &place(4), &place(10));
    replay.note(&change(15, "a", false));
    let got: Vec<_> = run(&mut replay, &window, 20).into_iter().map(|(ms, _)| ms).collect();
    assert_eq!(got, (5..=15).collect::<Vec<_>>());
}

#[test]
fn rooms_that_are_left_again_and_again_are_remembered_once() {
    let mut replay = cursor(&["a"], 0, Vec::new(), 10);
    (11..500).for_each(|ms| replay.forget(&"b".into(), &place(ms)));
    assert!(replay.size() < 1_000, "{}", replay.size());
}

#[test]
fn a_room_that_the_token_does_not_give_any_more_brings_nothing_also_of_before() {
    let mut window = window();
    for ms in 1..=20 {
        // The session was in `a` until it lost it, and joined only at 12.
        let except: &[&str] = if matches!(ms, 11 | 13) { &["a"] } else { &[] };
        publish(&mut window, ms, &[if ms % 2 == 0 { "a" } else { "b" }], except);
    }
    let mut replay = cursor(&["b"], 10, vec![change(12, "a", true)], 20);
    replay.add_past(&"a".into(), &place(0), &place(10));
    replay.note(&change(20, "a", false));
    replay.forget(&"a".into(), &place(20));
    let got: Vec<_> = run(&mut replay, &window, 20).into_iter().map(|(ms, _)| ms).collect();
    assert_eq!(got, [11, 15, 17, 19]);
}

#[test]
fn what_is_gone_is_reported_once() {
    let mut window = window();
    (1..=20).for_each(|ms| publish(&mut window, ms, &["a"], &[]));
    window.expire(1_000_010);
    let mut replay = cursor(&["b"], 12, Vec::new(), 12);
    replay.add_past(&"a".into(), &place(5), &place(12));
    let step = replay.step(&window, &place(20), "/", MAX);
    assert!(matches!(step, Step::Lost { room: Some(room), up_to, .. } if &*room == "a" && up_to == offset(12)));
    assert!(run(&mut replay, &window, 20).is_empty());
    let mut replay = cursor(&["a"], 5, Vec::new(), 12);
    assert!(
        matches!(replay.step(&window, &place(20), "/", MAX), Step::Lost { room: None, up_to, .. } if up_to == offset(20))
    );
    assert!(replay.is_over(&place(20)));
    let mut foreign = cursor(&["a"], 5, Vec::new(), 12);
    let here = Offset { epoch: Epoch(8), position: at(3), line: Line::CONTROL };
    assert!(matches!(foreign.step(&window, &here.into(), "/", MAX), Step::Reset));
}

#[test]
fn changes_that_wait_are_bounded() {
    let window = window();
    let mut replay = cursor(&["a"], 0, Vec::new(), 10);
    (11..10_000).for_each(|ms| replay.note(&change(ms, "b", ms % 2 == 0)));
    assert!(replay.size() < 1_000);
    assert!(matches!(replay.step(&window, &place(10_000), "/", MAX), Step::Lost { room: None, .. }));
}

proptest! {
    /// However the steps, the changes and the log are interleaved, the cursor gives what a live session would have got.
    #[test]
    fn a_cursor_is_as_good_as_having_been_there(
        what in prop::collection::vec((0u8..4, 0u8..4, any::<bool>(), any::<bool>()), 1..120),
        first in 0u8..4,
    ) {
        let name = |room: u8| format!("r{room}");
        let mut window = window();
        let mut replay = cursor(&[&name(first)], 0, Vec::new(), 0);
        let (mut inside, mut want, mut got) = (vec![first], Vec::new(), Vec::new());
        let mut take = |replay: &mut Replay, window: &Window, here: u64| {
            if let Step::Events(missed) = replay.step(window, &place(here), "/", MAX) {
                got.extend(missed.iter().map(|one| one.event.offset.position.ms));
            }
        };
        for (ms, (room, except, changes, steps)) in (1..).zip(what) {
            publish(&mut window, ms, &[&name(room)], &[&name(except)]);
            if inside.contains(&room) && !inside.contains(&except) {
                want.push(ms);
            }
            if changes {
                let joins = !inside.contains(&except);
                if joins { inside.push(except) } else { inside.retain(|other| *other != except) }
                replay.note(&change(ms, &name(except), joins));
            }
            if steps {
                take(&mut replay, &window, ms);
            }
        }
        let here = window.head().position.ms;
        while !replay.is_over(&place(here)) {
            take(&mut replay, &window, here);
        }
        prop_assert_eq!(got, want);
    }
}
