//! The last resort: a volume in several runs.

use super::allocate::Request;
use super::run::Span;
use super::{Pool, PoolError, Run};

impl Pool {
    /// Takes `length` extents in as few runs as can be, and in `max_runs` at most; `None` where that is
    /// too few or the pool too full.
    ///
    /// One run where one is long enough; else the longest free runs, and for the rest of it nearly the
    /// shortest free run that is long enough.
    ///
    /// # Errors
    /// [`PoolError::Empty`] for a length of 0.
    pub fn allocate_scattered(
        &mut self,
        length: u64,
        max_runs: usize,
    ) -> Result<Option<Vec<Run>>, PoolError> {
        let request = Request::new(length)?;
        if max_runs == 0 || length > self.free_extents() {
            return Ok(None);
        }
        if let Some(run) = self.allocate(request) {
            return Ok(Some(vec![run]));
        }
        let Some(longest) = self.longest_covering(length, max_runs) else { return Ok(None) };
        let Some((last, whole)) = longest.split_last() else { return Ok(None) };
        let mut runs = Vec::with_capacity(longest.len());
        for &span in whole {
            self.free.take_at(span);
            runs.push(span.run());
        }
        let rest = length - whole.iter().map(|span| span.length()).sum::<u64>();
        let run = self.allocate(Request::new(rest)?).unwrap_or_else(|| {
            let front = Span::new(last.start, last.start + rest);
            self.free.take_at(front);
            front.run()
        });
        runs.push(run);
        Ok(Some(runs))
    }

    /// The longest free runs that have `length` extents together, the longest first.
    fn longest_covering(&self, length: u64, max_runs: usize) -> Option<Vec<Span>> {
        let mut chosen: Vec<Span> = Vec::new();
        let mut covered = 0;
        for span in self.free.longest_first().take(max_runs) {
            chosen.push(span);
            covered += span.length();
            if covered >= length {
                return Some(chosen);
            }
        }
        None
    }
}
