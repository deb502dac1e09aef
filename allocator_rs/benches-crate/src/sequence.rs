//! The pool is filled with equal runs, then emptied in the same order, again and again.

use std::time::Instant;

use crate::clock;
use crate::latency::Latency;
use crate::peers::{FreeSpace, Peer};
use crate::subject::{Outcome, Subject, Turn};

const RUNS: u64 = 1 << 16;

pub struct FillAndDrain<P: Peer> {
    peer: P,
    length: u64,
    held: Vec<P::Held>,
    outcome: Outcome,
}

impl<P: Peer> FillAndDrain<P> {
    /// `None` where the allocator needs longer than `turn.limit` for one round.
    pub fn new(extents: u64, turn: Turn) -> Option<Self> {
        let begin = Instant::now();
        let (length, mut peer) = (extents / RUNS, P::new(extents, RUNS as usize));
        let mut held = Vec::with_capacity(RUNS as usize);
        for _ in 0..RUNS {
            held.push(peer.allocate(length)?);
            if held.len().is_multiple_of(1024) && begin.elapsed() > turn.limit / 2 {
                return None;
            }
        }
        held.drain(..).for_each(|held| peer.free(held, length));
        Some(Self { peer, length, held, outcome: Outcome::default() })
    }

    fn round(&mut self, latency: &mut Option<Latency>) {
        let (peer, length) = (&mut self.peer, self.length);
        for _ in 0..RUNS {
            if let Some(held) = Latency::of(latency, || peer.allocate(length)) {
                self.held.push(held);
            }
        }
        for held in self.held.drain(..) {
            Latency::of(latency, || peer.free(held, length));
        }
        self.outcome.calls += 2 * RUNS;
        self.outcome.requests += RUNS;
    }
}

impl<P: Peer> Subject for FillAndDrain<P> {
    fn work(&mut self, _turn: Turn) -> f64 {
        let worked = clock::worked();
        self.round(&mut None);
        clock::a_call_since(worked, 2 * RUNS)
    }

    fn single_calls(&mut self, _turn: Turn) -> Latency {
        let mut latency = Some(Latency::default());
        self.round(&mut latency);
        latency.unwrap_or_default()
    }

    fn outcome(&self) -> Outcome {
        self.outcome
    }

    fn used_percent(&self) -> f64 {
        0.0
    }

    fn free_space(&self) -> FreeSpace {
        self.peer.free_space()
    }
}
