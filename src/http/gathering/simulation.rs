//! Publishers that send one request after the other, on threads that take turns: where they end up.

use super::*;

/// One connection, each of whose requests has so many events and takes its shard's thread so long.
struct Publisher {
    stay: Stay,
    events: usize,
    cost: Duration,
    moves: u8,
}

struct Simulation {
    gathering: Gathering,
    began: Instant,
    publishers: Vec<Publisher>,
    /// How far each shard's thread is.
    clocks: Vec<Instant>,
    busy: Vec<Duration>,
}

impl Simulation {
    fn new(shards: u8, publishers: usize, home: impl Fn(usize) -> u8, (events, cost): (usize, Duration)) -> Self {
        let began = Instant::now();
        let publisher = |number| Publisher { stay: Stay::new(home(number), 0, began), events, cost, moves: 0 };
        Self {
            gathering: Gathering::new(shards.into()),
            began,
            publishers: (0..publishers).map(publisher).collect(),
            clocks: vec![began; shards.into()],
            busy: vec![Duration::ZERO; shards.into()],
        }
    }

    /// Runs up to this time from the beginning on. How many connections moved.
    fn run_to(&mut self, end: Duration) -> usize {
        let mut moves = 0;
        self.busy.fill(Duration::ZERO);
        loop {
            let (shard, clock) = self.clocks.iter().copied().enumerate().min_by_key(|(_, clock)| *clock).unwrap();
            if clock >= self.began + end {
                return moves;
            }
            moves += self.turn(shard);
        }
    }

    /// A thread handles one request of each of its connections.
    fn turn(&mut self, shard: usize) -> usize {
        let Self { gathering, publishers, clocks, busy, .. } = self;
        let (clock, mut moves, mut measures_without) = (&mut clocks[shard], 0, None);
        let began = *clock;
        for publisher in publishers.iter_mut().filter(|publisher| publisher.stay.shard() == shard) {
            *clock += publisher.cost;
            let look = publisher.stay.answered(publisher.events, gathering, *clock);
            if look.measures {
                // Its next request is on the way meanwhile.
                measures_without = Some(publisher.cost);
            }
            if let Some(other) = look.moves_to {
                moves += 1;
                publisher.moves += 1;
                publisher.stay = Stay::new(u8::try_from(other).unwrap(), publisher.moves, *clock);
            }
        }
        let lag = *clock - began;
        busy[shard] += lag;
        if let Some(without) = measures_without {
            gathering.measured(shard, lag - without, *clock);
        }
        if lag.is_zero() {
            *clock += Duration::from_micros(100);
        }
        moves
    }
}

const LARGE: (usize, Duration) = (500, Duration::from_millis(5));
const SMALL: (usize, Duration) = (1, Duration::from_micros(10));
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn publishers_of_large_batches_use_several_threads() {
    for home in [|_| 0, |_| 1, |number: usize| u8::try_from(number % 2).unwrap()] {
        let mut simulation = Simulation::new(2, 8, home, LARGE);
        simulation.run_to(MINUTE / 4);
        let moves = simulation.run_to(MINUTE);
        assert!(simulation.busy.iter().all(|busy| *busy > MINUTE / 2), "{:?}", simulation.busy);
        assert!(moves < 16, "{moves}");
    }
}

#[test]
fn publishers_that_are_alone_anywhere_move_less_and_less() {
    let mut simulation = Simulation::new(2, 2, |_| 1, LARGE);
    simulation.run_to(MINUTE);
    let moves = simulation.run_to(5 * MINUTE);
    assert!(moves < 16, "{moves}");
}

#[test]
fn publishers_of_single_events_gather_and_stay() {
    let mut simulation = Simulation::new(4, 32, |number| u8::try_from(number % 4).unwrap(), SMALL);
    simulation.run_to(MINUTE / 60);
    assert_eq!(simulation.run_to(MINUTE / 15), 0);
    assert!(simulation.publishers.iter().all(|publisher| publisher.stay.shard() == 0));
}

#[test]
fn many_publishers_use_as_many_threads_as_they_need_and_stay() {
    for home in [|_| 0, |number: usize| u8::try_from(number % 4).unwrap()] {
        let mut simulation = Simulation::new(4, 400, home, SMALL);
        simulation.run_to(MINUTE / 6);
        let moves = simulation.run_to(MINUTE / 3);
        assert!(moves < 40, "{moves}");
        let busy = simulation.busy.iter().filter(|busy| !busy.is_zero()).count();
        assert!((2..=4).contains(&busy), "{:?}", simulation.busy);
        let most =
            (0..4).map(|shard| simulation.publishers.iter().filter(|one| one.stay.shard() == shard).count()).max();
        assert!(most <= Some(220), "{most:?}");
    }
}
