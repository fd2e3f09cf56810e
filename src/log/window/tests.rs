use super::*;
use crate::log::recent_events::OF_CLIENTS;
use crate::model::args::Args;
use crate::model::draft::{Draft, Source};
use proptest::prelude::*;

const EPOCH: Epoch = Epoch(7);

fn position(ms: u64) -> Position {
    Position { ms, seq: 0 }
}

fn offset(ms: u64) -> Offset {
    Offset { epoch: EPOCH, position: position(ms), line: Line::CONTROL }
}

fn event(ms: u64, rooms: &[&str], except: &[&str]) -> Arc<Event> {
    let mut draft = Draft::new("", &ms.to_string(), Args::none(), Source::Http);
    draft.rooms = rooms.iter().map(|&room| room.into()).collect();
    draft.except = except.iter().map(|&room| room.into()).collect();
    Arc::new(Event { offset: offset(ms), draft, accepted_us: ms * 1000, after: None })
}

fn window(max_age_ms: u64, max_bytes: usize, start: u64) -> Window {
    within(max_age_ms, Bounds { bytes: max_bytes, room_bytes: usize::MAX, tenant_segments: 0 }, start)
}

fn within(max_age_ms: u64, bounds: Bounds, start: u64) -> Window {
    let mut window = Window::within(Duration::from_millis(max_age_ms), bounds);
    let start = position(start);
    window.reset(
        &Snapshot { line: Line::CONTROL, epoch: EPOCH, floor: start, head: start, history: vec![], commands: vec![] },
        0,
    );
    window
}

impl Window {
    /// All of a replay: slice by slice, and without what an event excepts.
    fn replay<R: AsRef<str>>(
        &self,
        after: Offset,
        up_to: Position,
        namespace: &str,
        rooms: &[R],
    ) -> Result<Vec<Arc<Event>>, Gap> {
        let (mut all, mut from) = (Vec::new(), after);
        loop {
            let pulled = self.pull(from, up_to, namespace, rooms, Slice { events: 3, bytes: 1 << 10 })?;
            let is_in = |room: &Room| rooms.iter().any(|own| own.as_ref() == &**room);
            all.extend(pulled.events.into_iter().filter(|event| !event.draft.except.iter().any(is_in)));
            if pulled.up_to >= up_to {
                return Ok(all);
            }
            from.position = pulled.up_to;
        }
    }
}

fn names(events: Result<Vec<Arc<Event>>, Gap>) -> Vec<u64> {
    events.expect("no gap").iter().map(|event| event.draft.event.parse().expect("a number")).collect()
}

#[test]
fn replays_each_event_of_any_room_once_in_order() {
    let mut window = window(1000, 1 << 20, 10);
    for (ms, rooms, except) in [
        (11, &["a"][..], &[][..]),
        (12, &["b", "a", "a"], &[]),
        (13, &["c"], &[]),
        (14, &["b"], &["me"]),
        (15, &["b"], &["other"]),
        (16, &["a"], &[]),
    ] {
        window.push(event(ms, rooms, except), 0);
    }
    assert_eq!(names(window.replay(offset(10), position(16), "/", &["b", "me", "a"])), [11, 12, 15, 16]);
    assert_eq!(names(window.replay(offset(11), position(15), "/", &["a", "b"])), [12, 14, 15]);
    assert_eq!(names(window.replay(offset(16), position(16), "/", &["a"])), [0u64; 0]);
    assert_eq!(names(window.replay(offset(16), position(12), "/", &["a"])), [0u64; 0]);
    assert_eq!(names(window.replay(offset(10), position(16), "/chat", &["a"])), [0u64; 0]);
    assert_eq!(names(window.replay::<&str>(offset(10), position(16), "/", &[])), [0u64; 0]);
}

