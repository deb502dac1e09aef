use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use offset_allocator::{Allocation, Allocator};

use super::offset::{free_space, make, small};
use super::{FreeSpace, Peer};

/// `offset-allocator` as a pool on disk would have to use it: what a volume's record holds is an address,
/// so a table leads from the address to the handle that freeing takes.
pub struct OffsetByAddress {
    allocator: Allocator<u32>,
    handles: HashMap<u32, Allocation<u32>, BuildHasherDefault<Multiplied>>,
}

impl Peer for OffsetByAddress {
    const NAME: &'static str = "offset-allocator by address";
    type Held = u32;

    fn new(extents: u64, most_held: usize) -> Self {
        let handles = HashMap::with_capacity_and_hasher(most_held, BuildHasherDefault::default());
        Self { allocator: make(extents, most_held), handles }
    }

    #[inline]
    fn allocate(&mut self, length: u64) -> Option<u32> {
        let allocation = self.allocator.allocate(small(length))?;
        self.handles.insert(allocation.offset, allocation);
        Some(allocation.offset)
    }

    #[inline]
    fn free(&mut self, held: u32, _length: u64) {
        let allocation = self.handles.remove(&held).expect("in use");
        self.allocator.free(allocation);
    }

    fn free_space(&self) -> FreeSpace {
        free_space(&self.allocator)
    }
}

/// One multiplication: as cheap as a hash can be.
#[derive(Default)]
struct Multiplied(u64);

impl Hasher for Multiplied {
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only addresses are hashed")
    }

    #[inline]
    fn write_u32(&mut self, address: u32) {
        let product = u64::from(address).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ product >> 32;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}
