//! The free extents of a pool: every one is in exactly one free run, and no two runs touch.
//!
//! A run is found by length through [`bins`] and by place through [`index`]. Its data is one node of
//! 32 bytes; an operation touches the node, its neighbours in the bin, and a slot or two of the index.

mod bins;
mod bitmap;
mod fit;
mod index;
mod invariants;
mod node;
mod table;

use index::SegmentIndex;
use node::{NIL, Nodes};

use super::run::{Span, address, segment_of};
use bins::{BINS, Bins, members};
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
        Self { nodes: Nodes::new(BINS), bins: Bins::new(), segments: Vec::new(), extents: 0 }
    }

    /// Adds a segment of which nothing is free yet.
    pub fn add_segment(&mut self, extents: u64) {
        self.segments.push(SegmentIndex::new(extents));
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

    /// Makes room for `runs` in all, of which about `per_segment` lie in each segment.
    pub fn reserve(&mut self, runs: usize, per_segment: impl Fn(usize) -> usize) {
        self.nodes.reserve(runs);
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
        let (_, id) = self.index(span.start).around(&self.nodes, span.start);
        (id != NIL && self.nodes[id].start < span.end).then(|| self.span(id))
    }

    /// The free run that begins where `span` ends.
    ///
    /// # Errors
    /// The first free run that has extents of `span`.
    pub fn following(&self, span: Span) -> Result<Option<Span>, Span> {
        let (_, id) = self.index(span.start).around(&self.nodes, span.start);
        if id == NIL || self.nodes[id].start > span.end {
            return Ok(None);
        }
        let found = self.span(id);
        if found.start < span.end { Err(found) } else { Ok(Some(found)) }
    }

    /// Makes the extents of `span` free, and one with the free runs that they touch.
    ///
    /// # Errors
    /// The first free run that has extents of `span`; nothing was changed.
    #[inline]
    pub fn give(&mut self, span: Span) -> Result<(), Span> {
        let (before, behind) = self.index(span.start).around(&self.nodes, span.start);
        let mut joins_behind = false;
        if behind != NIL {
            let start = self.nodes[behind].start;
            if start < span.end {
                return Err(self.span(behind));
            }
            joins_behind = start == span.end;
        }
        self.extents += span.length();
        match (before != NIL, joins_behind) {
            (true, true) => {
                let start = self.nodes[before].start;
                self.remove(before);
                let end = self.nodes[behind].end;
                self.bins.relink(&mut self.nodes, behind, start, end);
            }
            (true, false) => self.move_end(before, span.end),
            (false, true) => {
                let end = self.nodes[behind].end;
                self.bins.relink(&mut self.nodes, behind, span.start, end);
            }
            (false, false) => self.insert(span),
        }
        Ok(())
    }

    /// Makes the extents of `span` free, which touches no free run and meets none.
    pub fn give_apart(&mut self, span: Span) {
        self.extents += span.length();
        self.insert(span);
    }

    /// Takes the free extents of `span`, all of which lie in one free run.
    ///
    /// # Panics
    /// Where there is no such run.
    pub fn take_at(&mut self, span: Span) {
        let (_, id) = self.index(span.start).around(&self.nodes, span.start);
        assert!(
            id != NIL && self.nodes[id].start <= span.start && span.end <= self.nodes[id].end,
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
            (true, false) => self.bins.relink(&mut self.nodes, id, span.end, end),
            (false, true) => self.move_end(id, span.start),
            (false, false) => {
                self.bins.relink(&mut self.nodes, id, span.end, end);
                self.insert(Span::new(start, span.start));
            }
        }
    }

    #[inline]
    fn insert(&mut self, span: Span) {
        let id = self.nodes.add(span.start, span.end);
        self.bins.link(&mut self.nodes, id);
        self.segments[segment_of(span.start)].add(&mut self.nodes, id);
    }

    #[inline]
    fn remove(&mut self, id: u32) {
        let start = self.nodes[id].start;
        self.segments[segment_of(start)].remove(&mut self.nodes, id);
        self.bins.unlink(&mut self.nodes, id);
        self.nodes.remove(id);
    }

    #[inline]
    fn move_end(&mut self, id: u32, end: u64) {
        let (start, old_end) = (self.nodes[id].start, self.nodes[id].end);
        if SegmentIndex::same_place(old_end, end) {
            self.bins.relink(&mut self.nodes, id, start, end);
            return;
        }
        let segment = segment_of(start);
        self.segments[segment].remove(&mut self.nodes, id);
        self.bins.relink(&mut self.nodes, id, start, end);
        self.segments[segment].add(&mut self.nodes, id);
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
        bins.map(|bin| members(&self.nodes, bin).map(|id| self.span(id)).collect())
    }

    /// Bytes of memory that the free runs need, and bytes that the pool needs whatever its free runs.
    pub fn memory_bytes(&self) -> (usize, usize) {
        let (nodes, rings) = self.nodes.memory_bytes();
        let fixed = rings + self.bins.memory_bytes() + self.segments.capacity() * size_of::<SegmentIndex>();
        let segments = self.segments.iter().map(SegmentIndex::memory_bytes);
        segments.fold((nodes, fixed), |(runs, fixed), (index, chunks)| (runs + index, fixed + chunks))
    }

    /// The address behind the last extent of a segment.
    pub fn segment_end(&self, segment: usize) -> u64 {
        address(segment, self.segments[segment].extents())
    }
}
