//! Free runs by place, one index a segment: which run is the first to end at an address or behind it?
//!
//! All runs of a segment are linked in ascending order. A run is also filed under the chunk that its end
//! lies in: taking extents off its front, which is what every allocation does, then leaves the index
//! alone. An array holds the first run of each chunk, a bitmap says which chunks have any.
//!
//! There are a few chunks for each run, and together they reach about as far as the runs do, but for the
//! last chunk, which has no end: so a chunk seldom has several runs, a word of the bitmap seldom none, and the
//! index is as small as the runs themselves, however large the segment is and however empty.
//! Where a chunk has very many all the same, [`landmarks`](super::landmarks) help.

use std::hint::select_unpredictable;
use std::ops::Index;

use super::bitmap::Bitmap;
use super::landmarks::Landmarks;
use super::node::{NIL, Node, Nodes, Row};
use crate::pool::run::{Span, offset_of};

/// Chunks of a new segment.
const FIRST_CHUNKS: usize = 256;
/// A larger index costs more, by pushing the runs out of the second cache, than it saves in steps.
const MANY_CHUNKS: usize = 1 << 16;

/// Runs that nearly every search ends within: one test for each, and no loop.
const NEAR_STEPS: usize = 4;

/// For how many runs so many chunks are enough: 3 to 6 for a run save steps; many runs share 2 among 3.
fn enough_for(chunks: usize) -> usize {
    if chunks < MANY_CHUNKS { chunks / 3 } else { chunks + chunks / 2 }
}

/// With fewer runs than this, half as many chunks would be enough for twice as many.
fn few_for(chunks: usize) -> usize {
    if chunks > FIRST_CHUNKS { enough_for(chunks / 2) / 2 } else { 0 }
}

/// Aligned to a power of two, so that finding a segment's takes no multiplication.
#[derive(Debug)]
#[repr(align(128))]
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
    landmarks: Landmarks,
}

impl SegmentIndex {
    pub fn new(extents: u64, border: u32) -> Self {
        Self::with_chunks(FIRST_CHUNKS, extents, border)
    }

    fn with_chunks(chunks: usize, extents: u64, border: u32) -> Self {
        let mut index = Self {
            extents,
            border,
            runs: 0,
            chunk_shift: 0,
            last_chunk: chunks - 1,
            chunks: Bitmap::new(chunks),
            firsts: vec![NIL; chunks],
            landmarks: Landmarks::default(),
        };
        index.firsts[chunks - 1] = border;
        index.chunks.set(chunks - 1);
        index
    }

    pub fn extents(&self) -> u64 {
        self.extents
    }

    /// Makes room for so many runs in a segment that has none; all but the last end at offsets up to `reach`.
    pub fn reserve(&mut self, runs: usize, reach: u64) {
        let mut chunks = FIRST_CHUNKS;
        while runs > enough_for(chunks) {
            chunks *= 2;
        }
        *self = Self::with_chunks(chunks, self.extents, self.border);
        while reach >> self.chunk_shift >= self.last_chunk as u64 {
            self.chunk_shift += 1;
        }
    }

    /// Files the runs, which have become few, in as many chunks as they need, and gives the others back.
    pub fn shrink(&mut self, nodes: &Row) {
        let last = nodes[self.border].place_previous;
        let last_but_one = nodes[last].place_previous;
        let reach = if last_but_one == self.border { 0 } else { offset_of(nodes[last_but_one].end) };
        let runs = self.runs;
        self.reserve(runs, reach);
        self.runs = runs;
        self.file_all(nodes);
    }

    /// Takes note of new numbers of all runs, by the old ones.
    pub fn renumber(&mut self, numbers: &[u32]) {
        self.border = numbers[self.border as usize];
        for id in &mut self.firsts {
            *id = numbers[*id as usize];
        }
        self.landmarks.renumber(numbers);
    }

    /// The same runs in a longer segment.
    pub fn grow(&mut self, extents: u64) {
        self.extents = extents;
    }

    /// Makes twice as many chunks that reach as far, or farther where they are single extents; where there are as
    /// many as the runs need, as many chunks that reach twice as far.
    #[cold]
    #[inline(never)]
    fn make_chunks(&mut self, nodes: &Row) {
        let chunks = self.firsts.len();
        let (chunks, shift) = if self.runs > enough_for(chunks) {
            (2 * chunks, self.chunk_shift.saturating_sub(1))
        } else {
            (chunks, self.chunk_shift + 1)
        };
        let empty = Self::with_chunks(chunks, self.extents, self.border);
        *self = Self { runs: self.runs, chunk_shift: shift, ..empty };
        self.file_all(nodes);
    }

    fn file_all(&mut self, nodes: &Row) {
        let mut id = nodes[self.border].place_previous;
        while id != self.border {
            let chunk = self.chunk_of(nodes[id].end);
            self.firsts[chunk] = id;
            self.chunks.set(chunk);
            id = nodes[id].place_previous;
        }
    }

    pub fn border(&self) -> u32 {
        self.border
    }

    /// Whether the index is far larger than its runs need.
    pub fn is_sparse(&self) -> bool {
        self.runs < few_for(self.firsts.len())
    }