#[test]
fn what_is_too_old_is_decided_exactly() {
    let mut window = window(1000, 1 << 20, 10);
    assert_eq!(names(window.replay(offset(10), position(10), "/", &["a"])), [0u64; 0]);
    assert_eq!(window.replay(offset(9), position(10), "/", &["a"]).unwrap_err(), Gap::TooOld);
    window.push(event(11, &["a"], &[]), 0);
    window.push(event(12, &["a"], &[]), 500);
    window.expire(999);
    assert_eq!(names(window.replay(offset(10), position(12), "/", &["a"])), [11, 12]);
    window.expire(1000);
    assert_eq!(window.replay(offset(10), position(12), "/", &["a"]).unwrap_err(), Gap::TooOld);
    assert_eq!(names(window.replay(offset(11), position(12), "/", &["a"])), [12]);
    window.expire(1_000_000);
    assert!(window.is_empty());
    assert_eq!(window.replay(offset(11), position(12), "/", &["a"]).unwrap_err(), Gap::TooOld);
    assert_eq!(names(window.replay(offset(12), position(12), "/", &["a"])), [0u64; 0]);
}

#[test]
fn an_offset_older_than_the_window_counts_where_nothing_was_missed() {
    let mut window = window(1000, 1 << 20, 10);
    window.push(event(11, &["quiet"], &[]), 0);
    window.push(event(12, &["busy"], &[]), 500);
    window.push(event(13, &["quiet"], &[]), 3_000);
    assert_eq!(window.len(), 1, "the others are too old");
    assert_eq!(names(window.replay(offset(11), position(13), "/", &["quiet", "silent"])), [13]);
    assert_eq!(window.covers(offset(11), "/", &["quiet", "busy"]), Err(Gap::TooOld));
    assert_eq!(window.covers(offset(10), "/", &["quiet"]), Err(Gap::TooOld));
}

#[test]
fn offsets_of_other_lives_and_of_the_future_prove_nothing() {
    let mut window = window(1000, 1 << 20, 10);
    window.push(event(11, &["a"], &[]), 0);
    let foreign = Offset { epoch: Epoch(8), position: position(11), line: Line::CONTROL };
    assert_eq!(window.replay(foreign, position(11), "/", &["a"]).unwrap_err(), Gap::ForeignEpoch);
    assert_eq!(window.replay(offset(12), position(11), "/", &["a"]).unwrap_err(), Gap::Future);
    window.advance(position(12));
    assert_eq!(names(window.replay(offset(12), position(12), "/", &["a"])), [0u64; 0]);
}

#[test]
fn volatile_events_are_not_kept() {
    let mut window = window(1000, 1 << 20, 10);
    let mut volatile = Draft::new("a", "v", Args::none(), Source::Http);
    volatile.volatile = true;
    window.push(Arc::new(Event { offset: offset(10), draft: volatile, accepted_us: 0, after: None }), 0);
    assert_eq!((window.len(), window.head()), (0, offset(10)));
}

#[test]
fn nothing_is_left_of_a_million_rooms_and_bytes_are_bounded() {
    let mut window = window(1_000_000, 1 << 20, 0);
    for ms in 1..=1_000_000 {
        window.push(event(ms, &[&format!("room:{ms}")], &[]), ms);
        assert!(window.bytes() <= 1 << 20);
    }
    assert!(window.rooms() < 10_000, "{}", window.rooms());
    assert_eq!(window.rooms(), window.len());
    window.expire(3_000_000);
    assert_eq!((window.bytes(), window.rooms()), (0, 0));
    let [(events, namespaces), _] = window.events.shares.each_ref().map(|share| share.capacity());
    assert!(events < 2048 && namespaces == 0, "{events}");
}

#[test]
fn an_event_over_the_whole_size_is_passed_by() {
    let mut window = window(1000, 100, 10);
    window.push(event(11, &["a"], &[]), 0);
    assert_eq!((window.len(), window.floor(), window.head()), (0, offset(10), offset(11)));
    assert_eq!(window.covers(offset(10), "/", &["a"]), Err(Gap::TooOld));
    assert_eq!(window.covers(offset(11), "/", &["a"]), Ok(()));
    assert_eq!(window.covers(offset(10), "/", &["b"]), Ok(()));
}

