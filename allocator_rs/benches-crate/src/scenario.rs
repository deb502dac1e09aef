//! The workloads.

use crate::random::Lengths;

/// Extents of 1 MiB in a TiB.
pub const EXTENTS_A_TIB: u64 = 1 << 20;

/// What happens to the pool.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Filled to `percent` and kept there; `expansions` as in `Churn::new`.
    Churn { lengths: Lengths, percent: u64, expansions: bool },
    /// Filled with equal runs, then emptied in the same order.
    FillAndDrain,
    /// Single extents, every second of them free; then single extents come and go.
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
    pub fn extents(&self) -> u64 {
        self.tib * EXTENTS_A_TIB
    }
}

/// All of them; a short list where `quick`.
pub fn scenarios(quick: bool) -> Vec<Scenario> {
    // 64 MiB to 64 GiB; 1 GiB to 4 TiB, but no more than a quarter of the pool.
    let power_law = |_| Lengths::PowerLaw { shortest: 64.0, longest: 65_536.0 };
    let claims =
        |tib: u32| Lengths::PowerLaw { shortest: 1024.0, longest: 262_144.0 * f64::from(tib.min(16)) };
    let sizes: &[u32] = if quick { &[1, 16] } else { &[1, 16, 256] };
    let levels = |levels: &'static [u64]| if quick { &[90] } else { levels };
    let mut scenarios = Vec::new();
    for &tib in sizes {
        let mut add = |name: String, work| scenarios.push(Scenario { name, tib: tib.into(), work });
        for &percent in levels(&[50, 90, 99]) {
            let work = Work::Churn { lengths: power_law(tib), percent, expansions: false };
            add(format!("churn {percent} %"), work);
        }
        for &percent in levels(&[10, 50, 90]) {
            let work = Work::Churn { lengths: Lengths::Ceph, percent, expansions: false };
            add(format!("ceph {percent} %"), work);
        }
        let work = Work::Churn { lengths: claims(tib), percent: 90, expansions: true };
        add("claims 90 %".into(), work);
        add("fill and drain".into(), Work::FillAndDrain);
        if tib == 1 {
            add("comb".into(), Work::Comb);
        }
    }
    scenarios
}
