//! All allocators on one workload, in turns.

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
    /// Turns of each allocator.
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
            Self { rounds: 5, turn: turn(100_000, 20), setup: turn(0, 300), seeds: 2 }
        } else {
            Self { rounds: 11, turn: turn(200_000, 50), setup: turn(0, 1200), seeds: 4 }
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
    let floor = scenario.start::<Floor>(effort.setup).map(|subject| (Floor::NAME, subject));
    let peers = PEERS.iter().filter_map(|(name, start)| Some((*name, start(scenario, effort.setup)?)));
    let mut subjects: Vec<(&str, Box<dyn Subject>)> = floor.into_iter().chain(peers).collect();
    let mut turns = vec![Vec::with_capacity(effort.rounds); subjects.len()];
    for _ in 0..effort.rounds {
        for ((_, subject), turns) in subjects.iter_mut().zip(&mut turns) {
            // The others have just used the caches.
            subject.work(Turn { calls: effort.turn.calls / 2, limit: effort.turn.limit / 2 });
            turns.push(subject.work(effort.turn));
        }
    }
    let floor = clock::quantile(&mut turns[0], 0.5);
    let measured = subjects.iter_mut().zip(&mut turns).skip(1);
    measured
        .map(|((peer, subject), turns)| figures(peer, subject.as_mut(), turns, floor, effort.turn))
        .collect()
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