/// An event of a client, or of a publisher, with so many bytes.
fn sized(ms: u64, room: &str, bytes: usize, source: Source) -> Arc<Event> {
    let args = Args::one(&format!("\"{}\"", "x".repeat(bytes))).expect("a text");
    let draft = Draft::new(room, &ms.to_string(), args, source);
    Arc::new(Event { offset: offset(ms), draft, accepted_us: 0, after: None })
}

#[test]
fn a_flood_costs_only_the_room_that_it_is_in() {
    let mut window = window(1_000_000, 1 << 20, 0);
    (1..=100).for_each(|ms| window.push(sized(ms, &format!("quiet:{ms}"), 500, Source::Http), ms));
    (101..=300).for_each(|ms| window.push(sized(ms, "loud", 100_000, Source::Client), ms));
    assert!(window.bytes() <= 1 << 20);
    for ms in 1..=100 {
        assert_eq!(names(window.replay(offset(0), position(300), "/", &[format!("quiet:{ms}")])), [ms]);
    }
    assert_eq!(window.covers(offset(100), "/", &["loud"]), Err(Gap::TooOld));
    assert_eq!(names(window.replay(offset(299), position(300), "/", &["loud", "quiet:1"])), [300]);
    assert!(window.events.shares[OF_CLIENTS].len() >= 4, "it has what the others leave");
}

const TENANTS: Bounds = Bounds { bytes: 1 << 20, room_bytes: usize::MAX, tenant_segments: 1 };

/// Ten rooms of the tenant `b` with an event each, and then a flood in the rooms of `a`.
fn flooded_by_a_tenant(bounds: Bounds, source: Source, rooms: u64) -> Window {
    let mut window = within(1_000_000, bounds, 0);
    (1..=10).for_each(|ms| window.push(sized(ms, &format!("b:{ms}"), 900, Source::Http), ms));
    (11..=80_000).for_each(|ms| {
        window.push(sized(ms, &format!("a:{}", ms % rooms), 300, source), ms);
        assert!(window.bytes() <= bounds.bytes);
    });
    window
}

#[test]
fn a_tenant_that_floods_through_many_rooms_costs_only_its_own() {
    for (source, rooms) in [(Source::Http, 1_000), (Source::Client, 1_000), (Source::Http, 30_000)] {
        let mut window = flooded_by_a_tenant(TENANTS, source, rooms);
        for ms in 1..=10 {
            assert_eq!(names(window.replay(offset(0), position(80_000), "/", &[format!("b:{ms}")])), [ms], "{rooms}");
        }
        assert_eq!(window.covers(offset(69_999), "/", &[format!("a:{}", 70_000 % rooms)]), Err(Gap::TooOld));
        assert_eq!(
            names(window.replay(offset(79_990), position(80_000), "/", &[format!("a:{}", 79_999 % rooms)])),
            [79_999]
        );
        window.expire(3_000_000);
        assert_eq!((window.bytes(), window.events.shares.each_ref().map(|share| share.capacity().1)), (0, [0, 0]));
    }
    // Where nothing says which rooms belong together, what all have lost are the oldest events.
    let window = flooded_by_a_tenant(Bounds { tenant_segments: 0, ..TENANTS }, Source::Http, 1_000);
    assert_eq!(window.covers(offset(0), "/", &["b:1"]), Err(Gap::TooOld));
}

#[test]
fn in_a_tenant_that_holds_most_a_room_that_stands_out_loses_first() {
    let mut window = within(1_000_000, TENANTS, 0);
    (1..=100).for_each(|ms| window.push(sized(ms, &format!("a:quiet:{ms}"), 300, Source::Http), ms));
    (101..=5_000).for_each(|ms| window.push(sized(ms, "a:loud", 900, Source::Http), ms));
    for ms in 1..=100 {
        assert_eq!(names(window.replay(offset(0), position(5_000), "/", &[format!("a:quiet:{ms}")])), [ms]);
    }
    assert_eq!(window.covers(offset(100), "/", &["a:loud"]), Err(Gap::TooOld));
}

