//! `FS_IOC_FIEMAP` (linux/fiemap.h).

use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// Extents asked for in one call: 14 KiB of them.
const EXTENTS_PER_CALL: u32 = 256;

/// Write dirty pages back first, so that nothing is reported as not yet allocated.
const FLAG_SYNC: u32 = 0x1;

/// `struct fiemap_extent`, as the kernel fills it in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawExtent {
    /// Offset in the file, in bytes.
    pub logical_bytes: u64,
    /// Offset on the filesystem's device, in bytes; meaningless where the flags say so.
    pub physical_bytes: u64,
    /// Length in bytes.
    pub length_bytes: u64,
    reserved64: [u64; 2],
    /// `FIEMAP_EXTENT_*`.
    pub flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap` without its flexible array: the part that the ioctl's number is made from.
#[repr(C)]
struct Header {
    start_bytes: u64,
    length_bytes: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

#[repr(C)]
struct Request {
    header: Header,
    extents: [RawExtent; EXTENTS_PER_CALL as usize],
}

const FS_IOC_FIEMAP: Opcode = opcode::read_write::<Header>(b'f', 11);

/// Appends to `found` the next extents of the file that touch `length_bytes` from `start_bytes` on.
///
/// One call of the kernel: at most 256 extents, so the caller repeats it from the end of the last
/// one. The first extent may begin before `start_bytes` and the last one end after the range.
/// `sync` writes the file's dirty pages back first.
///
/// # Errors
/// `EOPNOTSUPP` where the filesystem has no extent maps (tmpfs, say), `EFBIG` for a start beyond its
/// largest file, `EBADF`, `EIO`.
pub fn fiemap(
    fd: impl AsFd,
    start_bytes: u64,
    length_bytes: u64,
    sync: bool,
    found: &mut Vec<RawExtent>,
) -> io::Result<()> {
    let mut request = Box::new(Request {
        header: Header {
            start_bytes,
            length_bytes,
            flags: if sync { FLAG_SYNC } else { 0 },
            mapped_extents: 0,
            extent_count: EXTENTS_PER_CALL,
            reserved: 0,
        },
        extents: [RawExtent::default(); EXTENTS_PER_CALL as usize],
    });
    // SAFETY: the request begins with `struct fiemap` and has room for the `extent_count` extents
    // that it announces, which is all that the kernel writes to. Every bit pattern is a valid value.
    unsafe { ioctl(fd, Updater::<FS_IOC_FIEMAP, Request>::new(&mut request)) }?;
    let mapped = (request.header.mapped_extents as usize).min(request.extents.len());
    found.extend_from_slice(&request.extents[..mapped]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{FS_IOC_FIEMAP, Header, RawExtent};

    #[test]
    fn layout_is_the_kernels() {
        assert_eq!(size_of::<Header>(), 32);
        assert_eq!(size_of::<RawExtent>(), 56);
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        assert_eq!(FS_IOC_FIEMAP, 0xC020_660B);
    }
}
