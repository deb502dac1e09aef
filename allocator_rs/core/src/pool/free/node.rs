//! The free runs themselves: 32 bytes each, linked by number.

/// No node.
pub const NIL: u32 = 0;

/// A free run, in the ring of its segment, which is in ascending order.
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
}

const UNUSED: Node = Node { start: 0, end: 0, place_previous: NIL, place_next: NIL };

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
    used: usize,
}

impl Nodes {
    pub fn new() -> Self {
        Self { all: vec![UNUSED], first_unused: NIL, used: 0 }
    }

    /// A node that the ring of a segment begins and ends at: behind all runs.
    pub fn add_border(&mut self) -> u32 {
        let id = self.add(u64::MAX, u64::MAX);
        self.used -= 1;
        self[id].place_previous = id;
        self[id].place_next = id;
        id
    }

    pub fn used(&self) -> usize {
        self.used
    }

    /// A node that is in no list yet.
    #[inline]
    pub fn add(&mut self, start: u64, end: u64) -> u32 {
        self.used += 1;
        let id = self.first_unused;
        debug_assert_ne!(id, NIL, "there is a node to add");
        self.first_unused = self[id].place_next;
        self[id] = Node { start, end, ..UNUSED };
        id
    }

    #[inline]
    pub fn remove(&mut self, id: u32) {
        self.used -= 1;
        self[id] = Node { place_next: self.first_unused, ..UNUSED };
        self.first_unused = id;
    }

    pub fn reserve(&mut self, nodes: usize) {
        self.all.reserve_exact((nodes + 1).saturating_sub(self.all.len()));
    }

    /// Bytes of memory asked for.
    pub fn memory_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Node>()
    }

    /// Whether the next node to be added has yet to be made.
    #[inline]
    pub fn all_used(&self) -> bool {
        self.first_unused == NIL
    }

    /// Makes a few nodes more, and answers with how many there are then.
    pub fn make_more(&mut self) -> usize {
        // By an eighth, not by doubling: half-empty memory would be most of what a free run costs.
        let old = self.all.len();
        let new = self.all.capacity().max(old + old / 8 + 32);
        assert!(new < u32::MAX as usize / 2, "more than two thousand million free runs");
        self.all.reserve_exact(new - old);
        for id in old..new {
            let next = if id + 1 < new { id as u32 + 1 } else { NIL };
            self.all.push(Node { place_next: next, ..UNUSED });
        }
        self.first_unused = old as u32;
        new
    }
}

impl std::ops::Index<u32> for Nodes {
    type Output = Node;

    #[inline]
    fn index(&self, id: u32) -> &Node {
        &self.all[id as usize]
    }
}

impl std::ops::IndexMut<u32> for Nodes {
    #[inline]
    fn index_mut(&mut self, id: u32) -> &mut Node {
        &mut self.all[id as usize]
    }
}
