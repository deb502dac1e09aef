//! An allocator at work: what is measured in turns with others.

use std::time::Duration;

use crate::latency::Latency;
use crate::peers::FreeSpace;

/// How much an allocator works before it is another's turn.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub calls: u64,
    pub limit: Duration,
}

/// What happened since the pool was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Calls that allocate, free or expand.
    pub calls: u64,
    /// Those that allocate or expand.
    pub requests: u64,
    /// Requests that found no place while enough extents were free.
    pub failures: u64,
    /// Extents allocated.
    pub allocated: u64,
}

/// A pool and a workload that goes on for as long as one likes.
pub trait Subject {
    /// Nanoseconds a call, the workload's own cost included.
    fn work(&mut self, turn: Turn) -> f64;

    /// The durations of single calls.
    fn single_calls(&mut self, turn: Turn) -> Latency;

    fn outcome(&self) -> Outcome;

    /// The share of the pool in use, in percent.
    fn used_percent(&self) -> f64;

    fn free_space(&self) -> FreeSpace;
}
