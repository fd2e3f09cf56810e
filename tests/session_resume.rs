//! Resumes that find less than the client knows: one was abandoned before, because its client disconnected meanwhile, or a node
//! died before it wrote what it had done.
#![allow(clippy::unwrap_used)]

use roomcast::auth::Identity;
use roomcast::log::Snapshot;
use roomcast::log::config::Bounds;
use roomcast::log::interest::lines::Interests;
use roomcast::log::shared_window::SharedWindow;
use roomcast::log::window::{Gap, Slice, Window};
use roomcast::model::args::Args;
use roomcast::model::command::{Action, Selector, SessionCommand};
use roomcast::model::draft::{Draft, Source};
use roomcast::model::event::Event;
use roomcast::model::id::{Id, NodeId};
use roomcast::model::names::Room;
use roomcast::model::namespaces::{NamespaceIndex, Namespaces};
use roomcast::model::offset::{Epoch, Offset, Position};
use roomcast::model::partition::{Line, Partitions};
use roomcast::model::place::Place;
use roomcast::model::provenance::Provenance;
use roomcast::session::changes::Changes;
use roomcast::session::parked::Parked;
use roomcast::session::recovery::{Lost, take_up};
use roomcast::session::replay::Step;
use std::sync::Arc;
use std::time::Duration;

/// A session in these rooms that began at `start`, where its last event was, and lost its connection at `at`.
fn parked(rooms: &[&str], start: Offset, at: Offset) -> Parked {
    Parked {
        id: Id::random_session(),
        namespace: NamespaceIndex::default(),
        identity: Arc::new(Identity::anonymous()),
        rooms: rooms.iter().map(|room| Room::from(*room)).collect(),
        provenances: vec![],
        decided_on: None,
        changes: Changes::default(),
        start: start.into(),
        last: start.position,
        last_line: Line::CONTROL,
        at: at.into(),
        moves: 0,
    }
}

#[test]
fn commands_are_applied_once_also_when_a_session_is_resumed_twice() {
    let at = |ms| Position { ms, seq: 0 };
    let offset = |ms| Offset { epoch: Epoch(7), position: at(ms), line: Line::CONTROL };
    let mut window = Window::new(Duration::from_secs(100), 1 << 20);
    window.reset(
        &Snapshot {
            line: Line::CONTROL,
            epoch: Epoch(7),
            floor: at(1),
            head: at(1),
            history: vec![],
            commands: vec![],
        },
        0,
    );
    let mut order = |ms, selector, action| {
        let order = SessionCommand {
            id: Id::random(),
            from: NodeId::random(),
            selector,
            namespace: Some("/".into()),
            action,
            at: vec![],
        };
        window.push_command(at(ms), Arc::new(order), 0);
    };
    order(20, Selector::In("b".into()), Action::Join(vec!["secret".into()]));
    order(30, Selector::In("a".into()), Action::Join(vec!["b".into()]));
    let mut parked = parked(&["a"], offset(2), offset(10));
    for turn in ["first", "second"] {
        take_up(&mut parked, &window, &offset(30).into(), "/", &offset(10).into()).unwrap();
        assert_eq!(parked.rooms.join(" "), "a b", "the {turn} time");
    }
}

