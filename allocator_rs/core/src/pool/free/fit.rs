//! Which free run to take: nearly the shortest that fits, found in bounded time.

use std::collections::BinaryHeap;

use super::FreeRuns;
use super::bins::{BINS, FIRST_MIXED, bin_of};
use crate::pool::run::{Span, offset_of};

/// Runs of a bin that are looked at for one that is long enough. The rest of a bin is looked at only where
/// the request would fail otherwise.
const SCAN: usize = 16;

/// What a place must offer.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    /// Extents.
    pub length: u64,
    /// The first extent is a multiple of this power of two.
    pub alignment: u64,
}

impl Fit {
    /// Where in `run` it would begin.
    #[inline]
    fn start_in(self, run_start: u64, run_end: u64) -> Option<u64> {
        let start = (run_start + self.alignment - 1) & !(self.alignment - 1);
        (start < run_end && run_end - start >= self.length).then_some(start)
    }
}

impl FreeRuns {
    /// Takes `length` extents from the front of nearly the shortest free run that has as many; answers with the first.
    pub fn take_shortest(&mut self, length: u64) -> Option<u64> {
        let own = bin_of(length);
        let bin = self.bins.filled_from(own)?;
        // Every run is long enough but in the request's own bin, and there as well below 512 extents.
        match self.take_front_of_newest(bin, length) {
            None => self.best_of_own(own, length).map(|id| self.take_front(id, length)),
            start => start,
        }
    }

    /// Takes `fit` from nearly the shortest free run that has it, from its front.
    #[inline]
    pub fn take_best(&mut self, fit: Fit) -> Option<Span> {
        if fit.alignment == 1 {
            return self.take_shortest(fit.length).map(|start| Span::new(start, start + fit.length));
        }
        self.take_aligned(fit)
    }

    fn take_aligned(&mut self, fit: Fit) -> Option<Span> {
        let id = self.best_aligned(fit)?;
        let start = fit.start_in(self.nodes[id].start, self.nodes[id].end)?;
        let span = Span::new(start, start + fit.length);
        self.take(id, span);
        Some(span)
    }

    /// Takes `fit` such that free extents are left on either side, `room` of them where there are as many.
    ///
    /// The room before it is for whatever lies there and may want to grow as well.
    pub fn take_roomy(&mut self, fit: Fit, room: u64) -> Option<Span> {
        let wanted = fit.length.saturating_add(room.saturating_mul(2)).saturating_add(fit.alignment - 1);
        let id = self
            .best(wanted)
            .or_else(|| self.nearly_longest())
            .filter(|&id| self.nodes[id].length() >= fit.length);
        let Some(id) = id else { return self.take_best(fit) };
        let (start, end) = (self.nodes[id].start, self.nodes[id].end);
        // Nobody is in front of a segment's first extent.
        let nobody_before = offset_of(start) == 0;
        let skip = if nobody_before { 0 } else { room.min((end - start - fit.length) / 2) };
        let place = fit.start_in(start + skip, end).or_else(|| fit.start_in(start, end));
        let Some(place) = place else { return self.take_best(fit) };
        let span = Span::new(place, place + fit.length);
        self.take(id, span);
        Some(span)
    }

    /// The longest free run.
    pub fn longest_span(&self) -> Option<Span> {
        self.longest().map(|id| self.span(id))
    }

    /// A run of the first bin that has one that is long enough.
    fn best(&mut self, length: u64) -> Option<u32> {
        let own = bin_of(length);
        let bin = self.bins.filled_from(own)?;
        let id = self.bins.newest(bin);
        // Every run is long enough but in the request's own bin, and there as well below 512 extents.
        if self.nodes[id].length() >= length { Some(id) } else { self.best_of_own(own, length) }
    }

    /// As `best`, where the newest run of the request's own bin is too short.
    #[inline(never)]
    fn best_of_own(&mut self, own: usize, length: u64) -> Option<u32> {
        let fits = |&id: &u32| self.nodes[id].length() >= length;
        let fitting = self.bins.members(&self.nodes, own).take(SCAN).find(fits);
        if fitting.is_some() {
            return fitting;
        }
        match self.bins.filled_from(own + 1) {
            Some(bin) => Some(self.bins.newest(bin)),
            None => self.last_resort(own, length),
        }
    }

    #[cold]
    fn last_resort(&mut self, own: usize, length: u64) -> Option<u32> {
        if self.bins.longest() < length {
            return None;
        }
        let found = self.shortest_fitting(own, length);
        if found.is_none() {
            // The bound was too high: the next request like this one costs nothing.
            self.bins.note_longest(length - 1);
        }
        found
    }

    fn best_aligned(&mut self, fit: Fit) -> Option<u32> {
        // Behind this bin every run is long enough wherever it begins.
        let sure = (bin_of(fit.length.saturating_add(fit.alignment - 1)) + 1).min(BINS);
        let mut number = bin_of(fit.length);
        let first = number;
        while let Some(bin) = self.bins.filled_from(number) {
            if let Some(id) = self.shortest_aligned(bin, fit, SCAN) {
                return Some(id);
            }
            number = bin + 1;
            if bin >= sure {
                break;
            }
        }
        (first..sure).find_map(|bin| self.shortest_aligned(bin, fit, usize::MAX))
    }

    /// The shortest run of a bin that has at least `length`.
    fn shortest_fitting(&self, bin: usize, length: u64) -> Option<u32> {
        let fitting = self.bins.members(&self.nodes, bin).filter(|&id| self.nodes[id].length() >= length);
        fitting.min_by_key(|&id| self.nodes[id].length())
    }

    fn shortest_aligned(&self, bin: usize, fit: Fit, scan: usize) -> Option<u32> {
        let members = self.bins.members(&self.nodes, bin).take(scan);
        let fitting = members.filter(|&id| fit.start_in(self.nodes[id].start, self.nodes[id].end).is_some());
        fitting.min_by_key(|&id| self.nodes[id].length())
    }

    fn longest(&self) -> Option<u32> {
        self.longest_of_last_bin(usize::MAX)
    }

    /// A run that is shorter than the longest by a 256th at most.
    fn nearly_longest(&self) -> Option<u32> {
        self.longest_of_last_bin(SCAN)
    }

    /// The longest among the `scan` newest runs of the last bin that has any.
    fn longest_of_last_bin(&self, scan: usize) -> Option<u32> {
        let bin = self.bins.filled_up_to(usize::MAX)?;
        let scan = if bin < FIRST_MIXED { 1 } else { scan };
        self.bins.members(&self.nodes, bin).take(scan).max_by_key(|&id| self.nodes[id].length())
    }

    /// All free runs, the longest first; whoever takes the first few does not look at all others of their length.
    pub fn longest_first(&self) -> impl Iterator<Item = Span> + use<'_> {
        let bins = std::iter::successors(self.bins.filled_up_to(usize::MAX), |&bin| {
            bin.checked_sub(1).and_then(|below| self.bins.filled_up_to(below))
        });
        let ids = bins.flat_map(|bin| {
            let members = self.bins.members(&self.nodes, bin);
            let (mixed, equal) =
                if bin < FIRST_MIXED { (None, Some(members)) } else { (Some(members), None) };
            let lengths = mixed.into_iter().flatten().map(|id| (self.nodes[id].length(), id));
            let mut by_length: BinaryHeap<(u64, u32)> = lengths.collect();
            let longest_first = std::iter::from_fn(move || by_length.pop().map(|(_, id)| id));
            equal.into_iter().flatten().chain(longest_first)
        });
        ids.map(|id| self.span(id))
    }
}
