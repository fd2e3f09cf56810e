use super::*;
use crate::log::Snapshot;
use crate::log::window::Window;
use crate::model::args::Args;
use crate::model::draft::{Draft, Source};
use crate::model::namespaces::{NamespaceIndex, Namespaces};
use crate::model::offset::Offset;
use crate::model::partition::Line;
use std::time::Duration;

const EPOCH: Epoch = Epoch(7);
const BOUNDS: Bounds = Bounds { bytes: 1_000, room_bytes: 1_000, tenant_segments: 0 };
const HEAD: Offset = Offset { epoch: EPOCH, position: Position { ms: 60, seq: 0 }, line: Line::CONTROL };

fn at(ms: u64) -> Position {
    Position { ms, seq: 0 }
}

fn needs(rooms: &[(&str, u64)]) -> Needs {
    let mut needs = Needs::default();
    rooms.iter().for_each(|(room, ms)| needs.add(&(*room).into(), at(*ms)));
    needs
}

fn event(ms: u64, rooms: &[&str]) -> Event {
    let mut draft = Draft::new("", "e", Args::none(), Source::Http);
    draft.rooms = rooms.iter().map(|&room| room.into()).collect();
    Event { offset: Offset { epoch: EPOCH, position: at(ms), line: Line::CONTROL }, draft, accepted_us: 0, after: None }
}

/// An interest in which `a` and `b` are wanted, and lack what came up to 50 and 40.
fn interest() -> Interest {
    let interest = Interest::of_sessions(Namespaces::new(&["/".to_owned()]), Duration::from_secs(100));
    for (room, ms) in [("a", 50), ("b", 40)] {
        interest.wants("/", room, at(ms));
        interest.touch(NamespaceIndex::new(0), &room.into());
    }
    interest
}

#[test]
fn all_that_wait_share_a_pass_and_who_comes_later_gets_the_next() {
    let mut waiting = Waiting::default();
    assert!(waiting.begin().is_none());
    let main: Namespace = "/".into();
    let first = waiting.add(&main, &needs(&[("a", 20)]));
    assert_eq!(waiting.add(&main, &needs(&[("a", 10), ("b", 30)])), first);
    let (number, needed) = waiting.begin().unwrap();
    assert_eq!(number, first);
    assert_eq!(waiting.add(&main, &needs(&[("c", 1)])), first + 1);
    let range = needed.range(&interest(), HEAD, BOUNDS).unwrap();
    assert_eq!((range.after, range.up_to), (at(10), at(50)), "from the oldest to where everything is kept");
    assert_eq!(range.rooms["/"]["a"], at(10));
    assert_eq!(range.rooms["/"]["b"], at(30));
    assert!(waiting.begin().is_some() && waiting.begin().is_none());
}

#[test]
fn what_another_pass_has_brought_is_not_read_again() {
    let (interest, mut waiting) = (interest(), Waiting::default());
    waiting.add(&"/".into(), &needs(&[("a", 20)]));
    interest.fill("/", "a", at(20), at(50));
    let (_, needed) = waiting.begin().unwrap();
    assert!(needed.range(&interest, HEAD, BOUNDS).is_none());
}

#[test]
fn finds_what_is_looked_for_and_no_more_than_fits() {
    let size = event(1, &["a"]).size();
    let rooms = [("/".into(), HashMap::from([("a".into(), at(10)), ("b".into(), at(30))]))];
    let rooms = Arc::new(HashMap::from(rooms));
    let range = PastRange {
        line: Line::CONTROL,
        epoch: EPOCH,
        after: at(10),
        up_to: at(50),
        rooms,
        all: false,
        bounds: Bounds { bytes: 100 * size, room_bytes: 2 * size, tenant_segments: 0 },
        budget: None,
    };
    let mut finder = PastFinder::new(&range);
    for ms in (11..=50).rev() {
        let rooms: &[&str] = if ms % 2 == 0 { &["a"] } else { &["b", "other"] };
        assert!(finder.take(event(ms, rooms)));
        finder.reached(at(ms).predecessor());
    }
    finder.reached(at(10));
    let past = finder.finish();
    let found: Vec<u64> = past.events.iter().map(|event| event.offset.position.ms).collect();
    assert_eq!(found, [48, 49, 50], "two of one room, one larger one of the other");
    assert_eq!((past.full["/"]["a"], past.full["/"]["b"]), (at(46), at(47)));
    assert_eq!((past.after, past.rooms["/"].len()), (at(10), 2));
}

/// What is found of `a:0` to `a:2499`, which are flooded, and of `b:0`, whose only event is the oldest.
fn found_beside_a_flood(bounds: Bounds) -> Past {
    let names = (0..2_500).map(|n| format!("a:{n}")).chain(["b:0".to_owned()]);
    let rooms = Arc::new(HashMap::from([("/".into(), names.map(|room| (room.into(), at(0))).collect())]));
    let (after, up_to) = (at(0), at(5_000));
    let range = PastRange { line: Line::CONTROL, epoch: EPOCH, after, up_to, rooms, all: false, bounds, budget: None };
    let mut finder = PastFinder::new(&range);
    for ms in (1..=5_000).rev() {
        let room = if ms == 1 { "b:0".to_owned() } else { format!("a:{}", ms % 2_500) };
        if !finder.take(event(ms, &[&room])) {
            finder.reached(at(ms));
            return finder.finish();
        }
    }
    finder.reached(after);
    finder.finish()
}

