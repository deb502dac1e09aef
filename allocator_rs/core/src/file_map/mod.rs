//! Where the blocks of a file lie: reading the map, measuring it, comparing two of them.
//!
//! All offsets and lengths are in bytes. A physical offset is the filesystem's own address, so two
//! maps can be compared only where both files lie on the same filesystem.

mod diff;
mod extent;
mod measure;
mod read;

use std::fmt;

pub use diff::changed_ranges;
pub use extent::{FileExtent, flags};
pub use read::read;

/// A range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// Where it begins, in bytes.
    pub offset_bytes: u64,
    /// How long it is, in bytes; never 0.
    pub length_bytes: u64,
}

/// The extents of one file: ascending, never overlapping, none empty. What lies between is a hole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileMap {
    extents: Vec<FileExtent>,
}

impl FileMap {
    /// Takes a list of extents as it is.
    ///
    /// # Errors
    /// [`NotAMap`] where an extent is empty, reaches beyond 2^64 bytes, or begins before the end of
    /// the one before it.
    pub fn new(extents: Vec<FileExtent>) -> Result<Self, NotAMap> {
        let mut free_from_bytes = 0;
        for (index, extent) in extents.iter().enumerate() {
            let end = extent.logical_bytes.checked_add(extent.length_bytes);
            let end = end.filter(|_| extent.physical_bytes.checked_add(extent.length_bytes).is_some());
            match end {
                Some(end) if extent.length_bytes > 0 && extent.logical_bytes >= free_from_bytes => {
                    free_from_bytes = end;
                }
                _ => return Err(NotAMap { index, extent: *extent }),
            }
        }
        Ok(Self { extents })
    }

    /// The extents, ascending.
    #[must_use]
    pub fn extents(&self) -> &[FileExtent] {
        &self.extents
    }
}

/// A list of extents that no file can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAMap {
    /// Which extent of the list, counted from 0.
    pub index: usize,
    /// The extent itself.
    pub extent: FileExtent,
}

impl fmt::Display for NotAMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FileExtent { logical_bytes, length_bytes, .. } = self.extent;
        write!(
            f,
            "extent {} of the list ({length_bytes} bytes at {logical_bytes}) is empty, out of range, or begins \
             before the end of the one before it",
            self.index
        )
    }
}

impl std::error::Error for NotAMap {}
