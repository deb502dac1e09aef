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

/// An entry of the list in 16 bytes, because sorting is most of the work. Its position is looked up again
/// in the one case where somebody asks.
#[derive(Clone, Copy)]
struct Entry {
    /// The first address, and in the two lowest bits the hold.
    start_and_hold: u64,
    end: u64,
}

impl Entry {
    fn new(span: Span, hold: Hold) -> Self {
        Self { start_and_hold: span.start << 2 | hold as u64, end: span.end }
    }

    fn start(self) -> u64 {
        self.start_and_hold >> 2
    }

    fn span(self) -> Span {
        Span::new(self.start(), self.end)
    }

    fn hold(self) -> Hold {
        match self.start_and_hold & 3 {
            0 => Hold::Owned,
            1 => Hold::Shared,
            _ => Hold::Quarantined,
        }
    }

    fn held(self) -> Held {
        Held { run: self.span().run(), hold: self.hold() }
    }
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
        let entries = held.iter().map(|held| Ok(Entry::new(pool.span_of(held.run)?, held.hold)));
        let mut entries = entries.collect::<Result<Vec<Entry>, PoolError>>()?;
        entries.sort_unstable_by_key(|entry| entry.start_and_hold);
        let groups: Vec<&[Entry]> =
            entries.chunk_by(|a, b| segment_of(a.start()) == segment_of(b.start())).collect();
        let mut of_segment: Vec<&[Entry]> = vec![&[]; segments.len()];
        for group in groups {
            of_segment[segment_of(group[0].start())] = group;
        }
        let expected: Vec<usize> = of_segment.iter().map(|group| gaps(group)).collect();
        pool.free.reserve(expected.iter().sum(), |segment| {
            (expected[segment], of_segment[segment].last().map_or(0, |entry| entry.start()))
        });
        for (segment, group) in of_segment.into_iter().enumerate() {
            let conflict = pool.add_group(group, pool.whole(segment));
            conflict.map_err(|(first, second)| overlap(held, first, second))?;
        }
        Ok(pool)
    }

    /// Takes over the entries of one segment, ascending by start, and frees what is between them.
    ///
    /// # Errors
    /// The first two that claim the same extents and must not.
    fn add_group(&mut self, group: &[Entry], whole: Span) -> Result<(), (Entry, Entry)> {
        let mut owners = Owners::default();
        let mut reached = whole.start;
        let mut reaching: Option<Entry> = None;
        for &entry in group {
            let span = entry.span();
            if span.start > reached {
                self.free.append(Span::new(reached, span.start));
            } else if span.start < reached
                && let Some(reaching) = reaching
                && (entry.hold(), reaching.hold()) != (Hold::Shared, Hold::Shared)
            {
                return Err((reaching, entry));
            }
            match entry.hold() {
                Hold::Owned => {}
                Hold::Shared => owners.add(span, &mut |span, count| self.shared.append(span, count)),
                Hold::Quarantined => self.quarantine.add(span),
            }
            if span.end > reached {
                reached = span.end;
                reaching = Some(entry);
            }
        }
        owners.finish(&mut |span, count| self.shared.append(span, count));
        if reached < whole.end {
            self.free.append(Span::new(reached, whole.end));
        }
        Ok(())
    }
}

/// Where the two stand in the list: two equal ones at its first and last place.
fn overlap(held: &[Held], first: Entry, second: Entry) -> PoolError {
    let (first, second) = (first.held(), second.held());
    let position = held.iter().position(|&held| held == first).unwrap_or(0);
    let last = held.iter().rposition(|&held| held == second).unwrap_or(0);
    PoolError::Overlap { first: (position, first.run), second: (last, second.run) }
}

/// How many gaps there are between the entries of one segment, at most.
fn gaps(group: &[Entry]) -> usize {
    group.windows(2).filter(|pair| pair[0].end < pair[1].start()).count() + 2
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
