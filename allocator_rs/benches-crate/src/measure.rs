//! One allocator on one workload.

use std::time::{Duration, Instant};

use crate::churn::Churn;
use crate::clock;
use crate::latency::Latency;
use crate::peers::{FreeSpace, Peer};
use crate::random::Random;
use crate::scenario::{Scenario, Work};

/// What was measured; figures that a workload has not are 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Nanoseconds a call, the workload's own cost included.
    pub nanoseconds: f64,
    pub p50: u32,
    pub p99: u32,
    pub p999: u32,
    pub calls: u64,
    /// Requests that found no place though enough extents were free.
    pub failures: u64,
    /// How full the pool was in the end, in percent.
    pub used_percent: f64,
    pub free: FreeSpace,
}

/// How long one measurement may take.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub calls: u64,
    pub limit: Duration,
}

/// `None` where the allocator is too slow to get the pool ready within the limit.
pub fn measure<P: Peer>(scenario: &Scenario, effort: Effort) -> Option<Figures> {
    match scenario.work {
        Work::Churn { lengths, percent, expansions } => {
            let mut churn = Churn::<P>::new(scenario.extents(), percent, lengths, expansions);
            if !churn.fill(effort.limit) {
                return None;
            }
            churn.age(3 * scenario.extents(), effort.limit);
            let nanoseconds = churn.measure(effort.calls, effort.limit);
            let (calls, failures) = (churn.outcome.calls, churn.outcome.failures_with_space);
            let free = churn.peer().free_space();
            let used_percent = churn.used_percent();
            let latency = churn.single_calls(effort.calls / 8, effort.limit);
            Some(with_latency(
                Figures { nanoseconds, calls, failures, used_percent, free, ..Figures::default() },
                latency,
            ))
        }
        Work::FillAndDrain => fill_and_drain::<P>(scenario.extents(), effort),
        Work::Comb => comb::<P>(scenario.extents(), effort),
    }
}

const RUNS: usize = 1 << 16;

fn fill_and_drain<P: Peer>(extents: u64, effort: Effort) -> Option<Figures> {
    let length = extents / RUNS as u64;
    let mut peer = P::new(extents, RUNS);
    let mut held = Vec::with_capacity(RUNS);
    let mut rounds = Vec::new();
    let begin = Instant::now();
    while rounds.len() < 12 && (rounds.is_empty() || begin.elapsed() < effort.limit) {
        let worked = clock::worked();
        for _ in 0..RUNS {
            held.push(peer.allocate(length)?);
            if held.len() % 1024 == 0 && begin.elapsed() > 2 * effort.limit {
                return None;
            }
        }
        for held in held.drain(..) {
            peer.free(held, length);
        }
        rounds.push(clock::a_call_since(worked, 2 * RUNS as u64));
    }
    let calls = 2 * (RUNS * rounds.len()) as u64;
    let nanoseconds = clock::lower_quartile(&mut rounds);
    Some(Figures { nanoseconds, calls, free: peer.free_space(), ..Figures::default() })
}

fn comb<P: Peer>(extents: u64, effort: Effort) -> Option<Figures> {
    let begin = Instant::now();
    let late = || begin.elapsed() > effort.limit;
    let mut peer = P::new(extents, extents as usize);
    let mut held = Vec::with_capacity(extents as usize);
    for count in 0..extents {
        held.push(peer.allocate(1)?);
        if count % 1024 == 0 && late() {
            return None;
        }
    }
    let mut kept = Vec::with_capacity(extents as usize / 2);
    for (index, held) in held.into_iter().enumerate() {
        if index % 2 == 0 {
            kept.push(held);
            continue;
        }
        peer.free(held, 1);
        if index % 1024 == 1 && late() {
            return None;
        }
    }
    let free = peer.free_space();
    let mut random = Random::new(1);
    let mut step = |latency: &mut Option<Latency>| {
        let chosen = random.below(kept.len());
        Latency::of(latency, || peer.free(kept[chosen], 1));
        if let Some(held) = Latency::of(latency, || peer.allocate(1)) {
            kept[chosen] = held;
        }
    };
    let (mut slices, mut calls, begin) = (Vec::new(), 0, Instant::now());
    while calls < effort.calls && begin.elapsed() < effort.limit {
        let worked = clock::worked();
        (0..1024).for_each(|_| step(&mut None));
        slices.push(clock::a_call_since(worked, 2048));
        calls += 2048;
    }
    let mut latency = Some(Latency::default());
    let begin = Instant::now();
    for _ in 0..effort.calls / 16 {
        step(&mut latency);
        if begin.elapsed() > effort.limit {
            break;
        }
    }
    let nanoseconds = clock::lower_quartile(&mut slices);
    let figures = Figures { nanoseconds, calls, used_percent: 50.0, free, ..Figures::default() };
    Some(with_latency(figures, latency.unwrap_or_default()))
}

fn with_latency(figures: Figures, mut latency: Latency) -> Figures {
    let [p50, p99, p999] = [500, 990, 999].map(|permille| latency.permille(permille));
    Figures { p50, p99, p999, ..figures }
}
