//! Figures about a pool.

use super::{Pool, run::Span};

/// Octaves that a run's length can lie in: 1, 2-3, 4-7 and so on, up to 2^36 extents.
const OCTAVES: usize = 37;

/// A picture of a pool at one moment. Counts are of extents unless they say otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// All extents.
    pub extents: u64,
    /// Those that can be allocated.
    pub free_extents: u64,
    /// Those that wait for zeroing.
    pub quarantined_extents: u64,
    /// Those that have several owners.
    pub shared_extents: u64,
    /// How many free runs there are.
    pub free_runs: u64,
    /// How many quarantined runs there are.
    pub quarantined_runs: u64,
    /// The longest free run.
    pub longest_free_run: u64,
    /// Ceph's figure: (free runs - 1) / (free extents - 1); 0 in one piece, 1 all single extents.
    pub fragmentation: f64,
    /// Memory that grows with the free, quarantined and shared runs, in bytes.
    pub memory_bytes: u64,
    /// Memory that the pool's size asks for whatever its runs, in bytes; pages never written to cost nothing.
    pub fixed_memory_bytes: u64,
}

impl Pool {
    /// Figures about the pool as it is now.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let (free_bytes, fixed_bytes) = self.free.memory_bytes();
        let memory_bytes = free_bytes + self.quarantine.memory_bytes() + self.shared.memory_bytes();
        Statistics {
            extents: self.extents,
            free_extents: self.free.extents(),
            quarantined_extents: self.quarantine.extents(),
            shared_extents: self.shared.extents(),
            free_runs: self.free.runs() as u64,
            quarantined_runs: self.quarantine.runs() as u64,
            longest_free_run: self.free.longest_span().map_or(0, Span::length),
            fragmentation: fragmentation(self.free.runs() as u64, self.free.extents()),
            memory_bytes: memory_bytes as u64,
            fixed_memory_bytes: fixed_bytes as u64,
        }
    }

    /// The number of extents of the longest run that can be allocated.
    #[must_use]
    pub fn longest_free_run(&self) -> u64 {
        self.free.longest_span().map_or(0, Span::length)
    }

    /// Free runs by length: entry `n` counts those of 2^n to 2^(n+1) - 1 extents.
    #[must_use]
    pub fn free_run_histogram(&self) -> Vec<u64> {
        let mut counts = vec![0; OCTAVES];
        for span in self.free.spans() {
            counts[span.length().ilog2() as usize] += 1;
        }
        while counts.last() == Some(&0) {
            counts.pop();
        }
        counts
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn fragmentation(runs: u64, extents: u64) -> f64 {
    if extents <= 1 { 0.0 } else { (runs.saturating_sub(1)) as f64 / (extents - 1) as f64 }
}
