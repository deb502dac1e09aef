//! A pool from what its owners have written down, after a crash or at every start.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::run::{Span, segment_of};
use super::{Pool, PoolError, Run};

/// How a run is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// By one owner alone.
    Owned,
    /// By an owner beside others: it may overlap other shared runs, and each counts as one owner.
    Shared,
    /// By nobody any more, but not zeroed yet.
    Quarantined,
}

/// A run that is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where it lies.
    pub run: Run,
    /// How it is held.
    pub hold: Hold,
}

/// An entry of the list, as addresses.
#[derive(Clone, Copy)]
struct Entry {
    span: Span,
    position: u32,
    hold: Hold,
}

impl Pool {
    /// Makes a pool from its segments' lengths and every run that is not free, in any order.
    ///
    /// # Errors
    /// [`PoolError::Overlap`] with positions and runs where two of the list claim the same extents and
    /// are not both shared; [`PoolError::OutOfBounds`] and the like; those of [`Pool::new`] and
    /// [`Pool::add_segment`].
    pub fn rebuild(extent_bytes: u64, segments: &[u64], held: &[Held]) -> Result<Self, PoolError> {
        let mut pool = Self::new(extent_bytes)?;
        for &extents in segments {
            pool.add_used_segment(extents)?;
        }
        let mut entries = pool.entries(held)?;
        entries.sort_unstable_by_key(|entry| entry.span.start);
        let groups = || entries.chunk_by(|a, b| segment_of(a.span.start) == segment_of(b.span.start));
        let mut expected = vec![1; segments.len()];
        for group in groups() {
            expected[segment_of(group[0].span.start)] += gaps(group);
        }
        pool.free.reserve(expected.iter().sum(), |segment| expected[segment]);
        let mut untouched = 0;
        for group in groups() {
            let segment = segment_of(group[0].span.start);
            (untouched..segment).for_each(|empty| pool.free.give_apart(pool.whole(empty)));
            pool.add_group(held, group, pool.whole(segment))?;
            untouched = segment + 1;
        }
        (untouched..segments.len()).for_each(|empty| pool.free.give_apart(pool.whole(empty)));
        Ok(pool)
    }

    fn entries(&self, held: &[Held]) -> Result<Vec<Entry>, PoolError> {
        let entry = |(position, held): (usize, &Held)| {
            Ok(Entry { span: self.span_of(held.run)?, position: position as u32, hold: held.hold })
        };
        held.iter().enumerate().map(entry).collect()
    }

    /// Takes over the entries of one segment, ascending by start, and frees what is between them.
    fn add_group(&mut self, held: &[Held], group: &[Entry], whole: Span) -> Result<(), PoolError> {
        let mut owners = Owners::default();
        let mut reached = whole.start;
        let mut reaching = group[0];
        for &entry in group {
            if entry.span.start > reached {
                self.free.give_apart(Span::new(reached, entry.span.start));
            } else if entry.span.start < reached
                && (entry.hold, reaching.hold) != (Hold::Shared, Hold::Shared)
            {
                let named = |entry: Entry| (entry.position as usize, held[entry.position as usize].run);
                return Err(PoolError::Overlap { first: named(reaching), second: named(entry) });
            }
            match entry.hold {
                Hold::Owned => {}
                Hold::Shared => owners.add(entry.span, &mut |span, count| self.shared.append(span, count)),
                Hold::Quarantined => self.quarantine.add(entry.span),
            }
            if entry.span.end > reached {
                reached = entry.span.end;
                reaching = entry;
            }
        }
        owners.finish(&mut |span, count| self.shared.append(span, count));
        if reached < whole.end {
            self.free.give_apart(Span::new(reached, whole.end));
        }
        Ok(())
    }
}

/// How many gaps there are between the entries of one segment, at most.
fn gaps(group: &[Entry]) -> usize {
    group.windows(2).filter(|pair| pair[0].span.end < pair[1].span.start).count() + 2
}

/// Counts the owners of shared runs in one sweep over them, ascending by start.
#[derive(Default)]
struct Owners {
    /// Ends of the runs that cover the position, the next one on top.
    ends: BinaryHeap<Reverse<u64>>,
    position: u64,
}

impl Owners {
    fn add(&mut self, span: Span, counted: &mut impl FnMut(Span, u64)) {
        self.advance(span.start, counted);
        self.position = span.start;
        self.ends.push(Reverse(span.end));
    }

    fn finish(&mut self, counted: &mut impl FnMut(Span, u64)) {
        self.advance(u64::MAX, counted);
    }

    /// Reports every piece up to `until`, each with the number of runs that cover it.
    fn advance(&mut self, until: u64, counted: &mut impl FnMut(Span, u64)) {
        while let Some(&Reverse(end)) = self.ends.peek() {
            let piece_end = end.min(until);
            if self.position < piece_end {
                counted(Span::new(self.position, piece_end), self.ends.len() as u64);
                self.position = piece_end;
            }
            if end > until {
                return;
            }
            self.ends.pop();
        }
    }
}