#[test]
fn clients_never_take_more_than_half_from_publishers() {
    let mut window = window(1_000_000, 1 << 20, 0);
    (1..=450).for_each(|ms| window.push(sized(ms, "news", 900, Source::Http), ms));
    let kept = window.events.shares[0].len();
    (451..=2_000).for_each(|ms| window.push(sized(ms, &format!("mine:{}", ms % 300), 9_000, Source::Client), ms));
    assert_eq!((kept, window.events.shares[0].len()), (450, 450));
    // Nobody else needs the room: clients may have all of it, and publishers the same.
    assert!(window.bytes() > (1 << 20) - 20_000);
    (2_001..=8_000).for_each(|ms| window.push(sized(ms, "news", 900, Source::Http), ms));
    assert!(
        window.events.shares[0].bytes() >= (1 << 19) && window.events.shares[OF_CLIENTS].bytes() > (1 << 19) - 20_000
    );
    assert!(window.bytes() <= 1 << 20);
}

#[test]
fn rooms_with_a_floor_of_their_own_are_bounded() {
    let mut window = window(1_000_000, 1 << 20, 0);
    window.push(sized(1, "old", 10, Source::Http), 0);
    for ms in 2..=60_000 {
        window.push(sized(ms, &format!("mine:{ms}"), 2_000, Source::Client), ms);
    }
    assert!(window.events.floors.overflow().is_none());
    // More than can be remembered: the rest is forgotten for everybody, and nobody is misled.
    assert!(window.floor().position > position(1));
    assert_eq!(window.covers(offset(1), "/", &["old"]), Err(Gap::TooOld));
    assert_eq!(window.covers(offset(60_000), "/", &["old", "mine:2"]), Ok(()));
}

proptest! {
    /// Whatever is evicted: what is replayed is all there was, or a gap.
    #[test]
    fn never_replays_less_than_there_was(
        published in prop::collection::vec(
            (prop::collection::vec(0u8..6, 1..4), prop::option::of(0u8..6), any::<bool>(), 0usize..300, 0u64..40),
            0..80,
        ),
        max_bytes in prop::sample::select(vec![500usize, 2_000, 2_000_000]),
        after in 0u64..90,
        up_to in 0u64..90,
        mine in prop::collection::vec(0u8..6, 0..4),
        tenant_segments in 0u8..2,
    ) {
        let name = |room: &u8| -> Room { format!("{}:{room}", room % 2).into() };
        let mut window = within(1000, Bounds { bytes: max_bytes, room_bytes: usize::MAX, tenant_segments }, 0);
        let (mut list, mut now) = (Vec::new(), 0);
        for (ms, (rooms, except, client, bytes, passes)) in (1..).zip(&published) {
            let mut event = Arc::try_unwrap(sized(ms, "", *bytes, Source::Http)).expect("not shared");
            event.draft.rooms = rooms.iter().map(name).collect();
            event.draft.except = except.iter().map(name).collect();
            event.draft.source = if *client { Source::Client } else { Source::Http };
            list.push(Arc::new(event));
            now += passes;
            window.push(list[ms as usize - 1].clone(), now);
            prop_assert!(window.bytes() <= max_bytes);
        }
        let mine: Vec<Room> = mine.iter().map(name).collect();
        let got = window.replay(offset(after), position(up_to), "/", &mine);
        let has = |rooms: &[Room]| rooms.iter().any(|room| mine.contains(room));
        let want: Vec<u64> = list
            .iter()
            .filter(|event| (after + 1..=up_to).contains(&event.offset.position.ms))
            .filter(|event| has(&event.draft.rooms) && !has(&event.draft.except))
            .map(|event| event.offset.position.ms)
            .collect();
        match got {
            Ok(_) => prop_assert_eq!(names(got), want),
            Err(Gap::Future) => prop_assert!(after > published.len() as u64),
            Err(gap) => prop_assert!(gap == Gap::TooOld && (now >= 1000 || max_bytes <= 2_000)),
        }
        window.expire(now + 1000);
        prop_assert_eq!((window.bytes(), window.len(), window.rooms()), (0, 0, 0));
    }
}

