//! Batches, to compare with what Python sees of them.

use csi_core_allocator::pool::{DEFAULT_EXTENT_BYTES, Pool};

use crate::clock;

pub const RUNS: u64 = 10_000;

/// Nanoseconds a run to allocate and to free a batch in an empty pool: the best of fifty.
pub fn batch() -> (f64, f64) {
    let mut pool = Pool::new(DEFAULT_EXTENT_BYTES).expect("a size that is allowed");
    pool.add_segment(16 << 20).expect("16 TiB");
    let lengths = vec![16; RUNS as usize];
    let (mut allocate, mut free) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..50 {
        let begin = clock::worked();
        let runs = pool.allocate_batch(&lengths, 1).expect("lengths").expect("room");
        allocate = allocate.min(clock::a_call_since(begin, RUNS));
        let begin = clock::worked();
        pool.free_batch(&runs).expect("in use");
        free = free.min(clock::a_call_since(begin, RUNS));
    }
    (allocate, free)
}
