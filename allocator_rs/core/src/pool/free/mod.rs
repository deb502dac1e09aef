//! The free extents of a pool: every one is in exactly one free run, and no two runs touch.
//!
//! A run is found by length through [`bins`] and by place through [`index`]. Its data is one node of
//! 32 bytes; an operation touches that, its neighbours', and an entry or two of the index.

mod bins;
mod bitmap;
mod fit;
mod index;
mod invariants;
mod landmarks;
mod node;

use std::hint::select_unpredictable;

use index::SegmentIndex;
use node::Nodes;

use super::run::{Span, address, offset_of, segment_of};
use bins::Bins;
pub use fit::Fit;

/// A pool with no more nodes keeps them.
const MANY_NODES: usize = 256;

/// All free runs of a pool.
#[derive(Debug)]
pub struct FreeRuns {
    nodes: Nodes,
    bins: Bins,
    segments: Vec<SegmentIndex>,
    extents: u64,
}

impl FreeRuns {
    pub fn new() -> Self {
        Self { nodes: Nodes::new(), bins: Bins::new(), segments: Vec::new(), extents: 0 }
    }

    /// Adds a segment of which nothing is free yet.
    pub fn add_segment(&mut self, extents: u64) {
        let border = self.nodes.add_border();
        self.segments.push(SegmentIndex::new(extents, border));
    }

    /// Lengthens a segment; what is new is not free yet.
    pub fn grow_segment(&mut self, segment: usize, extents: u64) {
        self.segments[segment].grow(extents);
    }

    pub fn segment_extents(&self, segment: u32) -> Option<u64> {
        self.segments.get(segment as usize).map(SegmentIndex::extents)
    }

    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// How many extents are free.
    pub fn extents(&self) -> u64 {
        self.extents
    }

    /// How many runs they form.
    pub fn runs(&self) -> usize {
        self.segments.iter().map(SegmentIndex::runs).sum()
    }

    /// Makes room for `runs` in all: for each segment, so many, and all but the last end at addresses up to that.
    pub fn reserve(&mut self, runs: usize, per_segment: impl Fn(usize) -> (usize, u64)) {
        self.nodes.reserve(runs + self.segments.len());
        for (number, segment) in self.segments.iter_mut().enumerate() {
            let (runs, reach) = per_segment(number);
            segment.reserve(runs, offset_of(reach));
        }
    }

