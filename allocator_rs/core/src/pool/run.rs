//! Runs as callers name them, and the single line of addresses that the pool works on.

use std::fmt;

use super::PoolError;

/// The largest segment: 4 PiB of the smallest extents.
pub const MAX_SEGMENT_EXTENTS: u64 = 1 << 36;
/// The most segments of a pool.
pub const MAX_SEGMENTS: usize = 1 << 12;

/// Where the segment's number begins in an address. Larger than any segment needs, so that the last
/// extent of one and the first of the next are never neighbours.
const SEGMENT_SHIFT: u32 = 40;
const OFFSET_MASK: u64 = (1 << SEGMENT_SHIFT) - 1;

/// Extents of one segment that lie one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// The segment, counted from 0 in the order in which they were added.
    pub segment: u32,
    /// The first extent, counted from the beginning of the segment.
    pub start: u64,
    /// How many extents; never 0 in a run that the pool gives out.
    pub length: u64,
}

impl Run {
    /// The first extent behind the run.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.length
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "extents {}..{} of segment {}",
            self.start,
            self.start.saturating_add(self.length),
            self.segment
        )
    }
}

/// Addresses `start..end`: a [`Run`] on the line on which all segments lie, far apart from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub start: u64,
    pub end: u64,
}

impl Span {
    pub fn new(start: u64, end: u64) -> Self {
        debug_assert!(start < end && segment_of(start) == segment_of(end - 1));
        Self { start, end }
    }

    pub fn length(self) -> u64 {
        self.end - self.start
    }

    pub fn run(self) -> Run {
        Run { segment: segment_of(self.start) as u32, start: offset_of(self.start), length: self.length() }
    }

    /// # Errors
    /// For a run that no segment has; `segment_extents` are their lengths.
    pub fn of(run: Run, segment_extents: impl Fn(u32) -> Option<u64>) -> Result<Self, PoolError> {
        let Some(extents) = segment_extents(run.segment) else {
            return Err(PoolError::NoSuchSegment { segment: run.segment });
        };
        if run.length == 0 {
            return Err(PoolError::Empty);
        }
        if run.start >= extents || run.length > extents - run.start {
            return Err(PoolError::OutOfBounds { run, segment_extents: extents });
        }
        let start = address(run.segment as usize, run.start);
        Ok(Self::new(start, start + run.length))
    }
}

pub fn address(segment: usize, offset: u64) -> u64 {
    (segment as u64) << SEGMENT_SHIFT | offset
}

pub fn segment_of(address: u64) -> usize {
    (address >> SEGMENT_SHIFT) as usize
}

pub fn offset_of(address: u64) -> u64 {
    address & OFFSET_MASK
}
