//! Equal runs, every second of them free: then runs of that length come and go.

use std::time::Instant;

use crate::clock;
use crate::latency::Latency;
use crate::peers::{FreeSpace, Peer};
use crate::random::Random;
use crate::subject::{Outcome, Subject, Turn};

/// Runs, used or free, however large the pool is.
const TEETH: u64 = 1 << 20;
/// Calls between two looks at the clock.
const SLICE: u64 = 1024;

pub struct Comb<P: Peer> {
    peer: P,
    length: u64,
    kept: Vec<P::Held>,
    random: Random,
    outcome: Outcome,
}

impl<P: Peer> Comb<P> {
    /// `None` where the allocator needs longer than `turn.limit` for it.
    pub fn new(extents: u64, turn: Turn) -> Option<Self> {
        let begin = Instant::now();
        let late = |count: u64| count.is_multiple_of(SLICE) && begin.elapsed() > turn.limit;
        let length = extents / TEETH;
        let mut peer = P::new(extents, TEETH as usize);
        let mut held = Vec::with_capacity(TEETH as usize);
        for count in 0..TEETH {
            held.push(peer.allocate(length)?);
            if late(count) {
                return None;
            }
        }
        let mut kept = Vec::with_capacity(TEETH as usize / 2);
        for (count, held) in (0..).zip(held) {
            if count % 2 == 0 {
                kept.push(held);
            } else {
                peer.free(held, length);
            }
            if late(count) {
                return None;
            }
        }
        Some(Self { peer, length, kept, random: Random::new(1), outcome: Outcome::default() })
    }

    fn step(&mut self, latency: &mut Option<Latency>) {
        let chosen = self.random.below(self.kept.len());
        let (peer, length) = (&mut self.peer, self.length);
        Latency::of(latency, || peer.free(self.kept[chosen], length));
        if let Some(held) = Latency::of(latency, || peer.allocate(length)) {
            self.kept[chosen] = held;
        }
        self.outcome.calls += 2;
        self.outcome.requests += 1;
    }
}

impl<P: Peer> Subject for Comb<P> {
    fn work(&mut self, turn: Turn) -> f64 {
        let (begin, worked, mut calls) = (Instant::now(), clock::worked(), 0);
        while calls < turn.calls && begin.elapsed() < turn.limit {
            (0..SLICE).for_each(|_| self.step(&mut None));
            calls += 2 * SLICE;
        }
        clock::a_call_since(worked, calls)
    }

    fn single_calls(&mut self, turn: Turn) -> Latency {
        let (begin, mut latency) = (Instant::now(), Some(Latency::default()));
        for _ in 0..turn.calls / 2 {
            self.step(&mut latency);
            if begin.elapsed() > turn.limit {
                break;
            }
        }
        latency.unwrap_or_default()
    }

    fn outcome(&self) -> Outcome {
        self.outcome
    }

    fn used_percent(&self) -> f64 {
        50.0
    }

    fn free_space(&self) -> FreeSpace {
        self.peer.free_space()
    }
}
