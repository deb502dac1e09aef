//! Volumes come and go at random while the pool stays at one level.

use std::time::{Duration, Instant};

use crate::clock;
use crate::latency::Latency;
use crate::peers::{FreeSpace, Peer};
use crate::random::{Lengths, Random};
use crate::subject::{Outcome, Subject, Turn};

/// Steps between two looks at the clock.
const SLICE: u32 = 64;

/// A pool, what is in it, and how the pool is used.
pub struct Churn<P: Peer> {
    peer: P,
    held: Vec<(P::Held, u64)>,
    lengths: Vec<u64>,
    drawn: usize,
    random: Random,
    target: u64,
    used: u64,
    extents: u64,
    expansions: bool,
    outcome: Outcome,
}

impl<P: Peer> Churn<P> {
    /// A pool of `extents` that is to be kept `percent` full. `expansions`: every fifth call lengthens a
    /// run that is there by a quarter, and every tenth copies one.
    pub fn new(extents: u64, percent: u64, lengths: Lengths, expansions: bool, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let lengths = lengths.table(&mut random);
        let mean = lengths.iter().sum::<u64>() / lengths.len() as u64;
        let most_held = 2 * extents / mean.max(1) + 1000;
        Self {
            peer: P::new(extents, most_held as usize),
            held: Vec::with_capacity(most_held as usize),
            lengths,
            drawn: 0,
            random,
            target: extents / 100 * percent,
            used: 0,
            extents,
            expansions,
            outcome: Outcome::default(),
        }
    }

    /// Fills the pool to its level; false where `limit` was over before.
    pub fn fill(&mut self, limit: Duration) -> bool {
        let begin = clock::worked();
        loop {
            for _ in 0..256 {
                let length = self.draw();
                if self.used + length > self.target {
                    return true;
                }
                self.allocate(length, &mut None);
            }
            if clock::worked_since(begin) > limit {
                return false;
            }
        }
    }

    /// Gives out `allocated` extents, or works until `limit` is over: the pool grows old.
    pub fn age(&mut self, allocated: u64, limit: Duration) {
        let begin = clock::worked();
        let until = self.outcome.allocated + allocated;
        while self.outcome.allocated < until && clock::worked_since(begin) < limit {
            for _ in 0..SLICE {
                self.step(&mut None);
            }
        }
    }

    #[inline]
    fn step(&mut self, latency: &mut Option<Latency>) {
        if self.expansions && !self.held.is_empty() {
            match self.random.below(10) {
                0 | 1 => return self.expand(latency),
                2 => {
                    let copied = self.random.below(self.held.len());
                    return self.make_room_for(self.held[copied].1, latency);
                }
                _ => {}
            }
        }
        let length = self.draw();
        self.make_room_for(length, latency);
    }

    #[inline]
    fn make_room_for(&mut self, length: u64, latency: &mut Option<Latency>) {
        self.evict(length, latency);
        self.allocate(length, latency);
    }

    #[inline]
    fn evict(&mut self, length: u64, latency: &mut Option<Latency>) {
        while self.used + length > self.target && !self.held.is_empty() {
            self.drop_one(latency);
        }
    }

    #[inline]
    fn drop_one(&mut self, latency: &mut Option<Latency>) {
        let victim = self.random.below(self.held.len());
        let (held, freed) = self.held.swap_remove(victim);
        let peer = &mut self.peer;
        Latency::of(latency, || peer.free(held, freed));
        self.used -= freed;
        self.outcome.calls += 1;
    }

    #[inline]
    fn allocate(&mut self, length: u64, latency: &mut Option<Latency>) {
        let peer = &mut self.peer;
        self.outcome.calls += 1;
        self.outcome.requests += 1;
        if let Some(held) = Latency::of(latency, || peer.allocate(length)) {
            self.held.push((held, length));
            self.used += length;
            self.outcome.allocated += length;
        } else {
            self.fail(length, latency);
        }
    }

    fn expand(&mut self, latency: &mut Option<Latency>) {
        let chosen = self.random.below(self.held.len());
        let (held, length) = self.held[chosen];
        let by = length.div_ceil(4);
        if self.used + by > self.target {
            return self.evict(by, latency);
        }
        let peer = &mut self.peer;
        self.outcome.calls += 1;
        self.outcome.requests += 1;
        if let Some(longer) = Latency::of(latency, || peer.expand(held, length, by)) {
            self.held[chosen] = (longer, length + by);
            self.used += by;
            self.outcome.allocated += by;
        } else {
            self.fail(by, latency);
        }
    }

    /// Volumes come and go: one goes, or a pool of many small gaps would stay as it is for ever.
    #[cold]
    fn fail(&mut self, length: u64, latency: &mut Option<Latency>) {
        if self.used + length <= self.extents {
            self.outcome.failures += 1;
        }
        if !self.held.is_empty() {
            self.drop_one(latency);
        }
    }

    #[inline]
    fn draw(&mut self) -> u64 {
        self.drawn = (self.drawn + 1) % self.lengths.len();
        self.lengths[self.drawn]
    }
}

impl<P: Peer> Subject for Churn<P> {
    fn work(&mut self, turn: Turn) -> f64 {
        let (begin, calls, worked) = (Instant::now(), self.outcome.calls, clock::worked());
        while self.outcome.calls - calls < turn.calls && begin.elapsed() < turn.limit {
            for _ in 0..SLICE {
                self.step(&mut None);
            }
        }
        clock::a_call_since(worked, self.outcome.calls - calls)
    }

    fn single_calls(&mut self, turn: Turn) -> Latency {
        let (begin, until) = (Instant::now(), self.outcome.calls + turn.calls);
        let mut latency = Some(Latency::default());
        while self.outcome.calls < until && begin.elapsed() < turn.limit {
            self.step(&mut latency);
        }
        latency.unwrap_or_default()
    }

    fn outcome(&self) -> Outcome {
        self.outcome
    }

    fn used_percent(&self) -> f64 {
        100.0 * self.used as f64 / self.extents as f64
    }

    fn free_space(&self) -> FreeSpace {
        self.peer.free_space()
    }
}
