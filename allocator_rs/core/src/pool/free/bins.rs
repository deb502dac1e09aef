//! Free runs by length: segregated fit with 256 bins an octave.

use crate::pool::MAX_SEGMENT_EXTENTS;

/// Bins an octave, as a power of two.
const FINENESS: u32 = 8;
const BINS_AN_OCTAVE: u64 = 1 << FINENESS;
pub const BINS: usize = bin_of(MAX_SEGMENT_EXTENTS) + 1;
const WORDS: usize = BINS.div_ceil(64);
/// Words that say which words of the above are not 0.
const SUMMARY_WORDS: usize = WORDS.div_ceil(64);

/// The bin of a length: a bin of its own below 512 extents, one 256th of an octave above.
#[inline]
pub const fn bin_of(length: u64) -> usize {
    let shift = (length | BINS_AN_OCTAVE).ilog2() - FINENESS;
    ((shift << FINENESS) as u64 + (length >> shift)) as usize
}

/// Which bins have runs, and which. The runs of a bin are a ring, the newest first, that begins and ends at
/// the bin itself; so runs come and go without a branch that depends on what the ring looks like.
#[derive(Debug)]
pub struct Bins {
    /// Which words of `filled` are not 0.
    summary: [u64; SUMMARY_WORDS],
    /// Which bins are not empty.
    filled: [u64; WORDS],
    /// Of each bin, and behind them of each node.
    links: Vec<Link>,
    /// No run is longer: what a failed search found out stays known until a longer run comes.
    longest: u64,
}

/// The neighbours in a ring: numbers of links.
#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

impl Bins {
    pub fn new() -> Self {
        let ring = |bin| Link { previous: bin, next: bin };
        Self {
            summary: [0; SUMMARY_WORDS],
            filled: [0; WORDS],
            links: (0..BINS as u32).map(ring).collect(),
            longest: 0,
        }
    }

    /// Files a run under its length.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    pub fn link(&mut self, id: u32, length: u64) {
        let bin = bin_of(length);
        let link = id + BINS as u32;
        let newest = std::mem::replace(&mut self.links[bin].next, link);
        self.links[newest as usize].previous = link;
        self.links[link as usize] = Link { previous: bin as u32, next: newest };
        self.longest = self.longest.max(length);
        self.filled[bin >> 6] |= 1 << (bin & 63);
        self.summary[bin >> 12] |= 1 << (bin >> 6 & 63);
    }

    /// Makes links, so that there are as many as nodes.
    pub fn add_links(&mut self, nodes: usize) {
        self.links.reserve_exact(BINS + nodes - self.links.len());
        self.links.resize(BINS + nodes, Link { previous: 0, next: 0 });
    }

    /// Takes a run out of its bin.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    pub fn unlink(&mut self, id: u32, length: u64) {
        let bin = bin_of(length);
        let Link { previous, next } = self.links[id as usize + BINS];
        self.links[previous as usize].next = next;
        self.links[next as usize].previous = previous;
        // Only a run that is alone has the same neighbour on both sides.
        let empty = previous == next;
        let word = &mut self.filled[bin >> 6];
        *word &= !(u64::from(empty) << (bin & 63));
        self.summary[bin >> 12] &= !(u64::from(*word == 0) << (bin >> 6 & 63));
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
        self.links[bin].next - BINS as u32
    }

    /// The runs of a bin, the newest first.
    #[inline]
    pub fn members(&self, bin: usize) -> impl Iterator<Item = u32> {
        debug_assert!(bin < BINS);
        let run = |link: u32| link.checked_sub(BINS as u32);
        std::iter::successors(run(self.links[bin].next), move |&id| run(self.links[id as usize + BINS].next))
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

    /// Bytes of memory that the runs need, and bytes that the bins need.
    pub fn memory_bytes(&self) -> (usize, usize) {
        let runs = (self.links.capacity() - BINS) * size_of::<Link>();
        (runs, BINS * size_of::<Link>())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BINS, BINS_AN_OCTAVE, FINENESS, bin_of};
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
        for length in 0..512 {
            assert_eq!(bin_of(length), length as usize);
        }
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
