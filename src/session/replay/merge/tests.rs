use super::*;
use crate::log::Snapshot;
use crate::log::window::{Gap, Pulled, Window};
use crate::model::after::After;
use crate::model::args::Args;
use crate::model::command::SessionCommand;
use crate::model::draft::{Draft, Source};
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::offset::{Epoch, Offset, Position};
use crate::model::partition::Line;
use crate::session::changes::Change;
use crate::session::parked::UNPROVABLE;
use crate::session::replay::{Missing, Replay};
use std::sync::Arc;
use std::time::Duration;

/// The windows of three lines.
struct Lines([Window; 3]);

impl RecentLog for Lines {
    fn covers(&self, after: Offset, namespace: &str, rooms: &[Room]) -> Result<(), Gap> {
        self.0[after.line.index()].covers(after, namespace, rooms)
    }

    fn pull(&self, after: Offset, up_to: Position, namespace: &str, rooms: &[Room], max: Slice) -> Result<Pulled, Gap> {
        self.0[after.line.index()].pull(after, up_to, namespace, rooms, max)
    }

    fn commands(&self, after: Offset) -> Result<Vec<(Position, Arc<SessionCommand>)>, Gap> {
        RecentLog::commands(&self.0[0], after)
    }

    fn filled_up_to(&self, line: Line) -> Position {
        self.0[line.index()].filled_up_to()
    }
}

fn at(ms: u64) -> Position {
    Position { ms, seq: 0 }
}

fn offset(line: u8, ms: u64) -> Offset {
    Offset { epoch: Epoch(7), position: at(ms), line: Line::new(line).unwrap() }
}

fn lines() -> Lines {
    Lines([0, 1, 2].map(|number| {
        let mut window = Window::new(Duration::from_secs(1_000), 1 << 20);
        let Offset { line, epoch, position } = offset(number, 0);
        let (history, commands) = (Vec::new(), Vec::new());
        window.reset(&Snapshot { line, epoch, floor: position, head: position, history, commands }, 0);
        window
    }))
}

/// An event at a place, accepted at a time, behind positions on other lines.
fn publish(lines: &mut Lines, (line, ms): (u8, u64), accepted_us: u64, behind: &[(u8, u64)]) {
    let behind: Vec<_> = behind.iter().map(|(line, ms)| offset(*line, *ms)).collect();
    publish_behind(lines, (line, ms), accepted_us, &behind);
}

fn publish_behind(lines: &mut Lines, at: (u8, u64), accepted_us: u64, behind: &[Offset]) {
    publish_in("a", lines, at, accepted_us, behind);
}

fn publish_in(room: &str, lines: &mut Lines, (line, ms): (u8, u64), accepted_us: u64, behind: &[Offset]) {
    let draft = Draft::new(room, &format!("{line}:{ms}"), Args::none(), Source::Http);
    let mut after = After::default();
    behind.iter().for_each(|offset| after.add(*offset));
    let event = Event { offset: offset(line, ms), draft, accepted_us, after: after.boxed() };
    lines.0[usize::from(line)].push(Arc::new(event), 0);
}

fn place(positions: [u64; 3]) -> Place {
    let mut place = Place::from(offset(0, positions[0]));
    (1..).zip(&positions[1..]).for_each(|(line, ms)| place.set(offset(line, *ms)));
    place
}

/// What a session in room `a` on all lines gets in steps of so many events, and each place after it.
fn replayed(lines: &Lines, here: [u64; 3], events: usize) -> Vec<(String, Place)> {
    let here = place(here);
    let missing = |after| Missing { after, rooms: vec!["a".into()], changes: Vec::new() };
    let mut replay = Replay::new(&Id::random(), place([0; 3]).offsets().map(missing).collect(), &here);
    let mut all = Vec::new();
    while !replay.is_over(&here) {
        match replay.step(lines, &here, "/", Slice { events, bytes: 1 << 20 }) {
            Step::Events(missed) => {
                all.extend(missed.into_iter().map(|one| (one.event.draft.event.to_string(), one.place.unwrap())))
            }
            other => panic!("{other:?}"),
        }
    }
    all
}

fn names(got: &[(String, Place)]) -> Vec<&str> {
    got.iter().map(|(name, _)| &**name).collect()
}

