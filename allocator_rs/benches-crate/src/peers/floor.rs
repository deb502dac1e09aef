use super::{FreeSpace, Peer};

/// Allocates nothing: what the workload itself costs. Subtracted from everybody's figures.
pub struct Floor(u64);

impl Peer for Floor {
    const NAME: &'static str = "floor";
    type Held = u64;

    fn new(_extents: u64, _most_held: usize) -> Self {
        Self(0)
    }

    #[inline]
    fn allocate(&mut self, length: u64) -> Option<Self::Held> {
        self.0 = std::hint::black_box(self.0 + length);
        Some(self.0)
    }

    #[inline]
    fn free(&mut self, held: Self::Held, length: u64) {
        self.0 = std::hint::black_box(self.0.wrapping_sub(length) ^ (held & 1));
    }

    fn free_space(&self) -> FreeSpace {
        FreeSpace::default()
    }
}
