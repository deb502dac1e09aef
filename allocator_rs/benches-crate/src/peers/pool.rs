use csi_core_allocator::pool::{DEFAULT_EXTENT_BYTES, Pool, Request, Run};

use super::{FreeSpace, Peer};

/// The allocator of this repository.
pub struct CsiCore(Pool);

impl Peer for CsiCore {
    const NAME: &'static str = "csi-core";
    type Held = u64;

    fn new(extents: u64, _most_held: usize) -> Self {
        let mut pool = Pool::new(DEFAULT_EXTENT_BYTES).expect("a size that is allowed");
        pool.add_segment(extents).expect("a pool of at most 4 PiB");
        Self(pool)
    }

    #[inline]
    fn allocate(&mut self, length: u64) -> Option<u64> {
        self.0.allocate(Request::new(length).expect("more than nothing")).map(|run| run.start)
    }

    #[inline]
    fn free(&mut self, held: u64, length: u64) {
        self.0.free(Run { segment: 0, start: held, length }).expect("in use");
    }

    fn expand(&mut self, held: u64, length: u64, by: u64) -> Option<u64> {
        if self.0.extend(Run { segment: 0, start: held, length }, by).expect("in use").is_some() {
            return Some(held);
        }
        let moved = self.allocate(length + by)?;
        self.free(held, length);
        Some(moved)
    }

    fn free_space(&self) -> FreeSpace {
        let statistics = self.0.statistics();
        FreeSpace {
            runs: statistics.free_runs,
            longest: statistics.longest_free_run,
            memory_bytes: Some(statistics.memory_bytes),
        }
    }
}