#[test]
fn over_the_bytes_it_looks_further_for_those_who_hold_little() {
    let bytes = 2_000 * event(1, &["a:100"]).size();
    let past = found_beside_a_flood(Bounds { bytes, room_bytes: bytes, tenant_segments: 1 });
    assert_eq!((past.after, past.events[0].offset.position), (at(0), at(1)));
    assert!(!past.full["/"].contains_key("b:0"));
    assert_eq!(past.full["/"].len(), 2_500, "all others have lost some");
    let newest: Vec<u64> = past.events[1..].iter().map(|event| event.offset.position.ms).collect();
    assert!(newest.len() > 1_900 && newest.is_sorted() && newest.ends_with(&[4_999, 5_000]));
    for event in &past.events {
        let floor = past.full["/"].get(&event.draft.rooms[0]);
        assert!(floor.is_none_or(|floor| event.offset.position > *floor));
    }
    // Where nothing says which rooms belong together, it is over for all.
    let past = found_beside_a_flood(Bounds { bytes, room_bytes: bytes, tenant_segments: 0 });
    assert!(past.after > at(2_000) && past.full.is_empty());
}

#[test]
fn what_the_room_of_everybody_lost_is_among_what_is_left_out() {
    let rooms = Arc::new(HashMap::from([("/".into(), HashMap::from([("a".into(), at(10))]))]));
    let (after, up_to) = (at(10), at(50));
    let bounds = Bounds { bytes: 1 << 20, room_bytes: event(1, &[EVERYBODY]).size(), tenant_segments: 0 };
    let range = PastRange { line: Line::CONTROL, epoch: EPOCH, after, up_to, rooms, all: false, bounds, budget: None };
    let mut finder = PastFinder::new(&range);
    for ms in [40, 30, 20] {
        assert!(finder.take(event(ms, &[EVERYBODY])));
    }
    finder.reached(at(10));
    let past = finder.finish();
    assert_eq!((past.events.len(), past.full["/"][EVERYBODY]), (1, at(30)));
}

#[test]
fn what_the_log_did_not_give_may_be_asked_for_again() {
    let rooms = Arc::new(HashMap::from([("/".into(), HashMap::from([("a".into(), at(10))]))]));
    let range = PastRange {
        line: Line::CONTROL,
        epoch: EPOCH,
        after: at(10),
        up_to: at(50),
        rooms,
        all: false,
        bounds: BOUNDS,
        budget: None,
    };
    let finder = || {
        let mut finder = PastFinder::new(&range);
        assert!(finder.take(event(40, &["a"])));
        finder.reached(at(39));
        finder
    };
    let ended = finder().finish();
    assert_eq!((ended.asked_after, ended.after), (at(10), at(39)));
    let failed = finder().finish_early();
    assert_eq!((failed.asked_after, failed.after, failed.events.len()), (at(39), at(39), 1));
    let mut window = Window::new(Duration::from_secs(100), 1 << 20);
    window.reset(
        &Snapshot { line: Line::CONTROL, epoch: EPOCH, floor: at(50), head: at(50), history: vec![], commands: vec![] },
        0,
    );
    window.note_unreadable(&failed);
    assert_eq!(window.unreadable(), Position::default());
    window.note_unreadable(&ended);
    assert_eq!(window.unreadable(), at(39));
}

/// A pass over a line with a thousand events of everybody's, from its newest on.
struct Pass<'a> {
    finder: PastFinder<'a>,
    next: u64,
}

impl<'a> Pass<'a> {
    fn new(range: &'a PastRange) -> Self {
        Self { finder: PastFinder::new(range), next: 1_000 }
    }

    /// Reads a page of so many; `false` once that is too much.
    fn page(&mut self, events: u64) -> bool {
        for _ in 0..events {
            if !self.finder.take(event(self.next, &[EVERYBODY])) {
                return false;
            }
            self.next -= 1;
        }
        self.finder.reached(at(self.next));
        true
    }
}

#[test]
fn a_pass_has_what_passes_over_other_lines_do_not_need() {
    let size = event(1, &[EVERYBODY]).size();
    let budget = PassBudget::new(400 * size, 4);
    let range = |number: u8| PastRange {
        line: Line::new(number).unwrap(),
        epoch: EPOCH,
        after: at(0),
        up_to: at(1_000),
        rooms: Arc::default(),
        all: true,
        bounds: Bounds { bytes: 400 * size, room_bytes: usize::MAX, tenant_segments: 0 },
        budget: Some(budget.clone()),
    };
    let (busy, other) = (range(0), range(1));
    let mut alone = Pass::new(&busy);
    assert!(alone.page(350), "much more than a quarter");
    let mut second = Pass::new(&other);
    assert!(second.page(90), "a quarter is its own in any case");
    alone.page(1);
    let (first, second) = (alone.finder.finish(), second.finder.finish());
    assert_eq!((first.events.len(), second.events.len()), (310, 90), "the busy one gave the rest back");
    assert_eq!(first.full["/"][EVERYBODY], at(690));
    // What has ended uses nothing.
    let mut next = Pass::new(&other);
    assert!(next.page(399));
    assert_eq!(next.finder.finish().events.len(), 399);
}
