use super::*;
use crate::log::window::Slice;
use crate::model::args::Args;
use crate::model::draft::{Draft, Source};
use crate::model::namespaces::Namespaces;
use crate::model::offset::Epoch;
use proptest::prelude::*;

const EPOCH: Epoch = Epoch(7);
const BYTES: usize = 1 << 20;
const BOUNDS: Bounds = Bounds { bytes: BYTES, room_bytes: usize::MAX, tenant_segments: 0 };

fn at(ms: u64, line: Line) -> Offset {
    Offset { epoch: EPOCH, position: Position { ms, seq: 0 }, line }
}

fn line(number: u8) -> Line {
    Line::new(number).expect("a line")
}

/// Of a control line and eight others, which all keep everything.
fn window(bounds: Bounds) -> SharedWindow {
    let (partitions, namespaces) = (Partitions::new(8, 0), Namespaces::new(&["/".to_owned()]));
    let interest = Interests::everything(partitions, namespaces);
    let window = SharedWindow::new(partitions, Duration::from_secs(1_000), bounds, interest);
    for line in partitions.lines() {
        let start = Position::default();
        let (history, commands) = (vec![], vec![]);
        window.reset(&Snapshot { line, epoch: EPOCH, floor: start, head: start, history, commands }, 0);
    }
    window
}

/// An event of about so many bytes.
fn event(offset: Offset, room: &str, bytes: usize, source: Source) -> Arc<Event> {
    let args = Args::one(&format!("\"{}\"", "x".repeat(bytes))).expect("a text");
    Arc::new(Event { offset, draft: Draft::new(room, "e", args, source), accepted_us: 0, after: None })
}

impl SharedWindow {
    /// One batch of one event.
    fn push(&self, ms: u64, number: u8, room: &str, bytes: usize, source: Source) {
        let line = line(number);
        self.write(line).push(event(at(ms, line), room, bytes, source), ms);
        assert!(self.bytes() <= BYTES, "{} bytes", self.bytes());
        let counted: usize = self.lines.iter().map(|line| line.read().bytes()).sum();
        assert_eq!(self.bytes(), counted);
    }

    fn has(&self, number: u8, room: &str, after: u64) -> bool {
        self.covers(at(after, line(number)), "/", &[room.into()]).is_ok()
    }

    fn bytes_of(&self, number: u8) -> usize {
        self.of(line(number)).read().bytes()
    }
}

#[test]
fn a_busy_line_has_what_the_others_do_not_need() {
    let window = window(BOUNDS);
    (1..=100).for_each(|ms| window.push(ms, 0, "*", 9_000, Source::Http));
    assert!(window.has(0, "*", 0) && window.len() == 100, "{} of 100", window.len());
}

#[test]
fn rooms_with_a_floor_of_their_own_are_bounded_over_all_lines() {
    let window = window(BOUNDS);
    let floors = |number: u8| window.of(line(number)).read().events().rooms_with_floors().count();
    // In turn, so that all lines have more than their part.
    for ms in 1..=40_000 {
        let (number, room) = ((ms % 9) as u8, format!("room:{ms}").into());
        window.write(line(number)).events_mut().raise_room(&"/".into(), &room, at(ms, line(number)).position);
    }
    let sum: usize = (0..9).map(floors).sum();
    assert!((8_192..=16_384).contains(&sum), "{sum}");
    // One that has hardly any loses none for those of others.
    let window = self::window(BOUNDS);
    for (number, rooms) in [(1, 100_u64), (2, 40_000), (3, 100)] {
        for ms in 1..=rooms {
            let room = format!("room:{ms}").into();
            window.write(line(number)).events_mut().raise_room(&"/".into(), &room, at(ms, line(number)).position);
        }
    }
    let counts = [1, 2, 3].map(|number| window.of(line(number)).read().events().rooms_with_floors().count());
    assert!(counts[0] == 100 && counts[2] == 100 && (8_192..16_384).contains(&counts[1]), "{counts:?}");
    // A line that begins again has none.
    let head = Position { ms: 50_000, seq: 0 };
    let (history, commands) = (vec![], vec![]);
    window.reset(&Snapshot { line: line(2), epoch: EPOCH, floor: head, head, history, commands }, 0);
    for ms in 101..=16_000 {
        let room = format!("room:{ms}").into();
        window.write(line(1)).events_mut().raise_room(&"/".into(), &room, at(ms, line(1)).position);
    }
    assert_eq!(window.of(line(1)).read().events().rooms_with_floors().count(), 16_000);
}

#[test]
fn a_flood_costs_only_its_room_whichever_line_it_is_on() {
    let window = window(BOUNDS);
    for ms in 1..=90 {
        window.push(ms, (ms % 9) as u8, &format!("quiet:{ms}"), 700, Source::Http);
    }
    (91..=600).for_each(|ms| window.push(ms, 3, "loud", 9_000, Source::Http));
    assert!((1..=90).all(|ms| window.has((ms % 9) as u8, &format!("quiet:{ms}"), 0)));
    assert!(!window.has(3, "loud", 480) && window.has(3, "loud", 510));
    assert!(window.bytes() > BYTES - BYTES / 50, "and it has the rest");
}

