//! The free runs themselves: 32 bytes each, linked by number.

/// No node.
pub const NIL: u32 = 0;

/// A free run, in the list of its bin (both ways) and in the list of its chunk (one way).
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Address of the first extent.
    pub start: u64,
    /// Address behind the last extent.
    pub end: u64,
    pub bin: u32,
    pub bin_previous: u32,
    pub bin_next: u32,
    /// The next run of the chunk in ascending order; of an unused node, the next unused one.
    pub chunk_next: u32,
}

const UNUSED: Node = Node { start: 0, end: 0, bin: 0, bin_previous: NIL, bin_next: NIL, chunk_next: NIL };

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
    rings: usize,
    used: usize,
}

impl Nodes {
    /// No runs yet, but `rings` nodes with the numbers 1 and up, each a ring of its own.
    pub fn new(rings: usize) -> Self {
        let ring = |id| Node { bin_previous: id, bin_next: id, ..UNUSED };
        Self { all: (0..=rings as u32).map(ring).collect(), first_unused: NIL, rings, used: 0 }
    }

    pub fn used(&self) -> usize {
        self.used
    }

    /// A node that is in no list yet.
    #[inline]
    pub fn add(&mut self, start: u64, end: u64) -> u32 {
        self.used += 1;
        let mut id = self.first_unused;
        if id == NIL {
            id = self.add_unused();
        }
        self.first_unused = self[id].chunk_next;
        self[id] = Node { start, end, ..UNUSED };
        id
    }

    #[inline]
    pub fn remove(&mut self, id: u32) {
        self.used -= 1;
        self[id] = Node { chunk_next: self.first_unused, ..UNUSED };
        self.first_unused = id;
    }

    pub fn reserve(&mut self, nodes: usize) {
        self.all.reserve_exact((self.rings + 1 + nodes).saturating_sub(self.all.len()));
    }

    /// Bytes of memory that the runs need, and bytes that the rings need.
    pub fn memory_bytes(&self) -> (usize, usize) {
        let rings = self.rings + 1;
        ((self.all.capacity() - rings) * size_of::<Node>(), rings * size_of::<Node>())
    }

    #[cold]
    fn add_unused(&mut self) -> u32 {
        assert!(self.all.len() < u32::MAX as usize, "more than four thousand million free runs");
        if self.all.len() == self.all.capacity() {
            // By a quarter, not by doubling: half-empty memory would be most of what a free run costs.
            self.all.reserve_exact((self.all.len() - self.rings) / 4 + 64);
        }
        self.all.push(UNUSED);
        self.all.len() as u32 - 1
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
