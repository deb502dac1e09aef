use roaring::RoaringBitmap;

use super::{FreeSpace, Peer};

/// A roaring bitmap of the free extents, searched from where the last search ended.
pub struct RoaringNextFit {
    free: RoaringBitmap,
    cursor: u32,
}

impl RoaringNextFit {
    fn find(&self, from: u32, length: u32) -> Option<u32> {
        let mut runs = self.free.iter();
        runs.advance_to(from);
        while let Some(run) = runs.next_range() {
            if run.end() - run.start() + 1 >= length {
                return Some(*run.start());
            }
        }
        None
    }
}

impl Peer for RoaringNextFit {
    const NAME: &'static str = "roaring";
    type Held = u32;

    fn new(extents: u64, _most_held: usize) -> Self {
        let mut free = RoaringBitmap::new();
        free.insert_range(0..u32::try_from(extents).expect("at most 2^32 extents"));
        Self { free, cursor: 0 }
    }

    fn allocate(&mut self, length: u64) -> Option<u32> {
        let length = u32::try_from(length).ok()?;
        let start = self.find(self.cursor, length).or_else(|| self.find(0, length))?;
        self.free.remove_range(start..start + length);
        self.cursor = start + length;
        Some(start)
    }

    fn free(&mut self, held: u32, length: u64) {
        self.free.insert_range(held..held + u32::try_from(length).expect("was allocated"));
    }

    fn free_space(&self) -> FreeSpace {
        let mut space = FreeSpace::default();
        let mut runs = self.free.iter();
        while let Some(run) = runs.next_range() {
            space.runs += 1;
            space.longest = space.longest.max(u64::from(run.end() - run.start()) + 1);
        }
        space.memory_bytes = Some(self.free.serialized_size() as u64);
        space
    }
}
