//! A million runs in no order: the pool after a crash.

use csi_core_allocator::pool::{DEFAULT_EXTENT_BYTES, Held, Hold, Pool, Run};

use crate::clock;
use crate::random::Random;

pub const RUNS: u64 = 1_000_000;

pub struct Rebuilt {
    /// The best of five.
    pub milliseconds: f64,
    pub free_runs: u64,
    /// Memory that grows with them.
    pub bytes_per_free_run: f64,
}

pub fn rebuild() -> Rebuilt {
    let held = runs();
    let extents = held.iter().map(|held| held.run.end()).max().unwrap_or(1) + 1;
    let mut best = Rebuilt { milliseconds: f64::INFINITY, free_runs: 0, bytes_per_free_run: 0.0 };
    for _ in 0..5 {
        let worked = clock::worked();
        let pool = Pool::rebuild(DEFAULT_EXTENT_BYTES, &[extents], &held).expect("no overlaps");
        best.milliseconds = best.milliseconds.min(clock::a_call_since(worked, 1_000_000));
        let statistics = pool.statistics();
        best.free_runs = statistics.free_runs;
        best.bytes_per_free_run = statistics.memory_bytes as f64 / statistics.free_runs as f64;
    }
    best
}

fn runs() -> Vec<Held> {
    let mut random = Random::new(7);
    let mut start = 0;
    let mut held = Vec::new();
    for _ in 0..RUNS {
        start += random.below(8) as u64;
        let length = 1 + random.below(200) as u64;
        held.push(Held { run: Run { segment: 0, start, length }, hold: Hold::Owned });
        start += length;
    }
    for index in (1..held.len()).rev() {
        held.swap(index, random.below(index + 1));
    }
    held
}