    /// All free runs, by segment and ascending.
    pub fn spans(&self) -> impl Iterator<Item = Span> + use<'_> {
        let ids = self.segments.iter().flat_map(|segment| segment.ascending(&self.nodes));
        ids.map(|id| self.span(id))
    }

    /// The first free run that has extents of `span`.
    pub fn meeting(&mut self, span: Span) -> Option<Span> {
        let id = self.reaching(span.start + 1);
        (self.nodes[id].start < span.end).then(|| self.span(id))
    }

    /// The free run that begins where `span` ends.
    ///
    /// # Errors
    /// The first free run that has extents of `span`.
    pub fn following(&mut self, span: Span) -> Result<Option<Span>, Span> {
        let id = self.reaching(span.start + 1);
        if self.nodes[id].start > span.end {
            return Ok(None);
        }
        let found = self.span(id);
        if found.start < span.end { Err(found) } else { Ok(Some(found)) }
    }

    /// Takes the first `extents` behind `span`; false, and nothing is changed, where not all are free.
    ///
    /// # Errors
    /// The first free run that has extents of `span`.
    pub fn take_behind(&mut self, span: Span, extents: u64) -> Result<bool, Span> {
        let id = self.reaching(span.start + 1);
        let (start, end) = (self.nodes[id].start, self.nodes[id].end);
        if start < span.end {
            return Err(self.span(id));
        }
        let fits = start == span.end && end - start >= extents;
        if fits && extents > 0 {
            self.take_front(id, extents);
        }
        Ok(fits || extents == 0)
    }

    /// Makes extents free, and one with the free runs that they touch; false, and nothing is changed, where one of
    /// them is free already or the segment has no such run.
    pub fn give(&mut self, segment: u32, offset: u64, length: u64) -> bool {
        let start = address(segment as usize, offset);
        let Some(segment) = self.segments.get_mut(segment as usize) else { return false };
        if length.wrapping_sub(1) >= segment.extents() || offset > segment.extents() - length {
            return false;
        }
        let end = start + length;
        let nodes = self.nodes.row();
        let found = segment.reaching_at(&nodes, offset, start);
        let node = &nodes[found];
        let joins_before = node.end == start;
        let behind = select_unpredictable(joins_before, node.place_next, found);
        let behind_start = nodes[behind].start;
        if behind_start < end {
            return false;
        }
        self.extents += length;
        let joins_behind = behind_start == end;
        if joins_before || joins_behind {
            self.join(found, behind, Span::new(start, end));
        } else {
            let id = self.nodes.take_unused();
            let mut nodes = self.nodes.row();
            self.bins.link(&mut nodes, id, length);
            segment.add(&mut nodes, id, Span::new(start, end), behind);
        }
        true
    }

    /// Makes `span` one with the free run in front of it, `found`, or with the one `behind` it, or with both.
    #[inline(never)]
    fn join(&mut self, found: u32, behind: u32, span: Span) {
        let segment = &mut self.segments[segment_of(span.start)];
        let mut nodes = self.nodes.row();
        let (before_start, before_end) = (nodes[found].start, nodes[found].end);
        let joins_before = found != behind;
        let node = &mut nodes[behind];
        if node.start == span.end {
            let (old_start, end) = (node.start, node.end);
            let start = select_unpredictable(joins_before, before_start, span.start);
            node.start = start;
            self.bins.unlink(&mut nodes, behind, end - old_start);
            if joins_before {
                self.bins.unlink(&mut nodes, found, before_end - before_start);
                segment.remove(&mut nodes, found);
            }
            self.bins.link(&mut nodes, behind, end - start);
            if joins_before {
                self.nodes.give_back(found);
            }
        } else {
            segment.move_end(&mut nodes, found, span.end);
            self.bins.unlink(&mut nodes, found, before_end - before_start);
            self.bins.link(&mut nodes, found, span.end - before_start);
        }
    }

    /// Makes the extents of `span` free, which lies behind all free runs of its segment and touches none.
    pub fn append(&mut self, span: Span) {
        self.extents += span.length();
        let border = self.index(span.start).border();
        self.insert(span, border);
    }

    /// Takes the free extents of `span`, all of which lie in one free run.
    ///
    /// # Panics
    /// Where there is no such run.
    pub fn take_at(&mut self, span: Span) {
        let id = self.reaching(span.start + 1);
        assert!(
            self.nodes[id].start <= span.start && span.end <= self.nodes[id].end,
            "only free extents can be taken"
        );
        self.take(id, span);
    }

    #[inline]
    fn take(&mut self, id: u32, span: Span) {
        let (start, end) = (self.nodes[id].start, self.nodes[id].end);
        debug_assert!(start <= span.start && span.end <= end);
        self.extents -= span.length();
        match (start == span.start, span.end == end) {
            (true, true) => self.remove(id),
            (true, false) => self.move_start(id, span.end),
            (false, true) => self.move_end(id, span.start),
            (false, false) => {
                self.move_start(id, span.end);
                self.insert(Span::new(start, span.start), id);
            }
        }
    }

    /// Adds a run in front of the run `behind`.
    fn insert(&mut self, span: Span, behind: u32) {
        let id = self.nodes.take_unused();
        let mut nodes = self.nodes.row();
        self.bins.link(&mut nodes, id, span.length());
        self.segments[segment_of(span.start)].add(&mut nodes, id, span, behind);
    }

    fn remove(&mut self, id: u32) {
        let mut nodes = self.nodes.row();
        let node = &nodes[id];
        let (start, length) = (node.start, node.length());
        self.bins.unlink(&mut nodes, id, length);
        self.segments[segment_of(start)].remove(&mut nodes, id);
        self.nodes.give_back(id);
    }

    /// Gives memory back where a segment, or the pool, has far fewer runs left than there once were.
    ///
    /// Not asked by what takes and gives single runs: that would cost each of them some 8 % in a small pool.
    pub fn give_memory_back(&mut self, segment: u32) {
        let index = &mut self.segments[segment as usize];
        if index.is_sparse() {
            index.shrink(&self.nodes.row());
        }
        if self.nodes.len() > MANY_NODES && self.nodes.len() / 4 > self.runs() + self.segments.len() {
            self.renumber();
        }
    }

    /// Numbers all runs anew, without the gaps that others have left.
    #[cold]
    #[inline(never)]
    fn renumber(&mut self) {
        let mut kept = Vec::with_capacity(self.runs() + self.segments.len());
        for segment in &self.segments {
            kept.push(segment.border());
            kept.extend(segment.ascending(&self.nodes));
        }
        let numbers = self.nodes.keep(&kept);
        self.bins.renumber(&numbers);
        for segment in &mut self.segments {
            segment.renumber(&numbers);
        }
    }

    /// Gives a run another start; the index need not know.
    fn move_start(&mut self, id: u32, start: u64) {
        let mut nodes = self.nodes.row();
        let node = &mut nodes[id];
        let (old, new) = (node.length(), node.end - start);
        node.start = start;
        self.bins.unlink(&mut nodes, id, old);
        self.bins.link(&mut nodes, id, new);
    }

    fn move_end(&mut self, id: u32, end: u64) {
        let mut nodes = self.nodes.row();
        let node = &nodes[id];
        let (start, old_end) = (node.start, node.end);
        self.bins.unlink(&mut nodes, id, old_end - start);
        self.bins.link(&mut nodes, id, end - start);
        self.segments[segment_of(start)].move_end(&mut nodes, id, end);
    }

    /// Takes the first extents of a run.
    fn take_front(&mut self, id: u32, length: u64) -> u64 {
        let (start, end) = (self.nodes[id].start, self.nodes[id].end);
        self.extents -= length;
        if start + length == end {
            self.remove(id);
        } else {
            self.move_start(id, start + length);
        }
        start
    }

    /// Takes the first extents of the newest run of a bin; `None` where that is too short.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    fn take_front_of_newest(&mut self, bin: usize, length: u64) -> Option<u64> {
        let mut nodes = self.nodes.row();
        let id = self.bins.newest(bin);
        let node = &mut nodes[id];
        let start = node.start;
        let rest = (node.end - start).checked_sub(length)?;
        self.extents -= length;
        if rest == 0 {
            self.bins.pop(&mut nodes, id, bin);
            self.segments[segment_of(start)].remove(&mut nodes, id);
            self.nodes.give_back(id);
        } else {
            node.start = start + length;
            self.bins.shorten(&mut nodes, id, bin, rest);
        }
        Some(start)
    }

    /// The first run of its segment that ends at `address` or behind it, or else the border.
    #[inline]
    fn reaching(&mut self, address: u64) -> u32 {
        self.segments[segment_of(address)].reaching(&self.nodes, address)
    }

    #[inline]
    fn index(&self, address: u64) -> &SegmentIndex {
        &self.segments[segment_of(address)]
    }

    #[inline]
    fn span(&self, id: u32) -> Span {
        Span::new(self.nodes[id].start, self.nodes[id].end)
    }

    /// Bytes of memory that the free runs need, and bytes that the pool needs whatever its free runs.
    pub fn memory_bytes(&self) -> (usize, usize) {
        let segments: usize = self.segments.iter().map(SegmentIndex::memory_bytes).sum();
        let fixed = self.bins.memory_bytes() + self.segments.capacity() * size_of::<SegmentIndex>();
        (self.nodes.memory_bytes() + segments, fixed)
    }

    /// The address behind the last extent of a segment.
    pub fn segment_end(&self, segment: usize) -> u64 {
        address(segment, self.segments[segment].extents())
    }
}
