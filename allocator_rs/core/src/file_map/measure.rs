//! Sizes and simpler forms of one map.

use super::{ByteRange, FileExtent, FileMap};

impl FileMap {
    /// Bytes of the file that are not holes: written, unwritten, and waiting to be allocated.
    #[must_use]
    pub fn allocated_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.length_bytes).sum()
    }

    /// Bytes of the file whose blocks some other file (or another place in this one) has too.
    #[must_use]
    pub fn shared_bytes(&self) -> u64 {
        self.extents.iter().filter(|extent| extent.shared()).map(|extent| extent.length_bytes).sum()
    }

    /// The same map in the fewest extents: neighbours that go on in the file and on the device become
    /// one. Extents of unknown location stay as they are.
    #[must_use]
    pub fn merged(&self) -> Self {
        let mut merged: Vec<FileExtent> = Vec::new();
        for extent in &self.extents {
            match merged.last_mut() {
                Some(last) if last.goes_on_with(extent) => {
                    last.length_bytes += extent.length_bytes;
                    last.flags |= extent.flags;
                }
                _ => merged.push(*extent),
            }
        }
        Self { extents: merged }
    }

    /// The ranges that may hold data, merged: all but the holes and what is certain to read as zeros.
    ///
    /// Exact only for a file that nobody writes to and whose map was read with `sync`.
    #[must_use]
    pub fn data_ranges(&self) -> Vec<ByteRange> {
        let mut ranges = Vec::new();
        for extent in self.extents.iter().filter(|extent| !extent.unwritten()) {
            push_range(&mut ranges, extent.logical_bytes, extent.end_bytes());
        }
        ranges
    }
}

/// Appends a range, joined to the last one where they touch.
pub(super) fn push_range(ranges: &mut Vec<ByteRange>, start_bytes: u64, end_bytes: u64) {
    match ranges.last_mut() {
        Some(last) if last.offset_bytes + last.length_bytes == start_bytes => {
            last.length_bytes = end_bytes - last.offset_bytes;
        }
        _ => ranges.push(ByteRange { offset_bytes: start_bytes, length_bytes: end_bytes - start_bytes }),
    }
}
