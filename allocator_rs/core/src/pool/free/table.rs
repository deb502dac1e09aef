//! Which run comes first in a chunk: a hash table in 5 bytes an entry, for chunks known to be there.

/// Entries of a bucket: their tags fill one word, which is compared at once, so that hardly a branch is
/// guessed wrong.
const LANES: usize = 8;
const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
/// 2^64 / the golden ratio.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Maps chunks to nodes, in buckets that overflow into the next one.
///
/// Whoever asks for a chunk knows from elsewhere that it is there. So a search needs no empty entry to
/// end at, and removal leaves nothing behind. The chunk itself is not stored: the node tells.
#[derive(Debug)]
pub struct Table {
    buckets: Vec<Bucket>,
    used: usize,
    /// 64 minus the logarithm of the number of buckets.
    shift: u32,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    /// A byte an entry: 0 for none, else the high bit and seven bits of the chunk's hash.
    tags: u64,
    nodes: [u32; LANES],
}

/// An entry, until the table changes.
#[derive(Debug)]
pub struct Place {
    bucket: usize,
    lane: usize,
}

/// Where a chunk's search begins, and what its tag is.
struct Key {
    bucket: usize,
    tag: u64,
}

impl Table {
    pub fn new() -> Self {
        Self::with_buckets(2)
    }

    /// Where the node of a chunk is that is in the table; `is_of_chunk` tells whether a node is.
    #[inline]
    pub fn find(&self, chunk: u32, is_of_chunk: impl Fn(u32) -> bool) -> Place {
        let Key { mut bucket, tag } = self.key(chunk);
        let wanted = tag * LOW_BITS;
        let mut searched = 0;
        loop {
            // The bytes that are 0 after this are the wanted ones; the test finds them all, and
            // sometimes one too many above them.
            let differing = self.buckets[bucket].tags ^ wanted;
            let mut candidates = differing.wrapping_sub(LOW_BITS) & !differing & HIGH_BITS;
            while candidates != 0 {
                let lane = candidates.trailing_zeros() as usize / 8;
                if is_of_chunk(self.buckets[bucket].nodes[lane]) {
                    return Place { bucket, lane };
                }
                candidates &= candidates - 1;
            }
            bucket = (bucket + 1) & (self.buckets.len() - 1);
            searched += 1;
            assert!(searched < self.buckets.len(), "chunk {chunk} is in the table");
        }
    }

    #[inline]
    pub fn node(&self, place: &Place) -> u32 {
        self.buckets[place.bucket].nodes[place.lane]
    }

    /// Gives a chunk another node.
    #[inline]
    pub fn replace(&mut self, place: &Place, node: u32) {
        self.buckets[place.bucket].nodes[place.lane] = node;
    }

    /// Takes out a chunk.
    #[inline]
    pub fn remove(&mut self, place: &Place) {
        self.buckets[place.bucket].tags &= !(0xFF << (place.lane * 8));
        self.used -= 1;
    }

    /// Adds a chunk that is not in the table; `chunk_of` tells the chunk of every node in it.
    #[inline]
    pub fn insert(&mut self, chunk: u32, node: u32, chunk_of: impl Fn(u32) -> u32) {
        if self.used == most_in(self.buckets.len()) {
            self.rehash(self.buckets.len() * 2, chunk_of);
        }
        self.used += 1;
        self.place(chunk, node);
    }

    /// Makes an empty table large enough for so many chunks.
    pub fn reserve(&mut self, chunks: usize) {
        debug_assert_eq!(self.used, 0);
        let mut buckets = self.buckets.len();
        while most_in(buckets) < chunks {
            buckets *= 2;
        }
        *self = Self::with_buckets(buckets);
    }

    /// Bytes of memory asked for.
    pub fn memory_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }

    fn with_buckets(buckets: usize) -> Self {
        Self {
            buckets: vec![Bucket::default(); buckets],
            used: 0,
            shift: u64::BITS - buckets.trailing_zeros(),
        }
    }

    #[cold]
    fn rehash(&mut self, buckets: usize, chunk_of: impl Fn(u32) -> u32) {
        let old = std::mem::replace(self, Self::with_buckets(buckets));
        for Bucket { tags, nodes } in old.buckets {
            for (_, node) in nodes.into_iter().enumerate().filter(|(lane, _)| tags >> (lane * 8) & 0x80 != 0)
            {
                self.place(chunk_of(node), node);
            }
        }
        self.used = old.used;
    }

    #[inline]
    fn place(&mut self, chunk: u32, node: u32) {
        let Key { mut bucket, tag } = self.key(chunk);
        while self.buckets[bucket].tags & HIGH_BITS == HIGH_BITS {
            bucket = (bucket + 1) & (self.buckets.len() - 1);
        }
        let lane = (!self.buckets[bucket].tags & HIGH_BITS).trailing_zeros() as usize / 8;
        self.buckets[bucket].tags |= tag << (lane * 8);
        self.buckets[bucket].nodes[lane] = node;
    }

    #[inline]
    fn key(&self, chunk: u32) -> Key {
        let hash = u64::from(chunk).wrapping_mul(MULTIPLIER);
        Key { bucket: (hash >> self.shift) as usize, tag: 0x80 | (hash >> 25 & 0x7F) }
    }
}

/// Three quarters of all entries: beyond that buckets overflow often.
fn most_in(buckets: usize) -> usize {
    buckets * LANES / 4 * 3
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::Table;

    proptest! {
        #[test]
        fn behaves_like_a_map(changes in prop::collection::vec((any::<bool>(), 0..64_u32, 0..1000_u32), 0..400)) {
            let mut table = Table::new();
            let mut map: HashMap<u32, u32> = HashMap::new();
            for (add, key, node) in changes {
                // Few chunks in few buckets, so that they overflow and wrap around; nodes tell their chunk.
                let chunk = if key < 32 { key } else { u32::MAX - key };
                let node = node * 64 + key;
                let key_of = |node: u32| node % 64;
                let chunk_of = |node: u32| if key_of(node) < 32 { key_of(node) } else { u32::MAX - key_of(node) };
                let place = |table: &Table| table.find(chunk, |candidate| chunk_of(candidate) == chunk);
                match (add, map.contains_key(&chunk)) {
                    (true, true) => table.replace(&place(&table), node),
                    (true, false) => table.insert(chunk, node, chunk_of),
                    (false, true) => table.remove(&place(&table)),
                    (false, false) => continue,
                }
                if add { map.insert(chunk, node); } else { map.remove(&chunk); }
                for (&chunk, &node) in &map {
                    let found = table.find(chunk, |candidate| chunk_of(candidate) == chunk);
                    prop_assert_eq!(table.node(&found), node);
                }
            }
        }
    }
}
