//! Free runs by place, one index a segment: which run is the first to end at an address or behind it?
//!
//! All runs of a segment are linked in ascending order. A run is also filed under the chunk that its end
//! lies in: taking extents off its front, which is what every allocation does, then leaves the index
//! alone. An array holds the first run of each chunk, a bitmap says which chunks have any.
//!
//! There are a few chunks for each run, and together they reach about as far as the runs do, but for the
//! last chunk, which has no end: so a chunk seldom has two runs, a word of the bitmap seldom none, and the
//! index is as small as the runs themselves, however large the segment is and however empty.

use super::bitmap::Bitmap;
use super::node::Nodes;
use crate::pool::run::offset_of;

/// Chunks that there are for a run at least; at most twice as many.
const CHUNKS_A_RUN: usize = 2;
/// Chunks of a new segment.
const FIRST_CHUNKS: usize = 64;

#[derive(Debug)]
pub struct SegmentIndex {
    extents: u64,
    /// The node between the last run and the first.
    border: u32,
    runs: usize,
    /// Extents in a chunk, as a power of two.
    chunk_shift: u32,
    /// The chunk of all extents behind those of the others.
    last_chunk: usize,
    /// Which chunks have runs.
    chunks: Bitmap,
    /// The first run of each chunk that has any.
    firsts: Vec<u32>,
}

impl SegmentIndex {
    pub fn new(extents: u64, border: u32) -> Self {
        Self::with_chunks(FIRST_CHUNKS, extents, border)
    }

    fn with_chunks(chunks: usize, extents: u64, border: u32) -> Self {
        Self {
            extents,
            border,
            runs: 0,
            chunk_shift: 0,
            last_chunk: chunks - 1,
            chunks: Bitmap::new(chunks as u64),
            firsts: vec![0; chunks],
        }
    }

    pub fn extents(&self) -> u64 {
        self.extents
    }

    /// Makes room for so many runs in a segment that has none.
    pub fn reserve(&mut self, runs: usize) {
        let chunks = (runs * CHUNKS_A_RUN).next_power_of_two().max(FIRST_CHUNKS);
        *self = Self::with_chunks(chunks, self.extents, self.border);
    }

    /// The same runs in a longer segment.
    pub fn grow(&mut self, extents: u64) {
        self.extents = extents;
    }

    /// Twice as many chunks that reach as far, or farther where they are single extents.
    #[cold]
    fn make_chunks(&mut self, nodes: &Nodes) {
        let finer = Self::with_chunks(2 * self.firsts.len(), self.extents, self.border);
        *self = Self { runs: self.runs, chunk_shift: self.chunk_shift.saturating_sub(1), ..finer };
        self.file_all(nodes);
    }

    /// As many chunks that reach twice as far.
    #[cold]
    fn reach_farther(&mut self, nodes: &Nodes) {
        let empty = Self::with_chunks(self.firsts.len(), self.extents, self.border);
        *self = Self { runs: self.runs, chunk_shift: self.chunk_shift + 1, ..empty };
        self.file_all(nodes);
    }

    fn file_all(&mut self, nodes: &Nodes) {
        let mut id = nodes[self.border].place_previous;
        while id != self.border {
            let chunk = self.chunk_of(nodes[id].end);
            self.firsts[chunk] = id;
            self.chunks.set(chunk as u64);
            id = nodes[id].place_previous;
        }
    }

    pub fn border(&self) -> u32 {
        self.border
    }

    /// Adds a run in front of `behind`.
    #[inline]
    pub fn add(&mut self, nodes: &mut Nodes, id: u32, behind: u32) {
        let before = nodes[behind].place_previous;
        nodes[before].place_next = id;
        nodes[behind].place_previous = id;
        nodes[id].place_previous = before;
        nodes[id].place_next = behind;
        self.file(nodes, id);
        self.runs += 1;
        if self.runs * CHUNKS_A_RUN > self.firsts.len() {
            self.make_chunks(nodes);
        }
    }

    #[inline]
    pub fn remove(&mut self, nodes: &mut Nodes, id: u32) {
        self.runs -= 1;
        self.unfile(nodes, id);
        let (before, behind) = (nodes[id].place_previous, nodes[id].place_next);
        nodes[before].place_next = behind;
        nodes[behind].place_previous = before;
    }

    /// Files a run that is in the ring under the chunk of its end.
    #[inline]
    pub fn file(&mut self, nodes: &Nodes, id: u32) {
        let chunk = self.chunk_of(nodes[id].end);
        let before = nodes[id].place_previous;
        if before == self.border || self.chunk_of(nodes[before].end) != chunk {
            self.firsts[chunk] = id;
            self.chunks.set(chunk as u64);
        } else if chunk == self.last_chunk {
            self.reach_farther(nodes);
        }
    }

    /// The opposite of `file`; the run may then get another end and be filed anew.
    #[inline]
    pub fn unfile(&mut self, nodes: &Nodes, id: u32) {
        let chunk = self.chunk_of(nodes[id].end);
        if self.firsts[chunk] == id {
            let behind = nodes[id].place_next;
            if behind != self.border && self.chunk_of(nodes[behind].end) == chunk {
                self.firsts[chunk] = behind;
            } else {
                self.chunks.clear(chunk as u64);
            }
        }
    }

    /// Whether a run that ends at either address is filed under the same chunk.
    #[inline]
    pub fn same_place(&self, one_end: u64, other_end: u64) -> bool {
        self.chunk_of(one_end) == self.chunk_of(other_end)
    }

    /// The first run that ends at `address` or behind it, or else the border.
    #[inline]
    pub fn reaching(&self, nodes: &Nodes, address: u64) -> u32 {
        let Some(chunk) = self.chunks.next(self.chunk_of(address) as u64) else { return self.border };
        let mut id = self.firsts[chunk as usize];
        while nodes[id].end < address {
            id = nodes[id].place_next;
        }
        id
    }

    /// All runs in ascending order.
    pub fn ascending<'a>(&'a self, nodes: &'a Nodes) -> impl Iterator<Item = u32> + use<'a> {
        let run = |id| (id != self.border).then_some(id);
        std::iter::successors(run(nodes[self.border].place_next), move |&id| run(nodes[id].place_next))
    }

    /// Bytes of memory asked for.
    pub fn memory_bytes(&self) -> usize {
        self.firsts.capacity() * size_of::<u32>() + self.chunks.memory_bytes()
    }

    /// The chunk of an address within its segment.
    #[inline]
    fn chunk_of(&self, address: u64) -> usize {
        self.last_chunk.min((offset_of(address) >> self.chunk_shift) as usize)
    }
}
