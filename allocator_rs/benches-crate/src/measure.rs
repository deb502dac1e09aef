//! All allocators on one workload, in turns.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock;
use crate::peers::{
    CsiCore, Floor, FreeSpace, Offset, OffsetByAddress, Peer, RangeAlloc, RoaringNextFit, TwoTrees,
};
use crate::scenario::Scenario;
use crate::subject::{Outcome, Subject, Turn};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Pools that each allocator gets, one after the other: where its memory happens to lie is worth up to a tenth.
    pub starts: usize,
    /// Turns of each allocator in each pool.
    pub rounds: usize,
    pub turn: Turn,
    /// How long it may take to fill a pool, and how long to let it grow old.
    pub setup: Turn,
    /// Different sequences of requests for the fragmentation.
    pub seeds: u64,
}

impl Effort {
    pub fn new(short: bool) -> Self {
        let turn = |calls, milliseconds| Turn { calls, limit: Duration::from_millis(milliseconds) };
        if short {
            Self { starts: 3, rounds: 3, turn: turn(100_000, 20), setup: turn(0, 300), seeds: 2 }
        } else {
            Self { starts: 3, rounds: 5, turn: turn(200_000, 50), setup: turn(0, 1200), seeds: 4 }
        }
    }
}

/// What was measured of one allocator.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub peer: &'static str,
    /// Nanoseconds a call: the median over turns, less what the workload itself costs.
    pub nanoseconds: f64,
    /// The fastest and the slowest quarter begin here.
    pub quartiles: (f64, f64),
    pub p50: u32,
    pub p99: u32,
    pub p999: u32,
    pub outcome: Outcome,
    pub used_percent: f64,
    pub free: FreeSpace,
}

type Start = fn(&Scenario, Turn) -> Option<Box<dyn Subject>>;

/// The allocators, ours first.
pub const PEERS: [(&str, Start); 6] = [
    (CsiCore::NAME, Scenario::start::<CsiCore>),
    (Offset::NAME, Scenario::start::<Offset>),
    (OffsetByAddress::NAME, Scenario::start::<OffsetByAddress>),
    (TwoTrees::NAME, Scenario::start::<TwoTrees>),
    (RangeAlloc::NAME, Scenario::start::<RangeAlloc>),
    (RoaringNextFit::NAME, Scenario::start::<RoaringNextFit>),
];

/// The figures of every allocator that could get its pool ready in time.
pub fn compare(scenario: &Scenario, effort: Effort) -> Vec<Figures> {
    let mut turns: HashMap<&str, Vec<f64>> = HashMap::new();
    let mut subjects = Vec::new();
    for _ in 0..effort.starts {
        // The former pools are there until the next ones are, which so lie elsewhere.
        subjects = start(scenario, effort);
        for _ in 0..effort.rounds {
            for (name, subject) in &mut subjects {
                // The others have just used the caches.
                subject.work(Turn { calls: effort.turn.calls / 2, limit: effort.turn.limit / 2 });
                turns.entry(name).or_default().push(subject.work(effort.turn));
            }
        }
    }
    let floor = turns.get_mut(Floor::NAME).map_or(0.0, |turns| clock::quantile(turns, 0.5));
    let mut measured = Vec::new();
    for (peer, subject) in subjects.iter_mut().filter(|(name, _)| *name != Floor::NAME) {
        let turns = turns.get_mut(peer).expect("whoever has a pool has worked");
        measured.push(figures(peer, subject.as_mut(), turns, floor, effort.turn));
    }
    measured
}

type Named = (&'static str, Box<dyn Subject>);

/// The floor, and every allocator that gets a pool ready in time.
fn start(scenario: &Scenario, effort: Effort) -> Vec<Named> {
    let floor = scenario.start::<Floor>(effort.setup).map(|subject| (Floor::NAME, subject));
    let peers = PEERS.iter().filter_map(|(name, start)| Some((*name, start(scenario, effort.setup)?)));
    floor.into_iter().chain(peers).collect()
}

fn figures(
    peer: &'static str,
    subject: &mut dyn Subject,
    turns: &mut [f64],
    floor: f64,
    turn: Turn,
) -> Figures {
    let (outcome, used_percent, free) = (subject.outcome(), subject.used_percent(), subject.free_space());
    let mut latency = subject.single_calls(turn);
    let [p50, p99, p999] = [500, 990, 999].map(|permille| latency.permille(permille));
    let [low, middle, high] = [0.25, 0.5, 0.75].map(|part| clock::quantile(turns, part) - floor);
    Figures { peer, nanoseconds: middle, quartiles: (low, high), p50, p99, p999, outcome, used_percent, free }
}
