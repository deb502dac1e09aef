//! Taking extents: one run, several at once, or more of a run that is there.

use std::cmp::Reverse;

use super::free::Fit;
use super::run::Span;
use super::{MAX_SEGMENT_EXTENTS, Pool, PoolError, Run};

/// What to allocate: so many extents in one run, and where it may lie.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    fit: Fit,
    room: u64,
}

impl Request {
    /// A run of `length` extents, anywhere.
    ///
    /// # Errors
    /// [`PoolError::Empty`] for a length of 0.
    pub fn new(length: u64) -> Result<Self, PoolError> {
        if length == 0 {
            return Err(PoolError::Empty);
        }
        Ok(Self { fit: Fit { length, alignment: 1 }, room: 0 })
    }

    /// The run begins at a multiple of `extents`, counted from the beginning of its segment.
    ///
    /// # Errors
    /// [`PoolError::Alignment`] unless that is a power of two up to [`MAX_SEGMENT_EXTENTS`].
    pub fn aligned_to(mut self, extents: u64) -> Result<Self, PoolError> {
        if !extents.is_power_of_two() || extents > MAX_SEGMENT_EXTENTS {
            return Err(PoolError::Alignment { extents });
        }
        self.fit.alignment = extents;
        Ok(self)
    }

    /// The run is expected to grow by `extents`: leave that much free behind it, and before it for the
    /// neighbour there, if any place has so much; else share out the longest free run.
    ///
    /// A wish, not a reservation: when the pool fills up the room is given to others.
    #[must_use]
    pub fn with_room(mut self, extents: u64) -> Self {
        self.room = extents;
        self
    }
}

impl Pool {
    /// Takes one run from nearly the shortest free run that is long enough; `None` where there is none.
    #[inline]
    #[must_use]
    pub fn allocate(&mut self, request: Request) -> Option<Run> {
        let taken = if request.room == 0 {
            self.free.take_best(request.fit)
        } else {
            self.free.take_roomy(request.fit, request.room)
        };
        taken.map(Span::run)
    }

    /// Takes one run for each of `lengths`, in their order, or nothing at all. Each begins at a multiple of
    /// `alignment`.
    ///
    /// `None` may also mean that they fit only in an arrangement that was not found: the longest are
    /// placed first, and none is moved afterwards.
    ///
    /// # Errors
    /// [`PoolError::Empty`] where a length is 0, [`PoolError::Alignment`] as for [`Request::aligned_to`].
    pub fn allocate_batch(&mut self, lengths: &[u64], alignment: u64) -> Result<Option<Vec<Run>>, PoolError> {
        Request::new(1)?.aligned_to(alignment)?;
        if lengths.contains(&0) {
            return Err(PoolError::Empty);
        }
        let wanted = lengths.iter().try_fold(0_u64, |sum, &length| sum.checked_add(length));
        if wanted.is_none_or(|extents| extents > self.free_extents()) {
            return Ok(None);
        }
        let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
        longest_first.sort_by_key(|&index| Reverse(lengths[index]));
        let mut runs = vec![Run { segment: 0, start: 0, length: 0 }; lengths.len()];
        for (placed, &index) in longest_first.iter().enumerate() {
            if let Some(span) = self.free.take_best(Fit { length: lengths[index], alignment }) {
                runs[index] = span.run();
                continue;
            }
            for &index in &longest_first[..placed] {
                self.put_back(runs[index]);
            }
            return Ok(None);
        }
        Ok(Some(runs))
    }

    /// How many extents behind `run` are free without a gap.
    ///
    /// # Errors
    /// As for [`Pool::free`].
    pub fn room_behind(&mut self, run: Run) -> Result<u64, PoolError> {
        let span = self.span_of(run)?;
        self.check_not_quarantined(span)?;
        let behind = self.free.following(span);
        let behind = behind.map_err(|free| PoolError::Free { run, free: free.run() })?;
        Ok(behind.map_or(0, Span::length))
    }

    /// Lengthens `run` in its place by the `extents` behind it; `None` where not all of them are free.
    ///
    /// # Errors
    /// As for [`Pool::free`].
    pub fn extend(&mut self, run: Run, extents: u64) -> Result<Option<Run>, PoolError> {
        let span = self.span_of(run)?;
        self.check_not_quarantined(span)?;
        let extended = self.free.take_behind(span, extents);
        let extended = extended.map_err(|free| PoolError::Free { run, free: free.run() })?;
        Ok(extended.then(|| Run { length: run.length + extents, ..run }))
    }

    /// Undoes an allocation of this very call.
    pub(super) fn put_back(&mut self, run: Run) {
        let given = self.free.give(run.segment, run.start, run.length);
        assert!(given, "{run} were taken a moment ago");
    }
}
