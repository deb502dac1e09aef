//! Is the pool's own account consistent? For tests, for debugging, and for `csi-core pool check`.

use super::Pool;
use super::run::{Span, segment_of};

impl Pool {
    /// Looks at every free, quarantined and shared run; takes time in proportion to their number.
    ///
    /// # Errors
    /// The first contradiction found, for people: a fault of this crate or of the machine's memory.
    pub fn check(&self) -> Result<(), String> {
        self.free.check()?;
        let mut quarantined: Vec<Span> = self.quarantine.spans().collect();
        check_account("quarantined", self.quarantine.extents(), quarantined.iter().copied())?;
        check_account("shared", self.shared.extents(), self.shared.spans().map(|(span, _)| span))?;
        if let Some((span, owners)) = self.shared.spans().find(|&(_, owners)| owners < 2) {
            return Err(format!("{} are shared by {owners} owners", span.run()));
        }
        let shared = self.shared.spans().map(|(span, _)| span);
        let mut all: Vec<Span> = self.free.spans().chain(quarantined.drain(..)).chain(shared).collect();
        all.sort_unstable();
        for pair in all.windows(2) {
            if pair[0].end > pair[1].start {
                return Err(format!("{} and {} overlap", pair[0].run(), pair[1].run()));
            }
        }
        match all.iter().find(|span| span.end > self.free.segment_end(segment_of(span.start))) {
            Some(span) => Err(format!("{} reach beyond their segment", span.run())),
            None => Ok(()),
        }
    }
}

fn check_account(kind: &str, counted: u64, spans: impl Iterator<Item = Span>) -> Result<(), String> {
    let found: u64 = spans.map(Span::length).sum();
    if found == counted { Ok(()) } else { Err(format!("{found} {kind} extents, but {counted} were counted")) }
}
