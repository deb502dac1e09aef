//! The workloads.

use crate::churn::Churn;
use crate::comb::Comb;
use crate::peers::Peer;
use crate::random::{Lengths, SEED};
use crate::sequence::FillAndDrain;
use crate::subject::{Subject, Turn};

/// Extents of 1 MiB in a TiB.
const EXTENTS_A_TIB: u64 = 1 << 20;

/// What happens to the pool.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Filled to `percent` and kept there; `expansions` as in `Churn::new`.
    Churn { lengths: Lengths, percent: u64, expansions: bool },
    /// Filled with equal runs, then emptied in the same order.
    FillAndDrain,
    /// Equal runs, every second of them free; then such runs come and go.
    Comb,
}

/// A workload on a pool of one size.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    pub tib: u64,
    pub work: Work,
}

impl Scenario {
    /// A pool of this scenario that has grown old; `None` where the allocator needs longer for it than
    /// `setup` allows.
    pub fn start<P: Peer + 'static>(&self, setup: Turn) -> Option<Box<dyn Subject>> {
        match self.work {
            Work::Churn { .. } => Some(Box::new(self.churn::<P>(SEED, setup)?)),
            Work::FillAndDrain => Some(Box::new(FillAndDrain::<P>::new(self.extents(), setup)?)),
            Work::Comb => Some(Box::new(Comb::<P>::new(self.extents(), setup)?)),
        }
    }

    /// The churn of this scenario: filled, then three times its size given out.
    pub fn churn<P: Peer>(&self, seed: u64, setup: Turn) -> Option<Churn<P>> {
        let Work::Churn { lengths, percent, expansions } = self.work else { return None };
        let mut churn = Churn::<P>::new(self.extents(), percent, lengths, expansions, seed);
        let filled = churn.fill(setup.limit);
        churn.age(3 * self.extents(), setup.limit);
        filled.then_some(churn)
    }

    fn extents(&self) -> u64 {
        self.tib * EXTENTS_A_TIB
    }
}

/// All of them; a short list where `short`.
pub fn scenarios(short: bool) -> Vec<Scenario> {
    // 64 MiB to 64 GiB; 1 GiB to 4 TiB, but no more than a quarter of the pool.
    let volumes = Lengths::PowerLaw { shortest: 64.0, longest: 65_536.0 };
    let claims =
        |tib: u32| Lengths::PowerLaw { shortest: 1024.0, longest: 262_144.0 * f64::from(tib.min(16)) };
    let sizes: &[u32] = if short { &[1, 16] } else { &[1, 16, 256] };
    let levels = |all: &'static [u64]| if short { &[90] } else { all };
    let mut scenarios = Vec::new();
    for &tib in sizes {
        let mut add = |name: String, work| scenarios.push(Scenario { name, tib: tib.into(), work });
        let churn = |lengths, percent, expansions| Work::Churn { lengths, percent, expansions };
        for &percent in levels(&[50, 90, 99]) {
            add(format!("churn {percent} %"), churn(volumes, percent, false));
        }
        for &percent in levels(&[10, 50, 90]) {
            add(format!("ceph {percent} %"), churn(Lengths::Ceph, percent, false));
        }
        add("claims 90 %".into(), churn(claims(tib), 90, true));
        add("fill and drain".into(), Work::FillAndDrain);
        add("comb".into(), Work::Comb);
    }
    scenarios
}
