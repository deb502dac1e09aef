//! One extent of a file, and what its flags mean.

/// `FIEMAP_EXTENT_*` of linux/fiemap.h, those that matter here.
pub mod flags {
    /// The last extent of the file.
    pub const LAST: u32 = 0x1;
    /// The location is not known.
    pub const UNKNOWN: u32 = 0x2;
    /// Not allocated yet: in the page cache only.
    pub const DELALLOC: u32 = 0x4;
    /// Compressed or otherwise encoded: the location is that of the encoded extent.
    pub const ENCODED: u32 = 0x8;
    /// Encrypted by the filesystem.
    pub const DATA_ENCRYPTED: u32 = 0x80;
    /// Not aligned to blocks.
    pub const NOT_ALIGNED: u32 = 0x100;
    /// Inside metadata.
    pub const DATA_INLINE: u32 = 0x200;
    /// Shares a block with other files' tails.
    pub const DATA_TAIL: u32 = 0x400;
    /// Allocated and reads as zeros.
    pub const UNWRITTEN: u32 = 0x800;
    /// Put together by the kernel for a filesystem without extents.
    pub const MERGED: u32 = 0x1000;
    /// Shared with another file, or with another place in this one.
    pub const SHARED: u32 = 0x2000;
}

/// With any of these the physical offset does not say which bytes are read.
const NO_LOCATION: u32 = flags::UNKNOWN
    | flags::DELALLOC
    | flags::ENCODED
    | flags::DATA_ENCRYPTED
    | flags::NOT_ALIGNED
    | flags::DATA_INLINE
    | flags::DATA_TAIL;

/// Flags that say nothing about the extent itself.
const INCIDENTAL: u32 = flags::LAST | flags::MERGED;

/// A range of a file and where it lies on the filesystem's device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileExtent {
    /// Offset in the file, in bytes.
    pub logical_bytes: u64,
    /// Offset on the device, in bytes.
    pub physical_bytes: u64,
    /// Length in bytes.
    pub length_bytes: u64,
    /// The kernel's [`flags`].
    pub flags: u32,
}

impl FileExtent {
    /// The first byte of the file behind this extent.
    #[must_use]
    pub fn end_bytes(&self) -> u64 {
        self.logical_bytes + self.length_bytes
    }

    /// Whether the physical offset says which bytes are read.
    #[must_use]
    pub fn located(&self) -> bool {
        self.flags & NO_LOCATION == 0
    }

    /// Whether it is allocated and certain to read as zeros.
    #[must_use]
    pub fn unwritten(&self) -> bool {
        self.flags & flags::UNWRITTEN != 0 && self.located()
    }

    /// Whether another file, or another place in this one, has the same blocks.
    #[must_use]
    pub fn shared(&self) -> bool {
        self.flags & flags::SHARED != 0
    }

    /// The part of the extent from `start_bytes` to `end_bytes` of the file, `None` where that is empty.
    pub(super) fn clipped(&self, start_bytes: u64, end_bytes: u64) -> Option<Self> {
        let start = self.logical_bytes.max(start_bytes);
        let end = self.end_bytes().min(end_bytes);
        (start < end).then(|| Self {
            logical_bytes: start,
            physical_bytes: self.physical_bytes + (start - self.logical_bytes),
            length_bytes: end - start,
            flags: self.flags,
        })
    }

    /// Whether `next` goes on where this ends, in the file and on the device, in the same state.
    pub(super) fn goes_on_with(&self, next: &Self) -> bool {
        self.located()
            && self.end_bytes() == next.logical_bytes
            && self.physical_bytes + self.length_bytes == next.physical_bytes
            && (self.flags ^ next.flags) & !INCIDENTAL == 0
    }
}
