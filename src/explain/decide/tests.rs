use super::*;

fn at(ms: u64) -> Position {
    Position { ms, seq: 0 }
}

fn place(ms: u64) -> Place {
    Offset { position: at(ms), ..Offset::default() }.into()
}

fn after(ms: u64) -> Box<Place> {
    Box::new(place(ms))
}

fn stamp(ms: u64) -> Stamp {
    Stamp::new(1_000 + ms, &place(ms))
}

/// A session that began at 10, is at 100, and is in `a`.
struct Case {
    facts: Box<dyn Fn(&mut Facts<'_>)>,
    end: Option<End>,
    changes: Vec<Change>,
    notes: Vec<(Stamp, SessionNote)>,
    resets: Vec<Reset>,
    rooms: Vec<Room>,
    except: Vec<Room>,
}

impl Case {
    fn new() -> Self {
        Self {
            facts: Box::new(|_| {}),
            end: None,
            changes: Vec::new(),
            notes: Vec::new(),
            resets: Vec::new(),
            rooms: vec!["a".into()],
            except: Vec::new(),
        }
    }

    fn with(mut self, change: impl Fn(&mut Facts<'_>) + 'static) -> Self {
        self.facts = Box::new(change);
        self
    }

    fn note(mut self, ms: u64, note: SessionNote) -> Self {
        self.notes.push((stamp(ms), note));
        self
    }

    fn change(mut self, ms: u64, room: &str, joined: bool) -> Self {
        self.changes.push(Change { after: at(ms), partition: None, room: room.into(), joined });
        self
    }

    fn ended(mut self, ms: u64, change: impl FnOnce(&mut End)) -> Self {
        let mut end = End {
            at: stamp(ms),
            reason: CloseReason::TransportClose,
            behind: None,
            unsent_from: Vec::new(),
            lost_from: Vec::new(),
            resumable_until_ms: None,
        };
        change(&mut end);
        self.end = Some(end);
        self
    }

    fn to(mut self, rooms: &[&str], except: &[&str]) -> Self {
        self.rooms = rooms.iter().map(|room| (*room).into()).collect();
        self.except = except.iter().map(|room| (*room).into()).collect();
        self
    }

    /// The outcome of an event at this position.
    fn at(&self, ms: u64) -> Outcome {
        self.on(Line::CONTROL, ms)
    }

    /// The same on another line.
    fn on(&self, line: Line, ms: u64) -> Outcome {
        let mut facts = Facts {
            began: at(10),
            since_ms: 1_010,
            is_lasting: true,
            here: at(100),
            end: self.end.as_ref(),
            behind: None,
            is_queued: false,
            written_ms: Some(5),
            is_in: &|room| room == "a",
            is_since_start: &|_| false,
            changes: &self.changes,
            known_from: at(0),
            notes: &self.notes,
            resets: &self.resets,
        };
        (self.facts)(&mut facts);
        facts.outcome(&EventFacts { line, position: at(ms), rooms: &self.rooms, except: &self.except })
    }
}

#[test]
fn delivered_or_on_its_way() {
    assert_eq!(Case::new().at(50), Outcome::Delivered(Some(5)));
    assert_eq!(Case::new().at(101), Outcome::Waiting(Waiting::Node));
    assert_eq!(Case::new().with(|facts| facts.is_queued = true).at(50), Outcome::Waiting(Waiting::Outbox));
    let behind = Case::new().with(|facts| facts.behind = Some(at(49)));
    assert_eq!((behind.at(49), behind.at(50)), (Outcome::Delivered(Some(5)), Outcome::Waiting(Waiting::Replay)));
}

#[test]
fn connected_later_or_gone() {
    assert_eq!((Case::new().at(10), Case::new().at(11)), (Outcome::ConnectedLater, Outcome::Delivered(Some(5))));
    let ended = Case::new().ended(50, |_| {});
    assert_eq!(ended.at(51), Outcome::EndedBefore(CloseReason::TransportClose, 1_050));
    assert_eq!(ended.at(50), Outcome::Delivered(Some(5)));
}

#[test]
fn dropped_with_the_outbox_or_behind() {
    let dropped = Outcome::Dropped(CloseReason::SlowConsumer, 1_050);
    let slow = |end: &mut End| end.reason = CloseReason::SlowConsumer;
    let lost = Case::new().ended(50, |end| (slow(end), end.lost_from = vec![place(40).control()]).1);
    assert_eq!((lost.at(39), lost.at(40)), (Outcome::Delivered(Some(5)), dropped.clone()));
    let behind = Case::new().ended(50, |end| (slow(end), end.behind = Some(Box::new(place(30)))).1);
    assert_eq!((behind.at(30), behind.at(31)), (Outcome::Delivered(Some(5)), dropped));
    let closing = Case::new().ended(50, |end| end.unsent_from = vec![place(45).control()]);
    assert_eq!(closing.at(45), Outcome::Waiting(Waiting::Outbox));
}

#[test]
fn where_the_session_was_decides() {
    let joined = SessionNote::Joined { room: "a".into(), by: crate::model::provenance::Provenance::Rule };
    let case = Case::new().change(40, "a", true).note(40, joined);
    assert_eq!((case.at(40), case.at(41)), (Outcome::JoinedLater(Some(1_040)), Outcome::Delivered(Some(5))));
    let case = Case::new().change(40, "b", false).note(40, SessionNote::Left { room: "b".into(), by: LeftBy::Command });
    let case = case.to(&["b"], &[]);
    assert_eq!((case.at(40), case.at(41)), (Outcome::Delivered(Some(5)), Outcome::LeftBefore(1_040, LeftBy::Command)));
    assert_eq!(Case::new().to(&["c"], &[]).at(50), Outcome::NotInRoom);
    assert_eq!(Case::new().to(&["c", "a"], &[]).at(50), Outcome::Delivered(Some(5)), "one of its rooms is enough");
    assert_eq!(Case::new().to(&["c"], &["a"]).at(50), Outcome::NotInRoom);
    let case = Case::new().to(&["a"], &["x", "a"]);
    assert_eq!(case.at(50), Outcome::Excepted("a".into()));
    let case = Case::new().change(60, "x", true).to(&["a"], &["x"]);
    assert_eq!(case.at(50), Outcome::Delivered(Some(5)), "it joined the excepted room later");
}

#[test]
fn what_is_no_longer_known_is_not_claimed() {
    let case = Case::new().with(|facts| facts.known_from = at(50));
    assert_eq!((case.at(50), case.at(51)), (Outcome::Unknown, Outcome::Delivered(Some(5))));
    let case = Case::new().with(|facts| {
        facts.known_from = at(50);
        facts.is_since_start = &|_: &str| true;
    });
    assert_eq!(case.at(50), Outcome::Delivered(Some(5)));
}

#[test]
fn replayed_after_a_resume() {
    let case = Case::new().note(60, SessionNote::Resumed { after: after(40), room: None });
    assert_eq!(case.at(40), Outcome::HadIt(1_060));
    assert_eq!((case.at(41), case.at(60)), (Outcome::Replayed(1_060), Outcome::Replayed(1_060)));
    assert_eq!((case.at(61), case.at(9)), (Outcome::Delivered(Some(5)), Outcome::ConnectedLater));
    let left = case.change(30, "b", false).to(&["b"], &[]);
    assert_eq!((left.at(35), left.at(30)), (Outcome::NotInRoom, Outcome::HadIt(1_060)));
    // A stream that names where it was.
    let stream = || Case::new().note(60, SessionNote::Resumed { after: after(5), room: None });
    let stream = |change: fn(&mut Facts<'_>)| {
        stream().with(move |facts| (facts.is_lasting, facts.began, _) = (false, at(60), change(facts)))
    };
    assert_eq!((stream(|_| {}).at(6), stream(|_| {}).at(5)), (Outcome::Replayed(1_060), Outcome::HadIt(1_060)));
    assert_eq!(stream(|facts| facts.behind = Some(at(7))).at(8), Outcome::Waiting(Waiting::Replay));
    // A room with its past.
    let past = || Case::new().change(60, "a", true).with(|facts| facts.is_lasting = false);
    let past = past().note(60, SessionNote::Resumed { after: after(20), room: Some("a".into()) });
    assert_eq!((past.at(20), past.at(21)), (Outcome::JoinedLater(None), Outcome::Replayed(1_060)));
}

#[test]
fn lost_to_a_gap() {
    let gap = |after, room: Option<&str>| SessionNote::Gap { code: "too_old", room: room.map(Into::into), after };
    let case = Case::new().note(60, gap(Some(after(40)), None));
    assert_eq!((case.at(40), case.at(41)), (Outcome::Delivered(Some(5)), Outcome::Gap("too_old", 1_060)));
    assert_eq!((case.at(60), case.at(61)), (Outcome::Gap("too_old", 1_060), Outcome::Delivered(Some(5))));
    assert_eq!(Case::new().note(60, gap(None, None)).at(3), Outcome::Gap("too_old", 1_060));
    assert_eq!(Case::new().note(60, gap(None, Some("b"))).at(50), Outcome::Delivered(Some(5)), "of another room");
    assert_eq!(Case::new().note(60, gap(None, None)).to(&["c"], &[]).at(50), Outcome::NotInRoom);
    let mut case = Case::new();
    case.resets.push(Reset { at: stamp(70), to: place(80).control() });
    assert_eq!((case.at(70), case.at(75)), (Outcome::Delivered(Some(5)), Outcome::Gap("log_reset", 1_070)));
}

#[test]
fn each_partition_has_its_own_positions() {
    let [one, other] = [1, 2].map(|number| Line::new(number).unwrap());
    // On the control line all of it was at 1,000.
    let here = |ms| {
        let mut here = place(1_000);
        for (line, ms) in [(one, ms), (other, 500)] {
            here.set(Offset { line, position: at(ms), ..Offset::default() });
        }
        here
    };
    let mut case = Case::new().with(|facts| facts.is_in = &|room| room == "a" || room == "b");
    let partition = here(40).on(one);
    case.changes.push(Change { after: at(1_000), partition, room: "a".into(), joined: true });
    assert_eq!((case.on(one, 40), case.on(one, 41)), (Outcome::JoinedLater(None), Outcome::Delivered(Some(5))));
    assert_eq!(case.on(other, 40), Outcome::Delivered(Some(5)), "the change is of a room of another line");
    case.notes.push((Stamp::new(1_060, &here(60)), SessionNote::Resumed { after: Box::new(here(45)), room: None }));
    let of = |ms| case.on(one, ms);
    assert_eq!(
        (of(45), of(46), of(61)),
        (Outcome::HadIt(1_060), Outcome::Replayed(1_060), Outcome::Delivered(Some(5)))
    );
    let mut case = Case::new();
    case.resets.push(Reset { at: Stamp::new(1_070, &here(70)), to: here(80).on(one).unwrap() });
    let of = |ms| case.on(one, ms);
    assert_eq!((of(70), of(75)), (Outcome::Delivered(Some(5)), Outcome::Gap("log_reset", 1_070)));
    assert_eq!(case.on(Line::CONTROL, 75), Outcome::Delivered(Some(5)), "of another line");
    let ended = Case::new().ended(50, |end| {
        (end.at, end.lost_from) = (Stamp::new(1_050, &here(90)), vec![here(85).on(one).unwrap()]);
    });
    let dropped = Outcome::Dropped(CloseReason::TransportClose, 1_050);
    assert_eq!((ended.on(one, 84), ended.on(one, 85)), (Outcome::Delivered(Some(5)), dropped));
    assert_eq!(
        (ended.on(one, 91), ended.on(other, 91)),
        (Outcome::EndedBefore(CloseReason::TransportClose, 1_050), Outcome::Delivered(Some(5)),)
    );
}
