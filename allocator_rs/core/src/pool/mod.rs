//! The extent allocator: which extents of a pool are free, and where new runs go.
//!
//! A [`Pool`] has one or several segments (devices or preallocated files), each a row of extents of one
//! size. It keeps only what is free, quarantined or shared; everything else is in use by exactly one
//! owner, and who that is, is written down elsewhere. After a crash the pool is [rebuilt](Pool::rebuild)
//! from the owners' runs.
//!
//! All lengths and offsets are in extents unless their names say bytes. Finding no room is `None`;
//! errors are for requests and runs that cannot be right, and they name the runs.

mod allocate;
mod check;
mod error;
mod free;
mod quarantine;
mod rebuild;
mod release;
mod run;
mod scatter;
mod shared;
mod statistics;

use free::FreeRuns;
use quarantine::Quarantine;
use run::{Span, address};
use shared::SharedExtents;

pub use allocate::Request;
pub use error::PoolError;
pub use rebuild::{Held, Hold};
pub use run::{MAX_SEGMENT_EXTENTS, MAX_SEGMENTS, Run};
pub use statistics::Statistics;

/// The smallest extent, in bytes.
pub const MIN_EXTENT_BYTES: u64 = 64 << 10;
/// The largest extent, in bytes.
pub const MAX_EXTENT_BYTES: u64 = 64 << 20;
/// What an extent measures where nobody says otherwise, in bytes.
pub const DEFAULT_EXTENT_BYTES: u64 = 1 << 20;
/// The largest pool, in bytes.
pub const MAX_POOL_BYTES: u64 = 4 << 50;

/// The free, quarantined and shared extents of a pool.
#[derive(Debug)]
pub struct Pool {
    extent_bytes: u64,
    extents: u64,
    free: FreeRuns,
    quarantine: Quarantine,
    shared: SharedExtents,
}

impl Pool {
    /// A pool without segments.
    ///
    /// # Errors
    /// [`PoolError::ExtentSize`] unless `extent_bytes` is a power of two from 64 KiB to 64 MiB.
    pub fn new(extent_bytes: u64) -> Result<Self, PoolError> {
        let allowed = MIN_EXTENT_BYTES..=MAX_EXTENT_BYTES;
        if !extent_bytes.is_power_of_two() || !allowed.contains(&extent_bytes) {
            return Err(PoolError::ExtentSize { bytes: extent_bytes });
        }
        Ok(Self {
            extent_bytes,
            extents: 0,
            free: FreeRuns::new(),
            quarantine: Quarantine::default(),
            shared: SharedExtents::default(),
        })
    }

    /// What an extent measures, in bytes.
    #[must_use]
    pub fn extent_bytes(&self) -> u64 {
        self.extent_bytes
    }

    /// All extents of all segments.
    #[must_use]
    pub fn extents(&self) -> u64 {
        self.extents
    }

    /// Extents that can be allocated now.
    #[must_use]
    pub fn free_extents(&self) -> u64 {
        self.free.extents()
    }

    /// How long a segment is, in extents; `None` where the pool has no such segment.
    #[must_use]
    pub fn segment_extents(&self, segment: u32) -> Option<u64> {
        self.free.segment_extents(segment)
    }

    /// Adds a segment, all of it free, and answers with its number.
    ///
    /// # Errors
    /// [`PoolError::SegmentSize`], [`PoolError::PoolTooLarge`].
    pub fn add_segment(&mut self, extents: u64) -> Result<u32, PoolError> {
        let segment = self.add_used_segment(extents)?;
        self.free.append(self.whole(segment as usize));
        Ok(segment)
    }

    /// Lengthens a segment to `extents` in all; what is new is free.
    ///
    /// # Errors
    /// [`PoolError::NoSuchSegment`], [`PoolError::SegmentShrinks`], [`PoolError::SegmentSize`],
    /// [`PoolError::PoolTooLarge`].
    pub fn grow_segment(&mut self, segment: u32, extents: u64) -> Result<(), PoolError> {
        let old = self.free.segment_extents(segment).ok_or(PoolError::NoSuchSegment { segment })?;
        if extents < old {
            return Err(PoolError::SegmentShrinks { segment, extents: old });
        }
        if extents == old {
            return Ok(());
        }
        self.check_size(extents, extents - old)?;
        self.free.grow_segment(segment as usize, extents);
        self.extents += extents - old;
        let new = Span::new(address(segment as usize, old), address(segment as usize, extents));
        self.put_back(new.run());
        Ok(())
    }

    /// The free runs, by segment and ascending.
    pub fn free_runs(&self) -> impl Iterator<Item = Run> + use<'_> {
        self.free.spans().map(Span::run)
    }

    /// The quarantined runs, by segment and ascending.
    pub fn quarantined_runs(&self) -> impl Iterator<Item = Run> + use<'_> {
        self.quarantine.spans().map(Span::run)
    }

    /// The runs that have several owners, and how many, by segment and ascending.
    pub fn shared_runs(&self) -> impl Iterator<Item = (Run, u64)> + use<'_> {
        self.shared.spans().map(|(span, owners)| (span.run(), owners))
    }

    /// Adds a segment of which nothing is free.
    fn add_used_segment(&mut self, extents: u64) -> Result<u32, PoolError> {
        self.check_size(extents, extents)?;
        if self.free.segments() == MAX_SEGMENTS {
            return Err(PoolError::PoolTooLarge);
        }
        self.free.add_segment(extents);
        self.extents += extents;
        Ok(self.free.segments() as u32 - 1)
    }

    fn check_size(&self, segment_extents: u64, more_extents: u64) -> Result<(), PoolError> {
        if !(1..=MAX_SEGMENT_EXTENTS).contains(&segment_extents) {
            return Err(PoolError::SegmentSize { extents: segment_extents });
        }
        if self.extents + more_extents > MAX_POOL_BYTES / self.extent_bytes {
            return Err(PoolError::PoolTooLarge);
        }
        Ok(())
    }

    fn span_of(&self, run: Run) -> Result<Span, PoolError> {
        Span::of(run, |segment| self.free.segment_extents(segment))
    }

    fn whole(&self, segment: usize) -> Span {
        Span::new(address(segment, 0), self.free.segment_end(segment))
    }
}
