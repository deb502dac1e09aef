//! The free extents of a pool: every one is in exactly one free run, and no two runs touch.
//!
//! A run is found by length through [`bins`] and by place through [`index`]. Its data is one node of
//! 32 bytes and a link of 8; an operation touches those, its neighbours', and an entry or two of the index.

mod bins;
mod bitmap;
mod fit;
mod index;
mod invariants;
mod node;

use index::SegmentIndex;
use node::{Node, Nodes};

use super::run::{Span, address, segment_of};
use bins::Bins;
pub use fit::Fit;

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
        self.make_nodes();
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
        self.nodes.used()
    }

    /// Makes room for `runs` in all, of which so many lie in each segment.
    pub fn reserve(&mut self, runs: usize, per_segment: impl Fn(usize) -> usize) {
        self.nodes.reserve(runs + self.segments.len());
        for (number, segment) in self.segments.iter_mut().enumerate() {
            segment.reserve(per_segment(number));
        }
    }

    /// All free runs, by segment and ascending.
    pub fn spans(&self) -> impl Iterator<Item = Span> + use<'_> {
        let ids = self.segments.iter().flat_map(|segment| segment.ascending(&self.nodes));
        ids.map(|id| self.span(id))
    }

    /// The first free run that has extents of `span`.
    pub fn meeting(&self, span: Span) -> Option<Span> {
        let id = self.index(span.start).reaching(&self.nodes, span.start + 1);
        (self.nodes[id].start < span.end).then(|| self.span(id))
    }

    /// The free run that begins where `span` ends.
    ///
    /// # Errors
    /// The first free run that has extents of `span`.
    pub fn following(&self, span: Span) -> Result<Option<Span>, Span> {
        let id = self.index(span.start).reaching(&self.nodes, span.start + 1);
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
        let id = self.index(span.start).reaching(&self.nodes, span.start + 1);
        let Node { start, end, .. } = self.nodes[id];
        if start < span.end {
            return Err(self.span(id));
        }
        let fits = start == span.end && end - start >= extents;
        if fits && extents > 0 {
            self.take_front(id, extents);
        }
        Ok(fits || extents == 0)
    }

    /// Makes the extents of `span` free, and one with the free runs that they touch.
    ///
    /// # Errors
    /// The first free run that has extents of `span`; nothing was changed.
    #[inline]
    pub fn give(&mut self, span: Span) -> Result<(), Span> {
        let found = self.index(span.start).reaching(&self.nodes, span.start);
        let Node { end, place_next, .. } = self.nodes[found];
        let joins_before = end == span.start;
        let behind = if joins_before { place_next } else { found };
        let behind_start = self.nodes[behind].start;
        if behind_start < span.end {
            return Err(self.span(behind));
        }
        self.extents += span.length();
        match (joins_before, behind_start == span.end) {
            (true, true) => {
                let start = self.nodes[found].start;
                self.remove(found);
                self.move_start(behind, start);
            }
            (true, false) => self.move_end(found, span.end),
            (false, true) => self.move_start(behind, span.start),
            (false, false) => self.insert(span, behind),
        }
        Ok(())
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
        let id = self.index(span.start).reaching(&self.nodes, span.start + 1);
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
    #[inline]
    fn insert(&mut self, span: Span, behind: u32) {
        self.make_nodes();
        let id = self.nodes.add(span.start, span.end);
        self.bins.link(id, span.length());
        self.segments[segment_of(span.start)].add(&mut self.nodes, id, behind);
    }

    #[inline]
    fn remove(&mut self, id: u32) {
        let start = self.nodes[id].start;
        self.segments[segment_of(start)].remove(&mut self.nodes, id);
        self.bins.unlink(id, self.nodes[id].length());
        self.nodes.remove(id);
    }

    /// Gives a run another start; the index need not know.
    #[inline]
    fn move_start(&mut self, id: u32, start: u64) {
        let node = &mut self.nodes[id];
        let (old, new) = (node.length(), node.end - start);
        node.start = start;
        self.bins.unlink(id, old);
        self.bins.link(id, new);
    }

    #[inline]
    fn move_end(&mut self, id: u32, end: u64) {
        let Node { start, end: old_end, .. } = self.nodes[id];
        self.bins.unlink(id, old_end - start);
        self.bins.link(id, end - start);
        let segment = &mut self.segments[segment_of(start)];
        if segment.same_place(old_end, end) {
            self.nodes[id].end = end;
            return;
        }
        segment.unfile(&self.nodes, id);
        self.nodes[id].end = end;
        segment.file(&self.nodes, id);
    }

    #[inline]
    fn make_nodes(&mut self) {
        if self.nodes.all_used() {
            self.make_more_nodes();
        }
    }

    #[cold]
    #[inline(never)]
    fn make_more_nodes(&mut self) {
        let nodes = self.nodes.make_more();
        self.bins.add_links(nodes);
    }

    /// Takes the first extents of a run.
    #[inline]
    fn take_front(&mut self, id: u32, length: u64) -> Span {
        let Node { start, end, .. } = self.nodes[id];
        self.extents -= length;
        if start + length == end {
            self.remove(id);
        } else {
            self.move_start(id, start + length);
        }
        Span::new(start, start + length)
    }

    #[inline]
    fn index(&self, address: u64) -> &SegmentIndex {
        &self.segments[segment_of(address)]
    }

    #[inline]
    fn span(&self, id: u32) -> Span {
        Span::new(self.nodes[id].start, self.nodes[id].end)
    }

    /// All free runs, those of longer bins first; in no order within a bin.
    pub fn spans_by_bin(&self) -> impl Iterator<Item = Vec<Span>> + use<'_> {
        let bins = std::iter::successors(self.bins.filled_up_to(usize::MAX), |&bin| {
            bin.checked_sub(1).and_then(|below| self.bins.filled_up_to(below))
        });
        bins.map(|bin| self.bins.members(bin).map(|id| self.span(id)).collect())
    }

    /// Bytes of memory that the free runs need, and bytes that the pool needs whatever its free runs.
    pub fn memory_bytes(&self) -> (usize, usize) {
        let (links, rings) = self.bins.memory_bytes();
        let segments: usize = self.segments.iter().map(SegmentIndex::memory_bytes).sum();
        let fixed = rings + self.segments.capacity() * size_of::<SegmentIndex>();
        (self.nodes.memory_bytes() + links + segments, fixed)
    }

    /// The address behind the last extent of a segment.
    pub fn segment_end(&self, segment: usize) -> u64 {
        address(segment, self.segments[segment].extents())
    }
}
