//! Reading the map of an open file from the kernel.

use std::io;
use std::os::fd::AsFd;

use super::{FileExtent, FileMap, flags};

/// Reads the map of `length_bytes` of a file from `start_bytes` on.
///
/// Extents are clipped to the range. `sync` writes dirty pages back first; without it recent writes
/// may show as not yet allocated. The map is read in slices: of a file that is written to meanwhile,
/// it is not a picture of one moment.
///
/// # Errors
/// What [`csi_core_allocator_ioctl::fiemap`] answers, and `InvalidData` where the filesystem's answer
/// is not a map.
pub fn read(fd: impl AsFd, start_bytes: u64, length_bytes: u64, sync: bool) -> io::Result<FileMap> {
    let fd = fd.as_fd();
    let end_bytes = start_bytes.saturating_add(length_bytes);
    let mut extents: Vec<FileExtent> = Vec::new();
    let mut slice = Vec::new();
    let mut position_bytes = start_bytes;
    while position_bytes < end_bytes {
        slice.clear();
        let first_call = position_bytes == start_bytes;
        csi_core_allocator_ioctl::fiemap(
            fd,
            position_bytes,
            end_bytes - position_bytes,
            sync && first_call,
            &mut slice,
        )?;
        let asked_from_bytes = position_bytes;
        for raw in &slice {
            let extent = FileExtent {
                logical_bytes: raw.logical_bytes,
                physical_bytes: raw.physical_bytes,
                length_bytes: raw.length_bytes,
                flags: raw.flags,
            };
            // Where the file changes meanwhile, a slice may begin inside the extent read last.
            extents.extend(extent.clipped(position_bytes, end_bytes));
            position_bytes = position_bytes.max(extent.end_bytes());
        }
        let ended = slice.last().is_none_or(|raw| raw.flags & flags::LAST != 0);
        if ended || position_bytes == asked_from_bytes {
            break;
        }
    }
    FileMap::new(extents).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