#[test]
fn a_line_that_gets_nothing_any_more_gives_back() {
    let window = window(BOUNDS);
    (1..=110).for_each(|ms| window.push(ms, 1, "loud", 9_000, Source::Http));
    let full = window.bytes_of(1);
    (111..=155).for_each(|ms| window.push(ms, 2, "other", 9_000, Source::Http));
    assert!(window.has(2, "other", 110), "who holds less loses nothing");
    assert!(window.bytes_of(1) < full * 2 / 3, "{full} bytes became {}", window.bytes_of(1));
    let many = |from: u64, room: fn(u64) -> String| {
        (from..from + 1_000).for_each(|ms| window.push(ms, (ms % 9) as u8, &room(ms), 400, Source::Http));
    };
    many(156, |ms| format!("small:{ms}"));
    assert!((156..1_156).all(|ms| window.has((ms % 9) as u8, &format!("small:{ms}"), 155)));
    assert!(window.bytes_of(1) < full / 3 && window.bytes_of(2) < full / 3);
}

#[test]
fn where_nobody_stands_out_the_oldest_of_all_lines_go() {
    let window = window(BOUNDS);
    // The second line was busy first, and then all are.
    (1..=1_000).for_each(|ms| window.push(ms, 2, &format!("early:{ms}"), 400, Source::Http));
    (1_001..=3_000).for_each(|ms| window.push(ms, (ms % 9) as u8, &format!("late:{ms}"), 400, Source::Http));
    let first = |number: u8| window.of(line(number)).read().floor().position.ms;
    assert!(first(2) > 900, "{}", first(2));
    for number in (0..9).filter(|number| *number != 2) {
        assert!(first(number) <= first(2) + 30, "{number} lost up to {}, the second up to {}", first(number), first(2));
    }
}

#[test]
fn a_tenant_on_many_lines_counts_as_one() {
    let window = window(Bounds { tenant_segments: 1, ..BOUNDS });
    // On each line less than what `b` has on one.
    (1..=25).for_each(|ms| window.push(ms, 4, &format!("b:{}", ms % 5), 9_000, Source::Http));
    (26..=2_000).for_each(|ms| window.push(ms, (ms % 9) as u8, &format!("a:{}", ms % 500), 3_000, Source::Http));
    assert!((0..5).all(|room| window.has(4, &format!("b:{room}"), 0)));
    let of_a: Vec<usize> = (0..9).map(|number| window.bytes_of(number)).collect();
    assert!(of_a.iter().all(|bytes| *bytes > BYTES / 20), "it loses on all lines alike: {of_a:?}");
}

#[test]
fn clients_have_half_over_all_lines() {
    let window = window(BOUNDS);
    (1..=450).for_each(|ms| window.push(ms, 1, "news", 900, Source::Http));
    (451..=2_000).for_each(|ms| {
        window.push(ms, (ms % 9) as u8, &format!("mine:{}", ms % 300), 9_000, Source::Client);
    });
    assert!(window.has(1, "news", 0));
}

#[test]
fn tails_write_at_once() {
    let window = window(BOUNDS);
    std::thread::scope(|scope| {
        for number in 0..9 {
            let window = &window;
            scope.spawn(move || {
                for ms in 1..=3_000 {
                    let room = format!("{number}:{}", ms % (50 + u64::from(number)));
                    window.write(line(number)).push(event(at(ms, line(number)), &room, 300, Source::Http), ms);
                }
            });
        }
    });
    let counted: usize = window.lines.iter().map(|line| line.read().bytes()).sum();
    assert_eq!(window.bytes(), counted);
    assert!(counted <= BYTES && counted > BYTES / 2, "{counted}");
    let wanted = BYTES / 40;
    assert!((0..9).all(|number| window.bytes_of(number) > wanted), "each has a part");
    for line in window.partitions.lines() {
        window.write(line).expire(10_000_000);
    }
    assert_eq!((window.bytes(), window.len()), (0, 0));
}

proptest! {
    /// Whatever is evicted on whichever line: what a line replays is all there was, or a gap.
    #[test]
    fn never_replays_less_than_there_was(
        published in prop::collection::vec((0u8..9, 0u8..6, any::<bool>(), 0usize..400), 0..120),
        bytes in prop::sample::select(vec![700usize, 3_000, 2_000_000]),
        after in 0u64..120,
        room in 0u8..6,
        tenant_segments in 0u8..2,
    ) {
        let name = |room: u8| format!("{}:{room}", room % 2);
        let window = window(Bounds { bytes, tenant_segments, ..BOUNDS });
        for (ms, (number, room, is_client, bytes_of_it)) in (1..).zip(&published) {
            let source = if *is_client { Source::Client } else { Source::Http };
            let event = event(at(ms, line(*number)), &name(*room), *bytes_of_it, source);
            window.write(line(*number)).push(event, ms);
            prop_assert!(window.bytes() <= bytes);
        }
        let max = Slice { events: usize::MAX, bytes: usize::MAX };
        for number in 0..9 {
            let rooms = [name(room).into()];
            let all = Position { ms: 1_000, seq: 0 };
            let got = window.pull(at(after, line(number)), all, "/", &rooms, max);
            let is_of_it = |(ms, (on, of, ..)): &(u64, &(u8, u8, bool, usize))| *ms > after && *on == number && *of == room;
            let want: Vec<u64> = (1..).zip(&published).filter(is_of_it).map(|(ms, _)| ms).collect();
            match got {
                Ok(pulled) => {
                    let got: Vec<u64> = pulled.events.iter().map(|event| event.offset.position.ms).collect();
                    prop_assert_eq!(got, want);
                }
                Err(Gap::Future) => prop_assert!(want.is_empty()),
                Err(gap) => prop_assert!(gap == Gap::TooOld && bytes < 2_000_000),
            }
        }
    }
}
