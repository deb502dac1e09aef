//! Free runs by place, one index a segment: which run is the first to end behind an address?
//!
//! A run is filed under the chunk of its *last* extent: taking extents off its front, which is what
//! every allocation does, then leaves the index alone. A bitmap says which chunks have runs, a table
//! leads to a chunk's first run, and the runs of a chunk are linked in ascending order.

use super::bitmap::Bitmap;
use super::node::{NIL, Nodes};
use super::table::{Place, Table};
use crate::pool::run::offset_of;

/// Extents in a chunk, as a power of two: a bitmap of 4 KiB for 1 TiB of 1 MiB extents, while even a
/// comb of single free extents has no more than 16 runs in a chunk.
const CHUNK_SHIFT: u32 = 5;

#[derive(Debug)]
pub struct SegmentIndex {
    extents: u64,
    chunks: Bitmap,
    firsts: Table,
}

impl SegmentIndex {
    pub fn new(extents: u64) -> Self {
        Self { extents, chunks: Bitmap::new(chunks_for(extents)), firsts: Table::new() }
    }

    pub fn extents(&self) -> u64 {
        self.extents
    }

    pub fn grow(&mut self, extents: u64) {
        self.chunks = self.chunks.grown(chunks_for(extents));
        self.extents = extents;
    }

    pub fn reserve(&mut self, runs: usize) {
        self.firsts.reserve(runs);
    }

    #[inline]
    pub fn add(&mut self, nodes: &mut Nodes, id: u32) {
        let end = nodes[id].end;
        let chunk = chunk_of(end - 1);
        if !self.chunks.contains(chunk.into()) {
            self.chunks.set(chunk.into());
            self.firsts.insert(chunk, id, |id| chunk_of(nodes[id].end - 1));
            nodes[id].chunk_next = NIL;
            return;
        }
        let place = self.place(nodes, chunk);
        let mut before = NIL;
        let mut behind = self.firsts.node(&place);
        while behind != NIL && nodes[behind].end < end {
            before = behind;
            behind = nodes[behind].chunk_next;
        }
        nodes[id].chunk_next = behind;
        if before == NIL {
            self.firsts.replace(&place, id);
        } else {
            nodes[before].chunk_next = id;
        }
    }

    #[inline]
    pub fn remove(&mut self, nodes: &mut Nodes, id: u32) {
        let chunk = chunk_of(nodes[id].end - 1);
        let next = nodes[id].chunk_next;
        let place = self.place(nodes, chunk);
        let mut before = self.firsts.node(&place);
        if before != id {
            while nodes[before].chunk_next != id {
                before = nodes[before].chunk_next;
            }
            nodes[before].chunk_next = next;
        } else if next != NIL {
            self.firsts.replace(&place, next);
        } else {
            self.firsts.remove(&place);
            self.chunks.clear(chunk.into());
        }
    }

    /// Whether a run that ends at either address is filed under the same chunk.
    #[inline]
    pub fn same_place(one_end: u64, other_end: u64) -> bool {
        chunk_of(one_end - 1) == chunk_of(other_end - 1)
    }

    /// The run that ends exactly at `address`, and the first one that ends behind it; [`NIL`] for none.
    #[inline]
    pub fn around(&self, nodes: &Nodes, address: u64) -> (u32, u32) {
        let offset = offset_of(address);
        let chunk = (offset.saturating_sub(1)) >> CHUNK_SHIFT;
        let mut before = NIL;
        let Some(mut found) = self.chunks.next(chunk) else { return (NIL, NIL) };
        if found == chunk {
            let mut id = self.first(nodes, found as u32);
            while id != NIL && nodes[id].end <= address {
                before = id;
                id = nodes[id].chunk_next;
            }
            if before != NIL && nodes[before].end != address {
                before = NIL;
            }
            if id != NIL {
                return (before, id);
            }
            match self.chunks.next(chunk + 1) {
                Some(next) => found = next,
                None => return (before, NIL),
            }
        }
        (before, self.first(nodes, found as u32))
    }

    /// All runs in ascending order.
    pub fn ascending<'a>(&'a self, nodes: &'a Nodes) -> impl Iterator<Item = u32> + use<'a> {
        let chunks = std::iter::successors(self.chunks.next(0), |&chunk| self.chunks.next(chunk + 1));
        chunks.flat_map(|chunk| {
            std::iter::successors(Some(self.first(nodes, chunk as u32)), |&id| {
                let next = nodes[id].chunk_next;
                (next != NIL).then_some(next)
            })
        })
    }

    /// Bytes of memory that the runs need, and bytes that the segment needs whatever its runs.
    pub fn memory_bytes(&self) -> (usize, usize) {
        (self.firsts.memory_bytes(), self.chunks.memory_bytes())
    }

    /// The first run of a chunk that has any.
    #[inline]
    fn first(&self, nodes: &Nodes, chunk: u32) -> u32 {
        self.firsts.node(&self.place(nodes, chunk))
    }

    #[inline]
    fn place(&self, nodes: &Nodes, chunk: u32) -> Place {
        self.firsts.find(chunk, |id| chunk_of(nodes[id].end - 1) == chunk)
    }
}

fn chunks_for(extents: u64) -> u64 {
    extents.div_ceil(1 << CHUNK_SHIFT)
}

/// The chunk of an address within its segment.
#[inline]
fn chunk_of(address: u64) -> u32 {
    (offset_of(address) >> CHUNK_SHIFT) as u32
}
