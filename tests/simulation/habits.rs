//! What happens often in a run and what seldom, drawn from its seed. What needs several things at once that are rare in every
//! run alike would hardly ever be seen.

use crate::rules::Rules;
use rand::RngExt as _;
use rand::rngs::StdRng;

/// What may happen in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Publish,
    Command,
    Tail,
    Shard,
    Serve,
    Client,
    Flush,
    WriteRecords,
    Notice,
    NodeFate,
    LogFate,
    Wait,
    WaitLong,
}

/// How often, of 1000, where nothing is frequent or rare.
const USUAL: [(Act, u32); 13] = [
    (Act::Publish, 110),
    (Act::Command, 20),
    (Act::Tail, 150),
    (Act::Shard, 160),
    (Act::Serve, 130),
    (Act::Client, 200),
    (Act::Flush, 100),
    (Act::WriteRecords, 40),
    (Act::Notice, 35),
    (Act::NodeFate, 10),
    (Act::LogFate, 6),
    (Act::Wait, 25),
    (Act::WaitLong, 5),
];

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    acts: Vec<(Act, u32)>,
    sum: u32,
    /// Clients miss much, and get it event by event, and a broken connection takes nothing more of it.
    pub long_replays: bool,
    /// Fewer packets than this are on their way to a client.
    pub room_on_wire: usize,
    /// How many of 1000 handshakes reach the server twice.
    pub twice: u32,
    /// Nodes that are published to.
    pub publishers: usize,
    /// By so much their clocks, and those of masters, are ahead or behind at most, in milliseconds.
    pub apart: i64,
}

/// Clocks of nodes and masters differ by less than twice this: four fifths of the time for which entries name what was
/// acknowledged before them.
const MAX_APART: i64 = 80;

impl Habits {
    pub(crate) fn draw(rng: &mut StdRng, rules: &Rules) -> Self {
        let mut acts: Vec<_> = USUAL.into();
        for (act, weight) in &mut acts {
            *weight = (*weight * [1, 3, 3, 9][rng.random_range(0..4)]).div_ceil(3);
            match act {
                Act::Tail | Act::Shard | Act::Serve | Act::Client | Act::Flush if rules.calm => *weight *= 3,
                Act::LogFate | Act::NodeFate | Act::Command if rules.calm => *weight = weight.div_ceil(3),
                _ => {}
            }
            if rules.often == Some(*act) {
                *weight *= 4;
            }
        }
        let sum = acts.iter().map(|(_, weight)| weight).sum();
        let room_on_wire = if rng.random_bool(0.3) { 4 } else { 12 };
        let long_replays = rng.random_bool(0.3) || rules.long_replays;
        let publishers = if rules.partitions { [1, 1, 2, 3][rng.random_range(0..4)] } else { 1 };
        let apart = if rules.partitions { [0, MAX_APART / 8, MAX_APART, MAX_APART][rng.random_range(0..4)] } else { 0 };
        let twice = if rng.random_bool(0.2) { 700 } else { 100 };
        Self { acts, sum, long_replays, room_on_wire, twice, publishers, apart }
    }

    /// How many of 1000 publishes are a dozen events.
    pub(crate) fn bursts(&self) -> u32 {
        if self.long_replays { 300 } else { 50 }
    }

    pub(crate) fn next(&self, rng: &mut StdRng) -> Act {
        let mut at = rng.random_range(0..self.sum);
        for (act, weight) in &self.acts {
            match at.checked_sub(*weight) {
                Some(left) => at = left,
                None => return *act,
            }
        }
        Act::Wait
    }
}
