//! A million runs in no order: the pool after a crash.

use csi_core_allocator::pool::{DEFAULT_EXTENT_BYTES, Held, Hold, MIN_EXTENT_BYTES, Pool, Run};

use crate::clock;
use crate::random::Random;

pub const RUNS: u64 = 1_000_000;
/// Pools in TiB, and what their extents measure: the smallest pool has no million runs of the usual extents.
const POOLS: [(u64, u64); 3] =
    [(1, MIN_EXTENT_BYTES), (16, DEFAULT_EXTENT_BYTES), (256, DEFAULT_EXTENT_BYTES)];

pub struct Rebuilt {
    pub tib: u64,
    pub extent_bytes: u64,
    /// The best of five.
    pub milliseconds: f64,
    pub free_runs: u64,
    /// Memory that grows with them.
    pub bytes_per_free_run: f64,
}

/// Pools of all sizes.
pub fn rebuild() -> Vec<Rebuilt> {
    POOLS.iter().map(|&(tib, extent_bytes)| rebuild_pool(tib, extent_bytes)).collect()
}

fn rebuild_pool(tib: u64, extent_bytes: u64) -> Rebuilt {
    let extents = (tib << 40) / extent_bytes;
    let held = runs(extents);
    let mut best =
        Rebuilt { tib, extent_bytes, milliseconds: f64::INFINITY, free_runs: 0, bytes_per_free_run: 0.0 };
    for _ in 0..5 {
        let worked = clock::worked();
        let pool = Pool::rebuild(extent_bytes, &[extents], &held).expect("no overlaps");
        best.milliseconds = best.milliseconds.min(clock::a_call_since(worked, 1_000_000));
        let statistics = pool.statistics();
        best.free_runs = statistics.free_runs;
        best.bytes_per_free_run = statistics.memory_bytes as f64 / statistics.free_runs as f64;
    }
    best
}

/// Runs all over the pool, with short gaps between most of them.
fn runs(extents: u64) -> Vec<Held> {
    let mut random = Random::new(7);
    let mut start = 0;
    let mut held = Vec::new();
    // With the gaps, a run of mean length takes a little less than its share.
    let longest = 2 * (extents / RUNS - 5);
    for _ in 0..RUNS {
        start += random.below(8) as u64;
        let length = 1 + random.below(longest as usize) as u64;
        held.push(Held { run: Run { segment: 0, start, length }, hold: Hold::Owned });
        start += length;
    }
    for index in (1..held.len()).rev() {
        held.swap(index, random.below(index + 1));
    }
    held
}
