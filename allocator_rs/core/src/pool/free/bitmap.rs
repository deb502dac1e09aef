//! A set of small integers that finds the next member in a handful of cache lines.

/// Bits, and above each 64 of them one that says whether any is set, up to a single word.
///
/// Fresh memory is asked for zeroed, so that the system backs only the pages that are written to.
#[derive(Debug, Default)]
pub struct Bitmap {
    levels: Vec<Vec<u64>>,
}

impl Bitmap {
    pub fn new(bits: u64) -> Self {
        let mut levels = Vec::new();
        let mut words = bits.div_ceil(64).max(1);
        loop {
            levels.push(vec![0; words as usize]);
            if words == 1 {
                return Self { levels };
            }
            words = words.div_ceil(64);
        }
    }

    /// The same set with room for more.
    pub fn grown(&self, bits: u64) -> Self {
        let mut grown = Self::new(bits);
        let mut from = 0;
        while let Some(bit) = self.next(from) {
            grown.set(bit);
            from = bit + 1;
        }
        grown
    }

    #[inline]
    pub fn set(&mut self, bit: u64) {
        let mut at = bit;
        for level in &mut self.levels {
            let word = &mut level[(at >> 6) as usize];
            let was_empty = *word == 0;
            *word |= 1 << (at & 63);
            if !was_empty {
                return;
            }
            at >>= 6;
        }
    }

    #[inline]
    pub fn clear(&mut self, bit: u64) {
        let mut at = bit;
        for level in &mut self.levels {
            let word = &mut level[(at >> 6) as usize];
            *word &= !(1 << (at & 63));
            if *word != 0 {
                return;
            }
            at >>= 6;
        }
    }

    #[inline]
    pub fn contains(&self, bit: u64) -> bool {
        self.levels[0][(bit >> 6) as usize] & (1 << (bit & 63)) != 0
    }

    /// The smallest member that is `from` or more.
    #[inline]
    pub fn next(&self, from: u64) -> Option<u64> {
        let mut at = from;
        for (height, level) in self.levels.iter().enumerate() {
            let word = at >> 6;
            let found = level.get(word as usize)? & (u64::MAX << (at & 63));
            if found != 0 {
                let top = word << 6 | u64::from(found.trailing_zeros());
                return Some(self.first_below(height, top));
            }
            at = word + 1;
        }
        None
    }

    /// Bytes of memory asked for.
    pub fn memory_bytes(&self) -> usize {
        self.levels.iter().map(|level| level.capacity() * size_of::<u64>()).sum()
    }

    fn first_below(&self, height: usize, bit: u64) -> u64 {
        self.levels[..height]
            .iter()
            .rev()
            .fold(bit, |bit, level| bit << 6 | u64::from(level[bit as usize].trailing_zeros()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Bitmap;

    proptest! {
        #[test]
        fn behaves_like_a_set(changes in prop::collection::vec((any::<bool>(), 0..300_000_u64), 0..200)) {
            let mut bitmap = Bitmap::new(300_000);
            let mut set = BTreeSet::new();
            for (add, bit) in changes {
                if add {
                    bitmap.set(bit);
                    set.insert(bit);
                } else {
                    bitmap.clear(bit);
                    set.remove(&bit);
                }
                prop_assert_eq!(bitmap.contains(bit), set.contains(&bit));
                for from in [0, bit, bit + 1, 299_999, 300_000] {
                    prop_assert_eq!(bitmap.next(from), set.range(from..).next().copied());
                }
            }
            let grown = bitmap.grown(20_000_000);
            prop_assert_eq!(grown.next(0), set.first().copied());
            prop_assert_eq!(grown.next(299_000), set.range(299_000..).next().copied());
        }
    }
}
