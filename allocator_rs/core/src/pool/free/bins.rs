//! Free runs by length: two-level segregated fit with 32 bins an octave.

use super::node::{NIL, Node, Nodes};
use crate::pool::MAX_SEGMENT_EXTENTS;

/// Bins an octave, as a power of two.
const FINENESS: u32 = 5;
const BINS_AN_OCTAVE: u64 = 1 << FINENESS;
pub const BINS: usize = bin_of(MAX_SEGMENT_EXTENTS) + 1;
const WORDS: usize = BINS.div_ceil(64);

/// The bin of a length: a bin of its own below 64 extents, one 32nd of an octave above.
#[inline]
pub const fn bin_of(length: u64) -> usize {
    if length < BINS_AN_OCTAVE {
        return length as usize;
    }
    let shift = length.ilog2() - FINENESS;
    ((shift as usize + 1) << FINENESS) + ((length >> shift) & (BINS_AN_OCTAVE - 1)) as usize
}

/// The shortest length of a bin.
pub const fn shortest_of(bin: usize) -> u64 {
    if bin < BINS_AN_OCTAVE as usize {
        return bin as u64;
    }
    let shift = (bin >> FINENESS) - 1;
    (BINS_AN_OCTAVE | (bin as u64 & (BINS_AN_OCTAVE - 1))) << shift
}

/// The runs of one bin, the newest first.
#[derive(Clone, Copy, Debug)]
pub struct Bin {
    pub head: u32,
    pub count: u32,
    /// No run of the bin is longer: what a failed search found out stays known until a longer run comes.
    pub longest: u64,
}

const EMPTY: Bin = Bin { head: NIL, count: 0, longest: 0 };

#[derive(Debug)]
pub struct Bins {
    /// Which words of `filled` are not 0.
    summary: u32,
    /// Which bins are not empty.
    filled: [u64; WORDS],
    all: Box<[Bin]>,
}

impl Bins {
    pub fn new() -> Self {
        const { assert!(WORDS <= u32::BITS as usize) };
        Self { summary: 0, filled: [0; WORDS], all: vec![EMPTY; BINS].into_boxed_slice() }
    }

    // The three below are written without branches that depend on what the lists look like: those would
    // be guessed wrong as often as not, and cost more than all the rest.

    /// Files a run under its length.
    #[inline]
    pub fn link(&mut self, nodes: &mut Nodes, id: u32) {
        let length = nodes[id].length();
        let number = bin_of(length);
        let bin = &mut self.all[number];
        nodes[bin.head].bin_previous = id;
        let node = &mut nodes[id];
        node.bin = number as u32;
        node.bin_previous = NIL;
        node.bin_next = bin.head;
        bin.head = id;
        bin.count += 1;
        bin.longest = bin.longest.max(length);
        self.filled[number >> 6] |= 1 << (number & 63);
        self.summary |= 1 << (number >> 6);
    }

    /// Takes a run out of its bin.
    #[inline]
    pub fn unlink(&mut self, nodes: &mut Nodes, id: u32) {
        let Node { bin: number, bin_previous: previous, bin_next: next, .. } = nodes[id];
        let number = number as usize;
        nodes[previous].bin_next = next;
        nodes[next].bin_previous = previous;
        let bin = &mut self.all[number];
        bin.head = if previous == NIL { next } else { bin.head };
        bin.count -= 1;
        let empty = bin.count == 0;
        bin.longest = if empty { 0 } else { bin.longest };
        let word = &mut self.filled[number >> 6];
        *word &= !(u64::from(empty) << (number & 63));
        self.summary &= !(u32::from(*word == 0) << (number >> 6));
    }

    /// Gives a run another start and end, and files it anew where its length asks for that.
    #[inline]
    pub fn relink(&mut self, nodes: &mut Nodes, id: u32, start: u64, end: u64) {
        let number = bin_of(end - start);
        if nodes[id].bin as usize == number {
            let bin = &mut self.all[number];
            bin.longest = bin.longest.max(end - start);
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

    #[inline]
    pub fn get(&self, number: usize) -> Bin {
        self.all.get(number).copied().unwrap_or(EMPTY)
    }

    /// Notes that no run of the bin is longer than this.
    pub fn note_longest(&mut self, number: usize, length: u64) {
        self.all[number].longest = length;
    }

    /// The runs of a bin.
    pub fn members<'a>(&self, nodes: &'a Nodes, number: usize) -> impl Iterator<Item = u32> + use<'a> {
        let head = self.get(number).head;
        std::iter::successors((head != NIL).then_some(head), |&id| {
            let next = nodes[id].bin_next;
            (next != NIL).then_some(next)
        })
    }

    /// Bytes of memory asked for.
    pub fn memory_bytes(&self) -> usize {
        self.all.len() * size_of::<Bin>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BINS, bin_of, shortest_of};
    use crate::pool::MAX_SEGMENT_EXTENTS;

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
