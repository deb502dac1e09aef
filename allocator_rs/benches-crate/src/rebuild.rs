//! A million runs in no order: the pool after a crash.

use csi_core_allocator::pool::{DEFAULT_EXTENT_BYTES, Held, Hold, Pool, Run};

use crate::clock;
use crate::random::Random;

pub const RUNS: u64 = 1_000_000;

/// The milliseconds that `Pool::rebuild` takes: the best of five, and how many free runs come out.
pub fn rebuild() -> (f64, u64) {
    let held = runs();
    let extents = held.iter().map(|held| held.run.end()).max().unwrap_or(1) + 1;
    let mut free_runs = 0;
    let once = |_| {
        let worked = clock::worked();
        let pool = Pool::rebuild(DEFAULT_EXTENT_BYTES, &[extents], &held).expect("no overlaps");
        let milliseconds = clock::a_call_since(worked, 1_000_000);
        free_runs = pool.statistics().free_runs;
        milliseconds
    };
    let best = (0..5).map(once).fold(f64::INFINITY, f64::min);
    (best, free_runs)
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
