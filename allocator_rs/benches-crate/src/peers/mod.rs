//! What is compared: one trait, and each allocator behind it.
//!
//! Calls are dispatched statically, so that nobody pays for the trait.

mod bitmap;
mod by_address;
mod floor;
mod offset;
mod pool;
mod ranges;
mod trees;

pub use bitmap::RoaringNextFit;
pub use by_address::OffsetByAddress;
pub use floor::Floor;
pub use offset::Offset;
pub use pool::CsiCore;
pub use ranges::RangeAlloc;
pub use trees::TwoTrees;

/// What remains free, for those that can tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct FreeSpace {
    /// How many free runs there are.
    pub runs: u64,
    /// The longest of them, in extents.
    pub longest: u64,
    /// Bytes of memory, where known.
    pub memory_bytes: Option<u64>,
}

/// An allocator of runs of extents in one segment.
pub trait Peer: Sized {
    const NAME: &'static str;
    /// What it takes to free a run.
    type Held: Copy;

    /// A segment of `extents`, all free, for at most `most_held` runs at once.
    fn new(extents: u64, most_held: usize) -> Self;

    fn allocate(&mut self, length: u64) -> Option<Self::Held>;

    fn free(&mut self, held: Self::Held, length: u64);

    /// Lengthens a run, in its place where the allocator can do that, else by moving it.
    fn expand(&mut self, held: Self::Held, length: u64, by: u64) -> Option<Self::Held> {
        let moved = self.allocate(length + by)?;
        self.free(held, length);
        Some(moved)
    }

    fn free_space(&self) -> FreeSpace;
}
