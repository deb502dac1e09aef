use offset_allocator::{Allocation, Allocator};

use super::{FreeSpace, Peer};

/// `offset-allocator`: two-level bins, eight an octave, lengths rounded up to a bin; links between
/// neighbours, so that freeing takes the handle that allocating gave.
pub struct Offset(Allocator<u32>);

impl Peer for Offset {
    const NAME: &'static str = "offset-allocator";
    type Held = Allocation<u32>;

    fn new(extents: u64, most_held: usize) -> Self {
        Self(make(extents, most_held))
    }

    #[inline]
    fn allocate(&mut self, length: u64) -> Option<Self::Held> {
        self.0.allocate(small(length))
    }

    #[inline]
    fn free(&mut self, held: Self::Held, _length: u64) {
        self.0.free(held);
    }

    fn free_space(&self) -> FreeSpace {
        free_space(&self.0)
    }
}

pub fn make(extents: u64, most_held: usize) -> Allocator<u32> {
    // Nodes for the free runs as well, one between any two that are held.
    Allocator::with_max_allocs(small(extents), 2 * u32::try_from(most_held).expect("fits") + 16)
}

pub fn free_space(allocator: &Allocator<u32>) -> FreeSpace {
    let report = allocator.storage_report_full();
    FreeSpace {
        runs: report.free_regions.iter().map(|region| u64::from(region.count)).sum(),
        longest: allocator.storage_report().largest_free_region.into(),
        memory_bytes: None,
    }
}

pub fn small(extents: u64) -> u32 {
    u32::try_from(extents).expect("at most 2^32 extents")
}
