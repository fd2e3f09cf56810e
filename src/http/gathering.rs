//! On which shard a publisher's connection is served. The kernel spreads connections over all shards; those that publish one
//! request after the other gather on the first shard that has time for them. What they send is then read in one turn of one
//! thread, appended together and written to each subscriber at once. Spread over several threads, each would sleep and be woken
//! for every few events ([decision 24](../../docs/decisions/24-publishers-gather-on-one-shard.md)).
//!
//! Whether a shard has time is seen from its lag: how long its thread takes for all that is ready, which is how long any of it may
//! wait. Up to [`LIGHT`] publishers come, and from [`CROWDED`] on they leave for a shard that is light, one after the other. In
//! between they stay, so that nobody moves to and fro.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Lag up to which a shard takes publishers from others.
const LIGHT: Duration = Duration::from_millis(1);
/// Lag from which its publishers leave.
const CROWDED: Duration = Duration::from_millis(2);
/// Pause between two measurements of a shard.
const PAUSE: Duration = Duration::from_millis(5);
/// Measurements of which the least counts. The others may have been longer because the thread waited for a core.
const MEASUREMENTS: u32 = 4;
/// So long a lag is known. A shard on which nobody has published for longer counts as light.
const KNOWN: Duration = Duration::from_secs(1);
/// Connections that come to a shard before its lag is known anew.
const ARRIVALS: u32 = 8;
/// Answers after which a connection looks round: for one that ends sooner a move is not worth it.
const LOOK: u32 = 16;
/// So long a connection stays that has moved. With each move it is twice as long: where two shards seem better than the other
/// in turns, nobody moves to and fro for ever.
const REST: Duration = Duration::from_secs(1);
/// How often that is doubled.
const MAX_DOUBLINGS: u8 = 6;
/// Events a turn from which a connection stays on a light shard, too: it gives its thread enough to do whenever it wakes it.
const MANY: u32 = 4;

/// The lags of all shards.
pub struct Gathering {
    shards: Box<[Mutex<Lag>]>,
}

/// What is known of one shard.
#[derive(Default)]
struct Lag {
    /// The least of the last measurements, and when it was known.
    known: Option<(Duration, Instant)>,
    /// The least of those that follow, and how many they are.
    least: Duration,
    count: u32,
    /// When the last one began.
    began: Option<Instant>,
    /// Connections that came since the lag is known; as many as may come after one from a crowd.
    arrivals: u32,
}

impl Lag {
    /// The lag, if it is known.
    fn at(&self, now: Instant) -> Option<Duration> {
        let (lag, at) = self.known?;
        (now.saturating_duration_since(at) < KNOWN).then_some(lag)
    }

    /// Whether there is time for more publishers.
    fn is_light(&self, now: Instant) -> bool {
        self.at(now).is_none_or(|lag| lag <= LIGHT)
    }

    fn measured(&mut self, lag: Duration, now: Instant) {
        self.least = if self.count == 0 { lag } else { self.least.min(lag) };
        self.count += 1;
        if self.count == MEASUREMENTS {
            self.learn(self.least, now);
        }
    }

    fn learn(&mut self, lag: Duration, now: Instant) {
        (self.known, self.count, self.arrivals) = (Some((lag, now)), 0, 0);
    }

    /// Whether one more connection may come to this shard, which is light. One from a crowded shard comes alone: it may be what
    /// the crowd there is made of.
    fn admit(&mut self, comes_from_crowd: bool, now: Instant) -> bool {
        if self.at(now).is_none() {
            self.learn(Duration::ZERO, now);
        }
        let is_admitted = self.arrivals < ARRIVALS;
        self.arrivals = self.arrivals.saturating_add(if comes_from_crowd { ARRIVALS } else { 1 });
        is_admitted
    }
}

impl Gathering {
    /// Of so many shards.
    pub fn new(shards: usize) -> Self {
        Self { shards: (0..shards).map(|_| Mutex::default()).collect() }
    }

    /// Whether the lag of a shard is to be measured from now on.
    fn begins_to_measure(&self, shard: usize, now: Instant) -> bool {
        let Some(lag) = self.shards.get(shard) else { return false };
        let began = &mut lag.lock().began;
        let is_time = began.is_none_or(|began| now.saturating_duration_since(began) >= PAUSE);
        if is_time {
            *began = Some(now);
        }
        is_time
    }

    /// A shard's thread has taken so long for all that was ready.
    pub(super) fn measured(&self, shard: usize, lag: Duration, now: Instant) {
        if let Some(known) = self.shards.get(shard) {
            known.lock().measured(lag, now);
        }
    }

    /// Where a connection of a shard should go on, if that is another one and its own is known. Only one that `gathers` leaves a
    /// shard that is not crowded.
    fn better_than(&self, own: usize, gathers: bool, now: Instant) -> Option<usize> {
        let is_crowded = self.shards.get(own)?.lock().at(now)? >= CROWDED;
        let others = match (is_crowded, gathers) {
            (true, _) => self.shards.len(),
            (false, true) => own,
            (false, false) => 0,
        };
        let light = (0..others).find(|&other| other != own && self.shards[other].lock().is_light(now))?;
        self.shards[light].lock().admit(is_crowded, now).then_some(light)
    }
}

/// A connection on a shard.
pub(super) struct Stay {
    shard: usize,
    /// Times that it had answers.
    turns: u32,
    /// Events in them since it last looked round.
    events: u32,
    /// Before this it does not move.
    rests_until: Instant,
}

/// What a connection finds when it looks round.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The shard's lag is to be measured.
    pub measures: bool,
    /// The shard on which the connection goes on.
    pub moves_to: Option<usize>,
}

