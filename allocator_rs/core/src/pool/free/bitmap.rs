//! A set of small integers that finds the next member in a handful of cache lines.

/// A bit a member, and above it the set of those words that are not 0, up to a single word.
///
/// Fresh memory is asked for zeroed, so that the system backs only the pages that are written to.
#[derive(Debug)]
pub struct Bitmap {
    words: Vec<u64>,
    filled: Option<Box<Bitmap>>,
}

impl Bitmap {
    /// An empty set of numbers below `bits`.
    pub fn new(bits: usize) -> Self {
        let words = bits.div_ceil(64).max(1);
        let filled = (words > 1).then(|| Box::new(Self::new(words)));
        Self { words: vec![0; words], filled }
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    pub fn set(&mut self, bit: usize) {
        let word = &mut self.words[bit >> 6];
        let was_empty = *word == 0;
        *word |= 1 << (bit & 63);
        if was_empty {
            self.fill(bit >> 6);
        }
    }

    /// Removes a member, or does nothing.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs a tenth of an allocation")]
    pub fn clear_if(&mut self, wanted: bool, bit: usize) {
        let word = &mut self.words[bit >> 6];
        *word &= !(u64::from(wanted) << (bit & 63));
        if *word == 0 {
            self.empty(bit >> 6);
        }
    }

    #[inline(never)]
    fn fill(&mut self, word: usize) {
        if let Some(filled) = &mut self.filled {
            filled.set(word);
        }
    }

    #[inline(never)]
    fn empty(&mut self, word: usize) {
        if let Some(filled) = &mut self.filled {
            filled.clear_if(true, word);
        }
    }

    /// The smallest member that is `from` or more.
    #[inline]
    pub fn next(&self, from: usize) -> Option<usize> {
        let word = from >> 6;
        let found = self.words.get(word)? & (u64::MAX << (from & 63));
        if found != 0 {
            return Some(word << 6 | found.trailing_zeros() as usize);
        }
        self.first_behind(word)
    }

    /// The smallest member in the words behind `word`.
    #[inline(never)]
    fn first_behind(&self, word: usize) -> Option<usize> {
        let word = self.filled.as_ref()?.next(word + 1)?;
        Some(word << 6 | self.words[word].trailing_zeros() as usize)
    }

    /// Bytes of memory asked for.
    pub fn memory_bytes(&self) -> usize {
        let filled = self.filled.as_ref().map_or(0, |filled| filled.memory_bytes());
        self.words.capacity() * size_of::<u64>() + filled
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Bitmap;

    proptest! {
        #[test]
        fn behaves_like_a_set(changes in prop::collection::vec((any::<bool>(), 0..300_000_usize), 0..200)) {
            let mut bitmap = Bitmap::new(300_000);
            let mut set = BTreeSet::new();
            for (add, bit) in changes {
                if add {
                    bitmap.set(bit);
                    set.insert(bit);
                } else {
                    bitmap.clear_if(true, bit);
                    set.remove(&bit);
                }
                for from in [0, bit, bit + 1, 299_999, 300_000] {
                    prop_assert_eq!(bitmap.next(from), set.range(from..).next().copied());
                }
            }
        }
    }
}
