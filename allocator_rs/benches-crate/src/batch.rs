//! One call after the other and batches in an empty pool, to compare with what Python sees of them.

use csi_core_allocator::pool::{DEFAULT_EXTENT_BYTES, Pool, Request};

use crate::clock;

pub const RUNS: u64 = 10_000;
const LENGTH: u64 = 16;

/// Nanoseconds.
pub struct Plain {
    /// To allocate a run and free it, one after the other: a call.
    pub call: f64,
    /// To allocate a batch, a run.
    pub allocate: f64,
    /// To free a batch, a run.
    pub free: f64,
}

/// The best of fifty of each.
pub fn plain() -> Plain {
    let mut pool = Pool::new(DEFAULT_EXTENT_BYTES).expect("a size that is allowed");
    pool.add_segment(16 << 20).expect("16 TiB");
    let lengths = vec![LENGTH; RUNS as usize];
    let mut best = Plain { call: f64::INFINITY, allocate: f64::INFINITY, free: f64::INFINITY };
    for _ in 0..50 {
        let begin = clock::worked();
        for _ in 0..RUNS {
            let run = pool.allocate(Request::new(LENGTH).expect("more than nothing")).expect("room");
            pool.free(std::hint::black_box(run)).expect("in use");
        }
        best.call = best.call.min(clock::a_call_since(begin, 2 * RUNS));
        let begin = clock::worked();
        let runs = pool.allocate_batch(&lengths, 1).expect("lengths").expect("room");
        best.allocate = best.allocate.min(clock::a_call_since(begin, RUNS));
        let begin = clock::worked();
        pool.free_batch(runs).expect("in use");
        best.free = best.free.min(clock::a_call_since(begin, RUNS));
    }
    best
}
