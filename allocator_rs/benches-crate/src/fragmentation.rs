//! How well the free space is kept together: over several sequences of requests, for one says little.

use crate::measure::Effort;
use crate::peers::{CsiCore, Offset, Peer, TwoTrees};
use crate::random::SEED;
use crate::scenario::{Scenario, Work};
use crate::subject::{Subject, Turn};

/// Sums over all sequences.
#[derive(Clone, Copy, Debug)]
pub struct Fragmentation {
    pub peer: &'static str,
    pub requests: u64,
    /// Requests that found no place while enough extents were free.
    pub failures: u64,
    /// Free runs in the end, of all sequences together.
    pub free_runs: u64,
}

/// Ours, exact best fit and the fastest of the peers; nothing for workloads that do not churn.
pub fn fragmentation(scenario: &Scenario, effort: Effort) -> Vec<Fragmentation> {
    if !matches!(scenario.work, Work::Churn { .. }) {
        return Vec::new();
    }
    // Small pools are quick, and have few requests that fail.
    let seeds = match scenario.tib {
        1 => 16 * effort.seeds,
        16 => effort.seeds,
        _ => 1,
    };
    // All of them must do the same.
    let setup = Turn { limit: 20 * effort.setup.limit, ..effort.setup };
    vec![
        of::<CsiCore>(scenario, seeds, setup),
        of::<TwoTrees>(scenario, seeds, setup),
        of::<Offset>(scenario, seeds, setup),
    ]
}

fn of<P: Peer>(scenario: &Scenario, seeds: u64, setup: Turn) -> Fragmentation {
    let mut sum = Fragmentation { peer: P::NAME, requests: 0, failures: 0, free_runs: 0 };
    for seed in 1..=seeds {
        let Some(churn) = scenario.churn::<P>(SEED ^ seed << 32, setup) else { continue };
        sum.requests += churn.outcome().requests;
        sum.failures += churn.outcome().failures;
        sum.free_runs += churn.free_space().runs;
    }
    sum
}
