//! The free runs themselves: 32 bytes each, linked by number.

use std::ops::{Index, IndexMut};

/// No node. There is a node of that number, which nobody reads: where a run has no neighbour, links are
/// written to it, so that no branch has to ask.
pub const NIL: u32 = 0;

/// Where no run ends: what an unused node says of itself.
const NOWHERE: u64 = 0;

/// A free run, in the ring of its segment, which is in ascending order, and in the list of its bin.
///
/// Aligned to its size, so that it lies in one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub struct Node {
    /// Address of the first extent.
    pub start: u64,
    /// Address behind the last extent.
    pub end: u64,
    pub place_previous: u32,
    /// Of an unused node, the next unused one.
    pub place_next: u32,
    /// The next newer run of the bin, or else `NIL`.
    pub bin_previous: u32,
    /// The next older run of the bin, or else `NIL`.
    pub bin_next: u32,
}

const UNUSED: Node =
    Node { start: 0, end: NOWHERE, place_previous: NIL, place_next: NIL, bin_previous: NIL, bin_next: NIL };

impl Node {
    #[inline]
    pub fn length(&self) -> u64 {
        self.end - self.start
    }
}

/// All nodes, used or not, in one block of memory.
#[derive(Debug)]
pub struct Nodes {
    all: Vec<Node>,
    first_unused: u32,
}

impl Nodes {
    pub fn new() -> Self {
        Self { all: vec![UNUSED], first_unused: NIL }
    }

    /// A node that the ring of a segment begins and ends at: behind all runs.
    pub fn add_border(&mut self) -> u32 {
        let id = self.take_unused();
        let border = Node { start: u64::MAX, end: u64::MAX, place_previous: id, place_next: id, ..UNUSED };
        self.all[id as usize] = border;
        id
    }

    /// A node that is in no list. Its fields are anything.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    pub fn take_unused(&mut self) -> u32 {
        if self.first_unused == NIL {
            self.make_more();
        }
        let id = self.first_unused;
        self.first_unused = self[id].place_next;
        id
    }

    /// Gives a node back that is in no list any more.
    #[inline]
    pub fn give_back(&mut self, id: u32) {
        let node = &mut self.all[id as usize];
        node.place_next = self.first_unused;
        node.end = NOWHERE;
        self.first_unused = id;
    }

    /// All nodes, to write to.
    #[inline]
    pub fn row(&mut self) -> Row<'_> {
        Row(&mut self.all)
    }

    pub fn reserve(&mut self, nodes: usize) {
        self.all.reserve_exact((nodes + 1).saturating_sub(self.all.len()));
    }

    /// How many there are, used or not.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Forgets all nodes but these, and numbers them anew; answers with the new numbers by the old ones.
    pub fn keep(&mut self, kept: &[u32]) -> Vec<u32> {
        let mut numbers = vec![NIL; self.all.len()];
        for (number, &id) in (NIL + 1..).zip(kept) {
            numbers[id as usize] = number;
        }
        let renumbered = kept.iter().map(|&id| {
            let node = self[id];
            Node {
                place_previous: numbers[node.place_previous as usize],
                place_next: numbers[node.place_next as usize],
                bin_previous: numbers[node.bin_previous as usize],
                bin_next: numbers[node.bin_next as usize],
                ..node
            }
        });
        self.all = std::iter::once(UNUSED).chain(renumbered).collect();
        self.first_unused = NIL;
        numbers
    }

    /// Bytes of memory asked for.
    pub fn memory_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Node>()
    }

    #[cold]
    #[inline(never)]
    fn make_more(&mut self) {
        // By an eighth, not by doubling: half-empty memory would be most of what a free run costs.
        let old = self.all.len();
        let new = self.all.capacity().max(old + old / 8 + 32);
        assert!(new < u32::MAX as usize, "more than four thousand million free runs");
        self.all.reserve_exact(new - old);
        for id in old..new {
            let next = if id + 1 < new { id as u32 + 1 } else { NIL };
            self.all.push(Node { place_next: next, ..UNUSED });
        }
        self.first_unused = old as u32;
    }
}

impl Index<u32> for Nodes {
    type Output = Node;

    #[inline]
    fn index(&self, id: u32) -> &Node {
        &self.all[id as usize]
    }
}

/// The nodes as a slice, whose place and length stay in registers: those of a vector are read again after each write.
pub struct Row<'a>(&'a mut [Node]);

impl Index<u32> for Row<'_> {
    type Output = Node;

    #[inline]
    fn index(&self, id: u32) -> &Node {
        &self.0[id as usize]
    }
}

impl IndexMut<u32> for Row<'_> {
    #[inline]
    fn index_mut(&mut self, id: u32) -> &mut Node {
        &mut self.0[id as usize]
    }
}
