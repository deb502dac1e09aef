//! The free runs themselves: 32 bytes each, linked by number.

/// No node.
pub const NIL: u32 = u32::MAX;

/// A free run, in the list of its bin (both ways) and in the list of its chunk (one way).
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Address of the first extent.
    pub start: u64,
    /// Address behind the last extent.
    pub end: u64,
    pub bin_previous: u32,
    pub bin_next: u32,
    /// The next run of the chunk in ascending order; of an unused node, the next unused one.
    pub chunk_next: u32,
}

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
        Self { all: Vec::new(), first_unused: NIL, used: 0 }
    }

    pub fn used(&self) -> usize {
        self.used
    }

    #[inline]
    pub fn add(&mut self, start: u64, end: u64) -> u32 {
        let node = Node { start, end, bin_previous: NIL, bin_next: NIL, chunk_next: NIL };
        self.used += 1;
        if self.first_unused == NIL {
            if self.all.len() == self.all.capacity() {
                self.grow();
            }
            self.all.push(node);
            return self.all.len() as u32 - 1;
        }
        let id = self.first_unused;
        self.first_unused = self[id].chunk_next;
        self[id] = node;
        id
    }

    #[inline]
    pub fn remove(&mut self, id: u32) {
        self.used -= 1;
        let next = self.first_unused;
        // An empty run where a used one is expected trips the debug assertions.
        self[id] = Node { start: 0, end: 0, bin_previous: NIL, bin_next: NIL, chunk_next: next };
        self.first_unused = id;
    }

    pub fn reserve(&mut self, nodes: usize) {
        self.all.reserve_exact(nodes.saturating_sub(self.all.len()));
    }

    /// Bytes of memory asked for.
    pub fn memory_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Node>()
    }

    /// By a quarter, not by doubling: half-empty memory would be most of what a free run costs.
    #[cold]
    fn grow(&mut self) {
        assert!(self.all.len() < NIL as usize / 2, "more than two thousand million free runs");
        self.all.reserve_exact(self.all.len() / 4 + 64);
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
