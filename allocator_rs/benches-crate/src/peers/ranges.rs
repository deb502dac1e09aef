use std::ops::Range;

use range_alloc::RangeAllocator;

use super::{FreeSpace, Peer};

/// `range-alloc`: a sorted vector of free ranges, searched from end to end for the best fit.
pub struct RangeAlloc(RangeAllocator<u64>);

impl Peer for RangeAlloc {
    const NAME: &'static str = "range-alloc";
    type Held = u64;

    fn new(extents: u64, _most_held: usize) -> Self {
        Self(RangeAllocator::new(0..extents))
    }

    fn allocate(&mut self, length: u64) -> Option<u64> {
        self.0.allocate_range(length).ok().map(|range| range.start)
    }

    fn free(&mut self, held: u64, length: u64) {
        self.0.free_range(held..held + length);
    }

    fn free_space(&self) -> FreeSpace {
        let whole: Range<u64> = self.0.initial_range().clone();
        let mut free = FreeSpace::default();
        let mut reached = whole.start;
        let mut gap = |start: u64, end: u64| {
            if start < end {
                free.runs += 1;
                free.longest = free.longest.max(end - start);
            }
        };
        for used in self.0.allocated_ranges() {
            gap(reached, used.start);
            reached = used.end;
        }
        gap(reached, whole.end);
        free
    }
}