/// It was in the lost room until its connection broke: events that except the room are not for it, and none of the room's own.
#[test]
fn a_room_that_a_new_token_does_not_give_brings_nothing_and_still_excepts() {
    let at = |ms| Position { ms, seq: 0 };
    let offset = |ms| Offset { epoch: Epoch(7), position: at(ms), line: Line::CONTROL };
    let mut window = Window::new(Duration::from_secs(100), 1 << 20);
    let (epoch, floor, head) = (Epoch(7), at(1), at(1));
    window.reset(&Snapshot { line: Line::CONTROL, epoch, floor, head, history: vec![], commands: vec![] }, 0);
    for (ms, room, except) in [(11, "a", None), (12, "b", None), (13, "b", Some("a")), (24, "b", Some("a"))] {
        let mut draft = Draft::new(room, &ms.to_string(), Args::none(), Source::Http);
        draft.except = except.into_iter().map(Into::into).collect();
        window.push(Arc::new(Event { offset: offset(ms), draft, accepted_us: ms, after: None }), 0);
    }
    let mut parked = parked(&["a", "b"], offset(2), offset(20));
    parked.keep_rooms(vec![("b".into(), Provenance::Rule)], Partitions::ONE, |_| false);
    // The client breaks off before it has received anything, and another node takes the session up.
    for turn in ["first", "second"] {
        let here = Place::from(offset(30));
        let mut replay = take_up(&mut parked, &window, &here, "/", &offset(10).into()).unwrap();
        let mut names = Vec::new();
        while !replay.is_over(&here) {
            let step = replay.step(&window, &here, "/", Slice { events: 10, bytes: 1 << 20 });
            let Step::Events(missed) = step else { panic!("{step:?}") };
            names.extend(missed.iter().map(|one| one.event.draft.event.to_string()));
        }
        assert_eq!(names, ["12", "24"], "the {turn} time");
        parked = Parked::from_record(&parked.to_record(), parked.namespace).unwrap();
    }
}

/// The record is of before a command brought the session to a partition, and its client has events of that by the node that
/// carried the command out.
#[test]
fn what_a_client_has_of_a_line_that_its_record_does_not_know_comes_once() {
    let partitions = Partitions::new(2, 0);
    let at = |ms| Position { ms, seq: 0 };
    let on = |line, ms| Offset { epoch: Epoch(7), position: at(ms), line };
    let partition = partitions.of("a");
    let namespaces = Namespaces::new(&["/".to_owned()]);
    let interest = Interests::everything(partitions, namespaces);
    let bounds = Bounds { bytes: 1 << 20, room_bytes: 1 << 20, tenant_segments: 0 };
    let window = SharedWindow::new(partitions, Duration::from_secs(100), bounds, interest);
    for line in partitions.lines() {
        let (epoch, floor, head) = (Epoch(7), at(1), at(1));
        window.reset(&Snapshot { line, epoch, floor, head, history: vec![], commands: vec![] }, 0);
    }
    let command = SessionCommand {
        id: Id::random(),
        from: NodeId::random(),
        selector: Selector::RoomsExcept { rooms: vec![], except: vec![] },
        namespace: Some("/".into()),
        action: Action::Join(vec!["a".into()]),
        at: vec![(partition, at(10))],
    };
    window.write(Line::CONTROL).push_command(at(20), Arc::new(command), 0);
    for ms in [15, 25] {
        let draft = Draft::new("a", &ms.to_string(), Args::none(), Source::Http);
        let event = Event { offset: on(partition, ms), draft, accepted_us: ms, after: None };
        window.write(partition).push(Arc::new(event), 0);
    }
    let of_record = parked(&[], on(Line::CONTROL, 2), on(Line::CONTROL, 10));
    let place = |control, offset: Offset| {
        let mut place = Place::from(on(Line::CONTROL, control));
        place.set(offset);
        place
    };
    let here = place(30, on(partition, 30));
    let missed = |named: Option<Place>| {
        let mut parked = of_record.clone();
        let after = parked.resume_from(named.as_ref()).unwrap();
        let mut replay = take_up(&mut parked, &window, &here, "/", &after)?;
        match replay.step(&window, &here, "/", Slice { events: 10, bytes: 1 << 20 }) {
            Step::Events(missed) => Ok(missed.into_iter().map(|one| one.event.draft.event.to_string()).collect()),
            other => panic!("{other:?}"),
        }
    };
    let some = |names: &[&str]| Ok(names.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(missed(None), some(&["15", "25"]));
    assert_eq!(missed(Some(place(20, on(partition, 5)))), some(&["15", "25"]), "of a room before that one");
    assert_eq!(missed(Some(place(20, on(partition, 15)))), some(&["25"]));
    let foreign = Offset { epoch: Epoch(6), ..on(partition, 15) };
    assert_eq!(missed(Some(place(20, foreign))), Err(Lost::Missed(Gap::ForeignEpoch)), "the line lost entries since");
    assert_eq!(missed(Some(place(20, on(partition, 31)))), Err(Lost::Missed(Gap::Future)));
}
