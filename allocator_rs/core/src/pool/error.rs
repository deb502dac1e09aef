//! What can be wrong with a request or with the runs that a pool is told about. Full is no error.

use std::fmt;

use super::{MAX_SEGMENT_EXTENTS, MAX_SEGMENTS, Run};

/// A request that makes no sense, or runs that contradict each other.
///
/// Nothing was changed by the call that returns one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// An extent size that is not a power of two from 64 KiB to 64 MiB.
    ExtentSize {
        /// The size asked for, in bytes.
        bytes: u64,
    },
    /// More than 4 PiB in all, or more than 4096 segments.
    PoolTooLarge,
    /// A segment of no extents, or of more than 2^36.
    SegmentSize {
        /// The length asked for.
        extents: u64,
    },
    /// A segment that would become shorter.
    SegmentShrinks {
        /// The segment.
        segment: u32,
        /// Its length now.
        extents: u64,
    },
    /// A segment that the pool does not have.
    NoSuchSegment {
        /// The segment asked for.
        segment: u32,
    },
    /// No extents at all.
    Empty,
    /// An alignment that is not a power of two up to 2^36 extents.
    Alignment {
        /// The alignment asked for, in extents.
        extents: u64,
    },
    /// A run that reaches beyond its segment.
    OutOfBounds {
        /// The run.
        run: Run,
        /// The length of its segment.
        segment_extents: u64,
    },
    /// A run, said to be in use, of which a part is free.
    Free {
        /// The run that was named.
        run: Run,
        /// The free run that it meets.
        free: Run,
    },
    /// A run, said to be in use, of which a part is quarantined.
    Quarantined {
        /// The run that was named.
        run: Run,
        /// The quarantined run that it meets.
        quarantined: Run,
    },
    /// A run, said to be quarantined, that is not, or only in part.
    NotQuarantined {
        /// The run that was named.
        run: Run,
    },
    /// Two runs of a list claim the same extents.
    Overlap {
        /// Position in the list and run of the one that begins first.
        first: (usize, Run),
        /// Position in the list and run of the other.
        second: (usize, Run),
    },
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExtentSize { bytes } => {
                write!(f, "an extent of {bytes} bytes: it must be a power of two from 64 KiB to 64 MiB")
            }
            Self::PoolTooLarge => {
                write!(
                    f,
                    "a pool has at most 4 PiB and {MAX_SEGMENTS} segments; use larger segments or a second pool"
                )
            }
            Self::SegmentSize { extents } => {
                write!(f, "a segment of {extents} extents: it must have 1 to {MAX_SEGMENT_EXTENTS}")
            }
            Self::SegmentShrinks { segment, extents } => {
                write!(f, "segment {segment} has {extents} extents; segments never shrink")
            }
            Self::NoSuchSegment { segment } => write!(f, "the pool has no segment {segment}"),
            Self::Empty => write!(f, "a run of no extents"),
            Self::Alignment { extents } => {
                write!(
                    f,
                    "an alignment of {extents} extents: it must be a power of two up to {MAX_SEGMENT_EXTENTS}"
                )
            }
            Self::OutOfBounds { run, segment_extents } => {
                write!(f, "{run} reach beyond its {segment_extents} extents")
            }
            Self::Free { run, free } => write!(f, "{run} should be in use, but {free} are free"),
            Self::Quarantined { run, quarantined } => {
                write!(f, "{run} should be in use, but {quarantined} are quarantined")
            }
            Self::NotQuarantined { run } => write!(f, "{run} are not all quarantined"),
            Self::Overlap { first, second } => {
                write!(
                    f,
                    "entries {} and {} of the list overlap: {} and {}",
                    first.0, second.0, first.1, second.1
                )
            }
        }
    }
}

impl std::error::Error for PoolError {}
