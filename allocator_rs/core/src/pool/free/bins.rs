//! Free runs by length: segregated fit with 256 bins an octave.

use std::hint::select_unpredictable;

use super::node::{NIL, Nodes, Row};
use crate::pool::MAX_SEGMENT_EXTENTS;

/// Bins an octave, as a power of two.
const FINENESS: u32 = 8;
const BINS_AN_OCTAVE: u64 = 1 << FINENESS;
/// The first bin that has runs of several lengths.
pub const FIRST_MIXED: usize = 2 * BINS_AN_OCTAVE as usize;
pub const BINS: usize = bin_of(MAX_SEGMENT_EXTENTS) + 1;
/// As many, rounded up to a power of two: what is taken modulo that needs no check of bounds.
const SLOTS: usize = BINS.next_power_of_two();
const WORDS: usize = SLOTS / 64;
/// Words that say which words of the above are not 0.
const SUMMARY_WORDS: usize = WORDS.div_ceil(64);

/// The bin of a length: a bin of its own below 512 extents, one 256th of an octave above.
#[inline]
pub const fn bin_of(length: u64) -> usize {
    let shift = (length | BINS_AN_OCTAVE).ilog2() - FINENESS;
    ((shift << FINENESS) as u64 + (length >> shift)) as usize
}

/// Which bins have runs, and which. The runs of a bin are a list, the newest first.
///
/// Runs come and go without a branch that depends on what the list looks like: a processor that guesses such a
/// branch wrong loses more time than all the rest takes.
#[derive(Debug)]
pub struct Bins {
    /// Which words of `filled` are not 0.
    summary: [u64; SUMMARY_WORDS],
    /// Which bins are not empty.
    filled: [u64; WORDS],
    /// The newest run of each bin, or else `NIL`.
    newest: Box<[u32; SLOTS]>,
    /// No run is longer: what a failed search found out stays known until a longer run comes.
    longest: u64,
}

impl Bins {
    pub fn new() -> Self {
        let newest = vec![NIL; SLOTS].into_boxed_slice().try_into();
        Self {
            summary: [0; SUMMARY_WORDS],
            filled: [0; WORDS],
            newest: newest.expect("as many as there are slots"),
            longest: 0,
        }
    }

    /// Files a run under its length.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    pub fn link(&mut self, nodes: &mut Row, id: u32, length: u64) {
        self.push(nodes, id, bin_of(length));
        self.longest = self.longest.max(length);
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    fn push(&mut self, nodes: &mut Row, id: u32, bin: usize) {
        let bin = bin % SLOTS;
        let older = std::mem::replace(&mut self.newest[bin], id);
        let node = &mut nodes[id];
        node.bin_previous = NIL;
        node.bin_next = older;
        nodes[older].bin_previous = id;
        let word = &mut self.filled[bin >> 6];
        let was_empty = *word == 0;
        *word |= 1 << (bin & 63);
        if was_empty {
            self.summary[bin >> 12] |= 1 << (bin >> 6 & 63);
        }
    }

