//! A hash table from 32-bit keys to 32-bit values in 8 bytes a slot.

const EMPTY: u64 = u64::MAX;
const FEWEST_SLOTS: usize = 16;

/// Open addressing with linear probing; removal closes the gap, so no tombstones build up.
///
/// The value `u32::MAX` cannot be stored.
#[derive(Debug)]
pub struct Table {
    slots: Vec<u64>,
    used: usize,
    /// 64 minus the logarithm of the number of slots.
    shift: u32,
}

impl Table {
    pub fn new() -> Self {
        Self::with_slots(FEWEST_SLOTS)
    }

    /// The value of a key that is in the table.
    #[inline]
    pub fn get(&self, key: u32) -> u32 {
        self.slots[self.find(key)] as u32
    }

    /// Gives a key that is in the table another value.
    #[inline]
    pub fn replace(&mut self, key: u32, value: u32) {
        let at = self.find(key);
        self.slots[at] = slot(key, value);
    }

    /// Adds a key that is not in the table.
    #[inline]
    pub fn insert(&mut self, key: u32, value: u32) {
        debug_assert_ne!(value, u32::MAX);
        // Three quarters at most: beyond that the probes of linear probing get long.
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.place(slot(key, value));
        self.used += 1;
    }

    /// Takes out a key that is in the table.
    #[inline]
    pub fn remove(&mut self, key: u32) {
        let mask = self.slots.len() - 1;
        let mut gap = self.find(key);
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let entry = self.slots[at];
            if entry == EMPTY {
                break;
            }
            // An entry may move back into the gap unless that is before its own place.
            let home = self.home((entry >> 32) as u32);
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.slots[gap] = entry;
                gap = at;
            }
        }
        self.slots[gap] = EMPTY;
        self.used -= 1;
    }

    /// Makes room for `keys` in all, so that adding them costs no rehashing.
    pub fn reserve(&mut self, keys: usize) {
        let slots = (keys * 4 / 3 + 1).next_power_of_two();
        if slots > self.slots.len() {
            self.rehash(slots);
        }
    }

    /// Bytes of memory asked for.
    pub fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u64>()
    }

    fn with_slots(slots: usize) -> Self {
        Self { slots: vec![EMPTY; slots], used: 0, shift: 64 - slots.trailing_zeros() }
    }

    #[cold]
    fn grow(&mut self) {
        self.rehash(self.slots.len() * 2);
    }

    fn rehash(&mut self, slots: usize) {
        let old = std::mem::replace(self, Self::with_slots(slots));
        for entry in old.slots.into_iter().filter(|&entry| entry != EMPTY) {
            self.place(entry);
        }
        self.used = old.used;
    }

    #[inline]
    fn place(&mut self, entry: u64) {
        let mask = self.slots.len() - 1;
        let mut at = self.home((entry >> 32) as u32);
        while self.slots[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.slots[at] = entry;
    }

    #[inline]
    fn find(&self, key: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = self.home(key);
        while (self.slots[at] >> 32) as u32 != key || self.slots[at] == EMPTY {
            debug_assert_ne!(self.slots[at], EMPTY, "the key is in the table");
            at = (at + 1) & mask;
        }
        at
    }

    /// The slot where a key belongs: the high bits of a multiplication by 2^64 / the golden ratio.
    #[inline]
    fn home(&self, key: u32) -> usize {
        (u64::from(key).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }
}

fn slot(key: u32, value: u32) -> u64 {
    u64::from(key) << 32 | u64::from(value)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::Table;

    proptest! {
        #[test]
        fn behaves_like_a_map(changes in prop::collection::vec((any::<bool>(), 0..64_u32, 0..1000_u32), 0..400)) {
            let mut table = Table::new();
            let mut map = HashMap::new();
            for (add, key, value) in changes {
                // Neighbours and the ends of the range, so that probes run into each other.
                let key = if key < 32 { key } else { u32::MAX - key };
                match (add, map.contains_key(&key)) {
                    (true, true) => table.replace(key, value),
                    (true, false) => table.insert(key, value),
                    (false, true) => table.remove(key),
                    (false, false) => continue,
                }
                if add { map.insert(key, value); } else { map.remove(&key); }
                for (&key, &value) in &map {
                    prop_assert_eq!(table.get(key), value);
                }
            }
        }
    }
}