#[test]
fn an_event_comes_after_what_it_names_however_small_the_steps() {
    let mut lines = lines();
    // The clock of the node that accepted what is on line 1 is behind.
    for round in 1..20 {
        let ms = round * 10;
        publish(&mut lines, (0, ms), ms, &[(2, ms)]);
        publish(&mut lines, (1, ms), 0, &[(0, ms)]);
        publish(&mut lines, (2, ms), ms + 1, &[]);
    }
    let want: Vec<_> = (1..20).flat_map(|round| [2, 0, 1].map(|line| format!("{line}:{}", round * 10))).collect();
    for events in [1, 2, 3, 7, 100] {
        let got = replayed(&lines, [190; 3], events);
        let within =
            |line: char| names(&got).into_iter().filter(move |name| name.starts_with(line)).collect::<Vec<_>>();
        for line in ['0', '1', '2'] {
            assert_eq!(within(line), want.iter().filter(|name| name.starts_with(line)).collect::<Vec<_>>());
        }
        let index = |name: &String| names(&got).iter().position(|got| got == name).unwrap();
        for round in want.chunks(3) {
            assert!(
                index(&round[0]) < index(&round[1]) && index(&round[1]) < index(&round[2]),
                "{events}: {:?}",
                names(&got)
            );
        }
    }
}

#[test]
fn a_place_has_what_came_before_it_and_nothing_else() {
    let mut lines = lines();
    publish(&mut lines, (1, 10), 1, &[]);
    publish(&mut lines, (0, 10), 2, &[(1, 10)]);
    publish(&mut lines, (1, 20), 3, &[(0, 10)]);
    publish(&mut lines, (2, 10), 4, &[]);
    let got = replayed(&lines, [30; 3], 100);
    assert_eq!(names(&got), ["1:10", "0:10", "1:20", "2:10"]);
    assert_eq!(got[0].1, place([0, 10, 0]));
    assert_eq!(got[1].1, place([10, 10, 0]));
    // Nothing more is on the control line, or on line 1.
    assert_eq!(got[3].1, place([30, 30, 10]));
}

#[test]
fn what_names_a_position_that_its_line_lost_comes_before_what_names_it() {
    let mut lines = lines();
    // The control line was at 90 when a failover took that from it, and its new master's clock is behind. So is the clock by
    // which the event after that was accepted.
    let lost = Offset { epoch: Epoch(6), ..offset(0, 90) };
    publish_behind(&mut lines, (1, 50), 200, &[lost]);
    publish(&mut lines, (0, 60), 100, &[(1, 50)]);
    publish(&mut lines, (2, 50), 300, &[(0, 60)]);
    for events in [1, 5] {
        assert_eq!(names(&replayed(&lines, [60; 3], events)), ["1:50", "0:60", "2:50"]);
    }
    // Until nodes notice, what they write to the new master has the epoch of before.
    let mut lines = self::lines();
    publish(&mut lines, (0, 60), 200, &[]);
    publish_behind(&mut lines, (1, 50), 100, &[Offset { epoch: Epoch(6), ..offset(0, 60) }]);
    assert_eq!(names(&replayed(&lines, [60; 3], 5)), ["0:60", "1:50"]);
}

#[test]
fn whoever_lost_something_on_one_line_is_not_believed_to_have_the_last_event() {
    let mut lines = lines();
    publish(&mut lines, (0, 10), 1, &[]);
    publish(&mut lines, (1, 10), 2, &[]);
    let here = place([10; 3]);
    let missing = |after| Missing { after, rooms: vec!["a".into()], changes: Vec::new() };
    let mut replay = Replay::new(&Id::random(), place([0; 3]).offsets().map(missing).collect(), &here);
    assert_eq!(replay.last_possible(&here), Some((Line::CONTROL, UNPROVABLE)), "its client can be there on one alone");
    let one = Slice { events: 1, bytes: 1 << 20 };
    let Step::Events(first) = replay.step(&lines, &here, "/", one) else { panic!() };
    let place = first[0].place.clone().unwrap();
    assert_eq!(
        replay.last_possible(&here),
        Some((Line::new(1).unwrap(), at(10))),
        "its client can have that of line 0"
    );
    lines.0[1].expire(2_000_000);
    assert!(matches!(replay.step(&lines, &here, "/", one), Step::Lost { room: None, .. }));
    assert_eq!((place.control().position, replay.last_possible(&here)), (at(10), Some((Line::CONTROL, UNPROVABLE))));
    let mut whole = Replay::new(&Id::random(), place.offsets().take(1).map(missing).collect(), &here);
    assert!(matches!(whole.step(&lines, &here, "/", one), Step::Events(missed) if missed.is_empty()));
    assert_eq!(whole.last_possible(&here), None, "what was queued last is the last");
}

#[test]
fn what_names_nothing_comes_as_it_was_accepted() {
    let mut lines = lines();
    // Another master's clock is a minute ahead.
    for (at, accepted_us) in [((1, 60_010), 1), ((0, 20), 2), ((2, 5), 3), ((1, 60_040), 4), ((0, 30), 5)] {
        publish(&mut lines, at, accepted_us, &[]);
    }
    let got = replayed(&lines, [100, 60_100, 100], 2);
    assert_eq!(names(&got), ["1:60010", "0:20", "2:5", "1:60040", "0:30"]);
}