    /// Takes a run out of its bin.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    pub fn unlink(&mut self, nodes: &mut Row, id: u32, length: u64) {
        let bin = bin_of(length) % SLOTS;
        let node = &nodes[id];
        let (newer, older) = (node.bin_previous, node.bin_next);
        nodes[newer].bin_next = older;
        nodes[older].bin_previous = newer;
        let newest = &mut self.newest[bin];
        *newest = select_unpredictable(newer == NIL, older, *newest);
        self.note_emptied((newer | older) == NIL, bin);
    }

    /// Takes its newest run, which is `id`, out of a bin.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    pub fn pop(&mut self, nodes: &mut Row, id: u32, bin: usize) {
        let bin = bin % SLOTS;
        let older = nodes[id].bin_next;
        nodes[older].bin_previous = NIL;
        self.newest[bin] = older;
        self.note_emptied(older == NIL, bin);
    }

    /// The newest run of a bin has become shorter: `rest` extents.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    pub fn shorten(&mut self, nodes: &mut Row, id: u32, bin: usize, rest: u64) {
        let new = bin_of(rest);
        if new != bin {
            self.pop(nodes, id, bin);
            self.push(nodes, id, new);
        }
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    fn note_emptied(&mut self, emptied: bool, bin: usize) {
        let word = &mut self.filled[bin >> 6];
        *word &= !(u64::from(emptied) << (bin & 63));
        if *word == 0 {
            self.summary[bin >> 12] &= !(1 << (bin >> 6 & 63));
        }
    }

    /// The first bin from `number` on that is not empty.
    #[inline]
    pub fn filled_from(&self, number: usize) -> Option<usize> {
        let word = number >> 6;
        let rest = self.filled.get(word)? & (u64::MAX << (number & 63));
        if rest != 0 {
            return Some(word << 6 | rest.trailing_zeros() as usize);
        }
        let mut summary = number >> 12;
        let mut words = self.summary[summary] & (u64::MAX << (word & 63) << 1);
        while words == 0 {
            summary += 1;
            words = *self.summary.get(summary)?;
        }
        let word = summary << 6 | words.trailing_zeros() as usize;
        Some(word << 6 | self.filled[word].trailing_zeros() as usize)
    }

    /// The last bin up to `number` that is not empty.
    pub fn filled_up_to(&self, number: usize) -> Option<usize> {
        let number = number.min(BINS - 1);
        let rest = self.filled[number >> 6] & (u64::MAX >> (63 - (number & 63)));
        if rest != 0 {
            return Some(number >> 6 << 6 | rest.ilog2() as usize);
        }
        let word = (0..number >> 6).rev().find(|&word| self.filled[word] != 0)?;
        Some(word << 6 | self.filled[word].ilog2() as usize)
    }

    /// The newest run of a bin that is not empty.
    #[inline]
    pub fn newest(&self, bin: usize) -> u32 {
        self.newest[bin % SLOTS]
    }

    /// The runs of a bin, the newest first.
    #[inline]
    pub fn members<'a>(&self, nodes: &'a Nodes, bin: usize) -> impl Iterator<Item = u32> + use<'a> {
        debug_assert!(bin < BINS);
        let run = |id: u32| (id != NIL).then_some(id);
        std::iter::successors(run(self.newest(bin)), move |&id| run(nodes[id].bin_next))
    }

    /// No run is longer than this; there may be none at all.
    #[inline]
    pub fn longest(&self) -> u64 {
        self.longest
    }

    /// Notes that no run is longer than this.
    pub fn note_longest(&mut self, length: u64) {
        self.longest = length;
    }

    /// Takes note of new numbers of all runs, by the old ones.
    pub fn renumber(&mut self, numbers: &[u32]) {
        for id in self.newest.iter_mut() {
            *id = numbers[*id as usize];
        }
    }

    /// Bytes of memory behind this, whatever the runs.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(self.newest.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BINS, BINS_AN_OCTAVE, FINENESS, FIRST_MIXED, bin_of};
    use crate::pool::MAX_SEGMENT_EXTENTS;

    /// The shortest length of a bin.
    fn shortest_of(bin: usize) -> u64 {
        if bin < BINS_AN_OCTAVE as usize {
            return bin as u64;
        }
        let shift = (bin >> FINENESS) - 1;
        (BINS_AN_OCTAVE | (bin as u64 & (BINS_AN_OCTAVE - 1))) << shift
    }

    #[test]
    fn bins_are_exact_below_512() {
        for length in 0..FIRST_MIXED {
            assert_eq!(bin_of(length as u64), length);
        }
        assert_eq!(FIRST_MIXED, 512);
        assert_eq!(bin_of(512), 512);
        assert_eq!(bin_of(513), 512);
        assert_eq!(BINS, 7425);
    }

    proptest! {
        #[test]
        fn a_bin_begins_at_its_shortest(length in 1..=MAX_SEGMENT_EXTENTS) {
            let bin = bin_of(length);
            prop_assert!(shortest_of(bin) <= length);
            prop_assert_eq!(bin_of(shortest_of(bin)), bin);
            prop_assert!(length < shortest_of(bin + 1));
            prop_assert!(length - shortest_of(bin) <= length / 256);
        }
    }
}