fn past(after: u64, up_to: u64, events: Vec<Arc<Event>>) -> Past {
    let (after, up_to) = (position(after), position(up_to));
    Past { epoch: EPOCH, asked_after: after, after, up_to, events, ..Past::default() }
}

#[test]
fn a_room_over_its_bytes_loses_its_own_oldest_events() {
    let mut window = within(1_000_000, Bounds { bytes: 1 << 20, room_bytes: 10_000, tenant_segments: 0 }, 0);
    for ms in 1..=200 {
        window.push(event(ms, if ms % 10 == 0 { &["calm"] } else { &["flood"] }, &[]), ms);
    }
    assert_eq!(window.covers(offset(1), "/", &["flood"]), Err(Gap::TooOld));
    assert_eq!(window.covers(offset(1), "/", &["calm"]), Ok(()));
    assert_eq!(names(window.replay(offset(0), position(200), "/", &["calm"])).len(), 20);
    let kept = names(window.replay(offset(190), position(200), "/", &["flood"]));
    assert_eq!(kept, [191, 192, 193, 194, 195, 196, 197, 198, 199]);
    assert!(window.bytes() < 20_000, "{}", window.bytes());
}

#[test]
fn what_was_read_again_is_among_the_rest_once_and_in_order() {
    let mut window = window(1_000_000, 1 << 20, 0);
    for ms in [2, 5, 8] {
        window.push(event(ms, &["a", "b"], &[]), ms);
    }
    let again = [1, 2, 3, 4, 7].map(|ms| event(ms, &["a"], &[]));
    window.fill(past(0, 7, again.to_vec()), 10);
    assert_eq!(names(window.replay(offset(0), position(8), "/", &["a"])), [1, 2, 3, 4, 5, 7, 8]);
    assert_eq!(names(window.replay(offset(0), position(8), "/", &["b"])), [2, 5, 8]);
    assert_eq!((window.len(), window.filled_up_to()), (7, position(7)));
    let foreign = Past { epoch: Epoch(9), ..past(0, 8, vec![event(6, &["a"], &[])]) };
    window.fill(foreign, 10);
    assert_eq!(window.len(), 7, "of another log");
    window.expire(2_000_000);
    assert!(window.is_empty() && window.bytes() == 0 && window.rooms() == 0);
}

#[test]
fn what_was_read_again_is_as_old_as_it_is_and_within_the_bounds() {
    let mut window = window(1_000, 1 << 20, 0);
    window.push(event(5_000, &["a"], &[]), 5_000);
    window.fill(past(3_000, 5_000, vec![event(3_500, &["a"], &[]), event(4_500, &["a"], &[])]), 5_000);
    assert_eq!(window.len(), 2, "the first is older than the window");
    assert_eq!(window.covers(offset(3_400), "/", &["a"]), Err(Gap::TooOld));
    assert_eq!(names(window.replay(offset(3_600), position(5_000), "/", &["a"])), [4_500, 5_000]);
}

proptest! {
    /// In whatever pieces the log comes back, all of it is there, once and in order.
    #[test]
    fn pieces_come_together(pieces in prop::collection::vec(prop::collection::vec(1_u64..60, 0..20), 1..6)) {
        let mut window = window(1_000_000, 1 << 20, 0);
        let mut there = std::collections::BTreeSet::from([30, 60]);
        for ms in [30, 60] {
            window.push(event(ms, &["a"], &[]), ms);
        }
        for mut piece in pieces {
            piece.sort_unstable();
            piece.dedup();
            there.extend(piece.iter().copied());
            window.fill(past(0, 60, piece.into_iter().map(|ms| event(ms, &["a"], &[])).collect()), 60);
            let expected: Vec<u64> = there.iter().copied().collect();
            prop_assert_eq!(names(window.replay(offset(0), position(60), "/", &["a"])), expected);
        }
        let sum: usize = there.iter().map(|ms| event(*ms, &["a"], &[]).size()).sum();
        prop_assert_eq!(window.bytes(), sum);
    }
}
