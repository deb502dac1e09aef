//! What changed between two files, told from their maps alone.

use super::measure::push_range;
use super::{ByteRange, FileExtent, FileMap};

/// The ranges in which the content of two files may differ, ascending and merged.
///
/// Meant for two snapshots of one volume: files on the same filesystem that nobody writes to and that
/// both still exist, their maps read with `sync`. A block is left out only where both files have a
/// hole there, or the same physical block in the same state. Whatever cannot be told is reported: a
/// hole against an allocated block that was never written, and every extent whose location is not
/// known (compressed, inline, not yet allocated). So no change is missed; some unchanged ranges may
/// be reported.
#[must_use]
pub fn changed_ranges(a: &FileMap, b: &FileMap) -> Vec<ByteRange> {
    let (mut a, mut b) = (Cursor::new(a), Cursor::new(b));
    let mut ranges = Vec::new();
    let mut position_bytes = 0;
    loop {
        let (in_a, a_until) = a.at(position_bytes);
        let (in_b, b_until) = b.at(position_bytes);
        let Some(until) = [a_until, b_until].into_iter().flatten().min() else {
            return ranges;
        };
        if !certainly_same(in_a, in_b) {
            push_range(&mut ranges, position_bytes, until);
        }
        position_bytes = until;
    }
}

/// What a file has at one position.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Hole,
    /// A block at this physical offset.
    Block {
        physical_bytes: u64,
        unwritten: bool,
    },
    Unknown,
}

fn certainly_same(a: Place, b: Place) -> bool {
    a == b && a != Place::Unknown
}

/// Walks over a map in ascending order.
struct Cursor<'a> {
    rest: &'a [FileExtent],
}

impl<'a> Cursor<'a> {
    fn new(map: &'a FileMap) -> Self {
        Self { rest: map.extents() }
    }

    /// What lies at `position_bytes`, and where that ends; `None` for a hole without end.
    fn at(&mut self, position_bytes: u64) -> (Place, Option<u64>) {
        while let Some((first, rest)) = self.rest.split_first() {
            if first.end_bytes() > position_bytes {
                break;
            }
            self.rest = rest;
        }
        let Some(extent) = self.rest.first() else {
            return (Place::Hole, None);
        };
        if extent.logical_bytes > position_bytes {
            return (Place::Hole, Some(extent.logical_bytes));
        }
        let place = if extent.located() {
            let into_bytes = position_bytes - extent.logical_bytes;
            Place::Block { physical_bytes: extent.physical_bytes + into_bytes, unwritten: extent.unwritten() }
        } else {
            Place::Unknown
        };
        (place, Some(extent.end_bytes()))
    }
}
