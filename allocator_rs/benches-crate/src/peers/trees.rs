use std::collections::{BTreeMap, BTreeSet};

use super::{FreeSpace, Peer};

/// Two B-trees of the standard library, by place and by length: exact best-fit, lowest address first.
pub struct TwoTrees {
    by_start: BTreeMap<u64, u64>,
    by_length: BTreeSet<(u64, u64)>,
}

impl TwoTrees {
    fn add(&mut self, start: u64, length: u64) {
        self.by_start.insert(start, length);
        self.by_length.insert((length, start));
    }

    fn remove(&mut self, start: u64, length: u64) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

impl Peer for TwoTrees {
    const NAME: &'static str = "two B-trees";
    type Held = u64;

    fn new(extents: u64, _most_held: usize) -> Self {
        let mut trees = Self { by_start: BTreeMap::new(), by_length: BTreeSet::new() };
        trees.add(0, extents);
        trees
    }

    fn allocate(&mut self, length: u64) -> Option<u64> {
        let &(found, start) = self.by_length.range((length, 0)..).next()?;
        self.remove(start, found);
        if found > length {
            self.add(start + length, found - length);
        }
        Some(start)
    }

    fn free(&mut self, held: u64, length: u64) {
        let (mut start, mut end) = (held, held + length);
        if let Some((&before, &extents)) = self.by_start.range(..start).next_back()
            && before + extents == start
        {
            self.remove(before, extents);
            start = before;
        }
        if let Some(&extents) = self.by_start.get(&end) {
            self.remove(end, extents);
            end += extents;
        }
        self.add(start, end - start);
    }

    fn expand(&mut self, held: u64, length: u64, by: u64) -> Option<u64> {
        let end = held + length;
        if let Some(&extents) = self.by_start.get(&end)
            && extents >= by
        {
            self.remove(end, extents);
            if extents > by {
                self.add(end + by, extents - by);
            }
            return Some(held);
        }
        let moved = self.allocate(length + by)?;
        self.free(held, length);
        Some(moved)
    }

    fn free_space(&self) -> FreeSpace {
        FreeSpace {
            runs: self.by_start.len() as u64,
            longest: self.by_length.last().map_or(0, |&(length, _)| length),
            memory_bytes: None,
        }
    }
}
