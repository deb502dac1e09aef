//! Free runs by length: two-level segregated fit with 32 bins an octave.

use super::node::{Node, Nodes};
use crate::pool::MAX_SEGMENT_EXTENTS;

/// Bins an octave, as a power of two.
const FINENESS: u32 = 5;
const BINS_AN_OCTAVE: u64 = 1 << FINENESS;
pub const BINS: usize = bin_of(MAX_SEGMENT_EXTENTS) + 1;
const WORDS: usize = BINS.div_ceil(64);

/// The bin of a length: a bin of its own below 64 extents, one 32nd of an octave above.
#[inline]
pub const fn bin_of(length: u64) -> usize {
    let shift = (length | BINS_AN_OCTAVE).ilog2() - FINENESS;
    ((shift << FINENESS) as u64 + (length >> shift)) as usize
}

/// Which bins have runs. The runs of a bin are a ring of nodes, the newest first, that begins and ends at
/// the bin's own node; so runs come and go without a branch that depends on what the ring looks like.
#[derive(Debug)]
pub struct Bins {
    /// Which words of `filled` are not 0.
    summary: u32,
    /// Which bins are not empty.
    filled: [u64; WORDS],
    /// No run of the bin is longer: what a failed search found out stays known until a longer run comes.
    longest: Box<[u64; BINS]>,
}

impl Bins {
    pub fn new() -> Self {
        const { assert!(WORDS <= u32::BITS as usize) };
        Self { summary: 0, filled: [0; WORDS], longest: Box::new([0; BINS]) }
    }

    /// Files a run under its length.
    #[inline]
    pub fn link(&mut self, nodes: &mut Nodes, id: u32) {
        let length = nodes[id].length();
        let number = bin_of(length);
        let ring = ring_of(number);
        let newest = nodes[ring].bin_next;
        nodes[ring].bin_next = id;
        nodes[newest].bin_previous = id;
        let node = &mut nodes[id];
        node.bin = number as u32;
        node.bin_previous = ring;
        node.bin_next = newest;
        self.longest[number] = self.longest[number].max(length);
        self.filled[number >> 6] |= 1 << (number & 63);
        self.summary |= 1 << (number >> 6);
    }

    /// Takes a run out of its bin.
    #[inline]
    pub fn unlink(&mut self, nodes: &mut Nodes, id: u32) {
        let Node { bin: number, bin_previous: previous, bin_next: next, .. } = nodes[id];
        nodes[previous].bin_next = next;
        nodes[next].bin_previous = previous;
        // Only a run that is alone has the same neighbour on both sides.
        let empty = previous == next;
        let word = &mut self.filled[number as usize >> 6];
        *word &= !(u64::from(empty) << (number & 63));
        self.summary &= !(u32::from(*word == 0) << (number >> 6));
    }

    /// Gives a run another start and end, and files it anew where its length asks for that.
    #[inline]
    pub fn relink(&mut self, nodes: &mut Nodes, id: u32, start: u64, end: u64) {
        let number = bin_of(end - start);
        if nodes[id].bin as usize == number {
            self.longest[number] = self.longest[number].max(end - start);
            nodes[id].start = start;
            nodes[id].end = end;
            return;
        }
        self.unlink(nodes, id);
        nodes[id].start = start;
        nodes[id].end = end;
        self.link(nodes, id);
    }

    /// The first bin from `number` on that is not empty.
    #[inline]
    pub fn filled_from(&self, number: usize) -> Option<usize> {
        let word = number >> 6;
        let rest = self.filled.get(word)? & (u64::MAX << (number & 63));
        if rest != 0 {
            return Some(word << 6 | rest.trailing_zeros() as usize);
        }
        let words = self.summary & (u32::MAX << word << 1);
        if words == 0 {
            return None;
        }
        let word = words.trailing_zeros() as usize;
        Some(word << 6 | self.filled[word].trailing_zeros() as usize)
    }

    /// The last bin up to `number` that is not empty.
    pub fn filled_up_to(&self, number: usize) -> Option<usize> {
        let number = number.min(BINS - 1);
        let mut word = number >> 6;
        let mut rest = self.filled[word] & (u64::MAX >> (63 - (number & 63)));
        if rest == 0 {
            word = (self.summary & !(u32::MAX << word)).checked_ilog2()? as usize;
            rest = self.filled[word];
        }
        Some(word << 6 | rest.ilog2() as usize)
    }

    /// No run of the bin is longer than this; there may be none at all.
    #[inline]
    pub fn longest(&self, number: usize) -> u64 {
        self.longest.get(number).copied().unwrap_or(0)
    }

    /// Notes that no run of the bin is longer than this.
    pub fn note_longest(&mut self, number: usize, length: u64) {
        self.longest[number] = length;
    }

    /// Bytes of memory asked for.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.longest)
    }
}

/// The runs of a bin, the newest first.
#[inline]
pub fn members(nodes: &Nodes, number: usize) -> impl Iterator<Item = u32> {
    debug_assert!(number < BINS);
    let ring = ring_of(number);
    let in_ring = move |id| (id != ring).then_some(id);
    std::iter::successors(in_ring(nodes[ring].bin_next), move |&id| in_ring(nodes[id].bin_next))
}

/// The node that the ring of a bin begins and ends at. The first of all is [`NIL`](super::node::NIL).
fn ring_of(bin: usize) -> u32 {
    bin as u32 + 1
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
    fn bins_are_exact_below_64() {
        for length in 0..64 {
            assert_eq!(bin_of(length), length as usize);
        }
        assert_eq!(bin_of(64), 64);
        assert_eq!(bin_of(65), 64);
        assert_eq!(BINS, 1025);
    }

    proptest! {
        #[test]
        fn a_bin_begins_at_its_shortest(length in 1..=MAX_SEGMENT_EXTENTS) {
            let bin = bin_of(length);
            prop_assert!(shortest_of(bin) <= length);
            prop_assert_eq!(bin_of(shortest_of(bin)), bin);
            prop_assert!(length < shortest_of(bin + 1));
            prop_assert!(length - shortest_of(bin) <= length / 32);
        }
    }
}