impl Stay {
    /// From now on, after so many moves.
    pub(super) fn new(shard: u8, moves: u8, now: Instant) -> Self {
        let rest = match moves.checked_sub(1) {
            Some(again) => REST * (1 << again.min(MAX_DOUBLINGS)),
            None => Duration::ZERO,
        };
        Self { shard: shard.into(), turns: 0, events: 0, rests_until: now + rest }
    }

    /// Which shard it is.
    pub(super) fn shard(&self) -> usize {
        self.shard
    }

    /// The connection had answers to requests with so many events, and looks round if it is time.
    pub(super) fn answered(&mut self, events: usize, gathering: &Gathering, now: Instant) -> Look {
        self.turns = self.turns.wrapping_add(1);
        self.events = self.events.saturating_add(events.try_into().unwrap_or(u32::MAX));
        if !self.turns.is_multiple_of(LOOK) {
            return Look::default();
        }
        let gathers = std::mem::take(&mut self.events) < MANY * LOOK;
        let rests = now < self.rests_until;
        Look {
            measures: gathering.begins_to_measure(self.shard, now),
            moves_to: if rests { None } else { gathering.better_than(self.shard, gathers, now) },
        }
    }
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    fn learn(gathering: &Gathering, shard: usize, lag: Duration, now: Instant) {
        (0..MEASUREMENTS).for_each(|_| gathering.measured(shard, lag, now));
    }

    #[test]
    fn publishers_gather_on_the_first_shard_that_is_light_a_few_at_a_time() {
        let (gathering, now) = (Gathering::new(3), Instant::now());
        let come = |from| (0..2 * ARRIVALS).filter_map(|_| gathering.better_than(from, true, now)).collect::<Vec<_>>();
        assert!(come(2).is_empty(), "nothing is known of its own");
        (0..3).for_each(|shard| learn(&gathering, shard, LIGHT, now));
        assert_eq!(gathering.better_than(0, true, now), None, "it is the first");
        assert_eq!(come(2), [0; ARRIVALS as usize]);
        learn(&gathering, 0, LIGHT, now);
        assert_eq!(come(1), [0; ARRIVALS as usize], "it is known to be light still");
        learn(&gathering, 0, LIGHT + US, now);
        assert!(come(1).is_empty(), "not crowded, and not light");
        assert_eq!(gathering.better_than(0, true, now), None);
    }

    #[test]
    fn publishers_leave_a_crowded_shard_for_a_light_one_by_one() {
        let (gathering, now) = (Gathering::new(3), Instant::now());
        learn(&gathering, 0, CROWDED, now);
        learn(&gathering, 1, LIGHT + US, now);
        assert_eq!(gathering.better_than(0, true, now), Some(2));
        assert_eq!(gathering.better_than(0, true, now), None, "it may bring the crowd along");
        learn(&gathering, 2, CROWDED, now);
        assert_eq!(gathering.better_than(0, true, now), None, "nowhere is it better");
        let later = now + KNOWN;
        learn(&gathering, 1, CROWDED, later);
        assert_eq!(gathering.better_than(1, true, later), Some(0), "nobody has published there for long");
        assert_eq!(gathering.better_than(0, true, later), None);
    }

    #[test]
    fn a_connection_with_many_events_a_turn_leaves_only_a_crowded_shard() {
        let (gathering, now) = (Gathering::new(2), Instant::now());
        learn(&gathering, 1, LIGHT, now);
        let first_move = |events: usize| {
            let mut stay = Stay::new(1, 0, now);
            (0..2 * LOOK).find_map(|_| stay.answered(events, &gathering, now).moves_to)
        };
        assert_eq!([first_move(MANY as usize - 1), first_move(MANY as usize)], [Some(0), None]);
        learn(&gathering, 1, CROWDED, now);
        assert_eq!(first_move(MANY as usize), Some(0));
    }

    #[test]
    fn one_long_wait_for_a_core_is_no_crowd() {
        let (gathering, now) = (Gathering::new(2), Instant::now());
        learn(&gathering, 1, LIGHT, now);
        for lag in [50 * CROWDED, LIGHT / 2, 50 * CROWDED, CROWDED] {
            gathering.measured(0, lag, now);
        }
        assert_eq!(gathering.better_than(1, true, now), Some(0));
        assert_eq!(gathering.better_than(0, true, now), None);
    }

    #[test]
    fn a_lag_is_measured_now_and_then() {
        let (gathering, now) = (Gathering::new(2), Instant::now());
        assert!(gathering.begins_to_measure(0, now));
        assert!(!gathering.begins_to_measure(0, now + PAUSE - US));
        assert!(gathering.begins_to_measure(1, now), "of each shard by itself");
        assert!(gathering.begins_to_measure(0, now + PAUSE));
    }

    #[test]
    fn a_connection_looks_round_after_some_answers_and_after_a_move_much_later() {
        let (gathering, now) = (Gathering::new(2), Instant::now());
        let first_move = |moves, later| {
            learn(&gathering, 1, LIGHT, now + later);
            let mut stay = Stay::new(1, moves, now);
            (1..=LOOK).find(|_| stay.answered(1, &gathering, now + later).moves_to.is_some())
        };
        assert_eq!(first_move(0, Duration::ZERO), Some(LOOK));
        assert_eq!([first_move(1, REST - US), first_move(1, REST)], [None, Some(LOOK)]);
        assert_eq!([first_move(3, 4 * REST - US), first_move(3, 4 * REST)], [None, Some(LOOK)]);
        assert_eq!([first_move(200, 64 * REST - US), first_move(200, 64 * REST)], [None, Some(LOOK)]);
    }
}