#[test]
fn nothing_waits_for_what_comes_live_or_for_itself_or_in_a_circle() {
    let mut lines = lines();
    publish(&mut lines, (0, 10), 1, &[(1, 999), (0, 999), (64, 999)]);
    publish(&mut lines, (1, 10), 2, &[(2, 20)]);
    publish(&mut lines, (2, 20), 3, &[(1, 10)]);
    let got = replayed(&lines, [30; 3], 100);
    assert_eq!(names(&got), ["0:10", "1:10", "2:20"]);
}

/// A change of the room that all lines have, which is of partition 1.
fn change((control, partition): (u64, u64), joined: bool) -> Change {
    Change { after: at(control), partition: Some(offset(1, partition)), room: "a".into(), joined }
}

/// A `/ws` session in `b` that has everything up to here.
fn session_in_b(here: &Place) -> Replay {
    let missing = |after| Missing { after, rooms: vec!["b".into()], changes: Vec::new() };
    Replay::new(&Id::random(), here.offsets().map(missing).collect(), here).by_room()
}

fn rest(replay: &mut Replay, lines: &Lines, here: &Place) -> Vec<(String, Place)> {
    let mut all = Vec::new();
    while !replay.is_over(here) {
        let Step::Events(missed) = replay.step(lines, here, "/", Slice { events: 2, bytes: 1 << 20 }) else { panic!() };
        all.extend(missed.into_iter().map(|one| (one.event.draft.event.to_string(), one.place.unwrap())));
    }
    all
}

#[test]
fn who_leaves_a_room_before_having_its_past_on_one_line_gets_no_more_of_it_on_any() {
    let mut lines = lines();
    (1..=20).for_each(|ms| publish(&mut lines, (1, ms), ms, &[]));
    (11..=20).for_each(|ms| publish(&mut lines, (0, ms), 100 + ms, &[]));
    let here = place([10, 10, 0]);
    let mut replay = session_in_b(&here);
    replay.note(&change((10, 10), true));
    // On the control line it has missed nothing.
    replay.add_past(&"a".into(), &place([10, 2, 0]), &here);
    let here = place([15, 15, 0]);
    replay.note(&change((15, 15), false));
    replay.forget(&"a".into(), &here);
    replay.note(&change((15, 15), true));
    replay.add_past(&"a".into(), &place([14, 13, 0]), &here);
    let got = rest(&mut replay, &lines, &place([16, 16, 0]));
    let names: Vec<_> = got.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["1:14", "1:15", "1:16", "0:15", "0:16"]);
}

#[test]
fn the_place_of_an_event_names_nothing_of_a_room_before_it_was_joined() {
    let mut lines = lines();
    (1..=20).for_each(|ms| publish(&mut lines, (1, ms), 100 + ms, &[]));
    publish(&mut lines, (0, 13), 1, &[]);
    let mut replay = session_in_b(&place([10, 5, 0]));
    replay.note(&change((12, 12), true));
    let here = place([14, 14, 0]);
    assert_eq!(replay.place_of(&"a".into(), &here), place([12, 12, 0]));
    let got = rest(&mut replay, &lines, &here);
    let named = |name: &str, at| (name.to_owned(), place(at));
    assert_eq!(got, [named("0:13", [13, 12, 0]), named("1:13", [14, 13, 0]), named("1:14", [14, 14, 0])]);
}

#[test]
fn the_place_of_an_event_counts_for_all_rooms_but_where_the_client_goes_on_in_each_by_itself() {
    let mut lines = lines();
    // The node that accepted the first, while the session was in `b` alone, has a clock that is ahead.
    publish_in("b", &mut lines, (0, 10), 100, &[]);
    publish(&mut lines, (1, 6), 1, &[]);
    let first = |by_room: bool| {
        let missing = |after| Missing { after, rooms: vec!["b".into()], changes: vec![change((20, 5), true)] };
        let missing = place([0, 4, 0]).offsets().map(missing).collect();
        let here = place([30, 30, 0]);
        let mut replay = Replay { by_room, ..Replay::new(&Id::random(), missing, &here) };
        let Step::Events(missed) = replay.step(&lines, &here, "/", Slice { events: 1, bytes: 1 << 20 }) else {
            panic!()
        };
        let first = missed.into_iter().next().unwrap();
        (first.event.draft.event.to_string(), first.place.unwrap())
    };
    assert_eq!([first(false), first(true)], [[0, 6, 0], [20, 6, 0]].map(|at| ("1:6".to_owned(), place(at))));
}