    /// How many runs there are.
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// Adds a run in front of `behind`.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    pub fn add(&mut self, nodes: &mut Row, id: u32, span: Span, behind: u32) {
        let before = std::mem::replace(&mut nodes[behind].place_previous, id);
        nodes[before].place_next = id;
        let node = &mut nodes[id];
        node.start = span.start;
        node.end = span.end;
        node.place_previous = before;
        node.place_next = behind;
        self.runs += 1;
        let crowded = self.file(id, span.end, behind);
        if crowded || self.runs > enough_for(self.firsts.len()) {
            self.make_chunks(nodes);
        }
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    pub fn remove(&mut self, nodes: &mut Row, id: u32) {
        self.runs -= 1;
        let node = &nodes[id];
        let (end, before, behind) = (node.end, node.place_previous, node.place_next);
        nodes[before].place_next = behind;
        let next = &mut nodes[behind];
        next.place_previous = before;
        let behind_end = next.end;
        self.unfile(id, end, behind, behind_end);
    }

    /// Gives a run in the ring another end.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    pub fn move_end(&mut self, nodes: &mut Row, id: u32, end: u64) {
        let node = &mut nodes[id];
        let old_end = std::mem::replace(&mut node.end, end);
        if self.chunk_of(old_end) == self.chunk_of(end) {
            return;
        }
        let behind = node.place_next;
        let behind_end = nodes[behind].end;
        self.unfile(id, old_end, behind, behind_end);
        if self.file(id, end, behind) {
            self.make_chunks(nodes);
        }
    }

    /// Files a run that ends at `end` under the chunk of that, in front of the run `behind`.
    ///
    /// True where the last chunk has too many runs now: whoever calls this must let it reach farther.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    #[must_use]
    fn file(&mut self, id: u32, end: u64, behind: u32) -> bool {
        let chunk = self.chunk_of(end);
        let first = &mut self.firsts[chunk];
        let is_first = *first == NIL || *first == behind;
        *first = select_unpredictable(is_first, id, *first);
        self.chunks.set(chunk);
        chunk == self.last_chunk && !is_first
    }

    /// The opposite of `file`.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    fn unfile(&mut self, id: u32, end: u64, behind: u32, behind_end: u64) {
        let chunk = self.chunk_of(end);
        let next = select_unpredictable(self.chunk_of(behind_end) == chunk, behind, NIL);
        let first = &mut self.firsts[chunk];
        *first = select_unpredictable(*first == id, next, *first);
        let emptied = *first == NIL;
        self.chunks.clear_if(emptied, chunk);
    }

    /// The first run that ends at `address` or behind it, or else the border.
    #[inline]
    pub fn reaching(&mut self, nodes: &impl Index<u32, Output = Node>, address: u64) -> u32 {
        match self.reaching_soon(nodes, self.chunk_of(address), address) {
            Ok(id) => id,
            Err(id) => self.walk_on(nodes, id, address),
        }
    }

    /// As `reaching`, for an address at this `offset` in its segment.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    pub fn reaching_at(&mut self, nodes: &Row, offset: u64, address: u64) -> u32 {
        match self.reaching_soon(nodes, self.chunk_at(offset), address) {
            Ok(id) => id,
            Err(id) => self.walk_on(nodes, id, address),
        }
    }

    /// As `reaching`, but leaves no landmarks.
    pub fn found(&self, nodes: &Nodes, address: u64) -> u32 {
        let near = self.reaching_soon(nodes, self.chunk_of(address), address);
        near.unwrap_or_else(|id| self.landmarks.find(nodes, id, address))
    }

    /// # Errors
    /// The run at which the search was given up: it is too far.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    fn reaching_soon(
        &self,
        nodes: &impl Index<u32, Output = Node>,
        chunk: usize,
        address: u64,
    ) -> Result<u32, u32> {
        let chunk = self.chunks.next(chunk).unwrap_or(self.last_chunk);
        let mut id = self.firsts[chunk];
        for _ in 0..NEAR_STEPS {
            let node = &nodes[id];
            if node.end >= address {
                return Ok(id);
            }
            id = node.place_next;
        }
        Err(id)
    }

    /// As `reaching`, from a run on that may be far before it.
    #[cold]
    #[inline(never)]
    fn walk_on(&mut self, nodes: &impl Index<u32, Output = Node>, id: u32, address: u64) -> u32 {
        let found = self.landmarks.search(nodes, id, address);
        self.landmarks.forget_too_many(self.runs);
        found
    }

    /// Runs that searches begin at.
    pub fn landmarks<'a>(&'a self, nodes: &'a Nodes) -> impl Iterator<Item = u32> + use<'a> {
        self.landmarks.runs(nodes)
    }

    /// All runs in ascending order.
    pub fn ascending<'a>(&'a self, nodes: &'a Nodes) -> impl Iterator<Item = u32> + use<'a> {
        let run = |id| (id != self.border).then_some(id);
        std::iter::successors(run(nodes[self.border].place_next), move |&id| run(nodes[id].place_next))
    }

    /// Bytes of memory asked for.
    pub fn memory_bytes(&self) -> usize {
        let firsts = self.firsts.capacity() * size_of::<u32>();
        firsts + self.chunks.memory_bytes() + self.landmarks.memory_bytes()
    }

    /// The chunk of an address.
    #[inline]
    fn chunk_of(&self, address: u64) -> usize {
        self.chunk_at(offset_of(address))
    }

    #[inline]
    fn chunk_at(&self, offset: u64) -> usize {
        self.last_chunk.min((offset >> self.chunk_shift) as usize)
    }
}
