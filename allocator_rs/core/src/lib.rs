//! The space accounting core of csi-core, without any Python.
//!
//! [`pool`] is the extent allocator: which extents of a pool are free, and where new volumes go.
//! [`file_map`] reads where the blocks of a file lie (FIEMAP), measures them exactly and compares two
//! reflinked files without reading their data.

#![forbid(unsafe_code)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("a 4 PiB pool needs 64-bit addresses");

pub mod file_map;
#[allow(clippy::cast_possible_truncation)]
// bounded by MAX_SEGMENT_EXTENTS and 64-bit pointers, checked at the door
pub mod pool;
