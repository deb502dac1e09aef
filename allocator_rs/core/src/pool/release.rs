//! Giving extents back, and extents with several owners.

use super::run::Span;
use super::{Pool, PoolError, Run};

impl Pool {
    /// Takes one owner from `run`; extents that have no other become free. Answers with their number.
    ///
    /// # Errors
    /// [`PoolError::Free`] or [`PoolError::Quarantined`] where an extent of the run is not in use,
    /// [`PoolError::OutOfBounds`], [`PoolError::NoSuchSegment`], [`PoolError::Empty`]. Nothing was
    /// changed then.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the answer then stays in registers")]
    pub fn free(&mut self, run: Run) -> Result<u64, PoolError> {
        if !self.shared.is_empty() || !self.quarantine.is_empty() {
            return self.free_among_others(run);
        }
        if self.free.give(run.segment, run.start, run.length) {
            return Ok(run.length);
        }
        Err(self.why_not_used(run))
    }

    #[cold]
    #[inline(never)]
    fn why_not_used(&mut self, run: Run) -> PoolError {
        let reason = self.span_of(run).and_then(|span| self.check_in_use(span));
        reason.expect_err("a run in use could have been freed")
    }

    /// As [`Pool::free`] in a pool with shared or quarantined extents.
    #[inline(never)]
    fn free_among_others(&mut self, run: Run) -> Result<u64, PoolError> {
        let span = self.span_of(run)?;
        self.check_in_use(span)?;
        let ownerless = self.shared.remove_owner(span);
        for part in &ownerless {
            self.put_back(part.run());
        }
        self.free.give_memory_back(run.segment);
        Ok(ownerless.iter().map(|part| part.length()).sum())
    }

    /// Takes one owner from each of `runs`, in their order.
    ///
    /// # Errors
    /// The position of the first run that is refused, and why (as for [`Pool::free`]). Those before it
    /// were freed, it and those behind it were not.
    pub fn free_batch(&mut self, runs: impl IntoIterator<Item = Run>) -> Result<u64, (usize, PoolError)> {
        let mut freed = 0;
        for (position, run) in runs.into_iter().enumerate() {
            freed += self.free(run).map_err(|error| (position, error))?;
        }
        Ok(freed)
    }

    /// As [`Pool::free`], but extents without owners go to the quarantine; answers with their runs.
    ///
    /// # Errors
    /// As for [`Pool::free`].
    pub fn quarantine(&mut self, run: Run) -> Result<Vec<Run>, PoolError> {
        let span = self.span_of(run)?;
        self.check_in_use(span)?;
        let ownerless = if self.shared.is_empty() { vec![span] } else { self.shared.remove_owner(span) };
        for &part in &ownerless {
            self.quarantine.add(part);
        }
        Ok(ownerless.into_iter().map(Span::run).collect())
    }

    /// Makes quarantined extents free, once their old data is gone.
    ///
    /// # Errors
    /// [`PoolError::NotQuarantined`], and those of [`Pool::free`] about bounds.
    pub fn reclaim(&mut self, run: Run) -> Result<(), PoolError> {
        let span = self.span_of(run)?;
        if !self.quarantine.remove(span) {
            return Err(PoolError::NotQuarantined { run });
        }
        self.put_back(run);
        self.free.give_memory_back(run.segment);
        Ok(())
    }

    /// Adds an owner to every extent of `run`.
    ///
    /// # Errors
    /// As for [`Pool::free`].
    pub fn share(&mut self, run: Run) -> Result<(), PoolError> {
        let span = self.span_of(run)?;
        self.check_in_use(span)?;
        self.shared.add_owner(span);
        Ok(())
    }

    fn check_in_use(&mut self, span: Span) -> Result<(), PoolError> {
        self.check_not_quarantined(span)?;
        self.check_not_free(span)
    }

    fn check_not_free(&mut self, span: Span) -> Result<(), PoolError> {
        match self.free.meeting(span) {
            Some(free) => Err(PoolError::Free { run: span.run(), free: free.run() }),
            None => Ok(()),
        }
    }

    pub(super) fn check_not_quarantined(&self, span: Span) -> Result<(), PoolError> {
        match self.quarantine.meeting(span) {
            Some(found) => Err(PoolError::Quarantined { run: span.run(), quarantined: found.run() }),
            None => Ok(()),
        }
    }
}
