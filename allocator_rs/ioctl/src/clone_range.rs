//! `FICLONERANGE` (linux/fs.h).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// `struct file_clone_range`.
#[repr(C)]
struct CloneRange {
    source_fd: i64,
    source_offset_bytes: u64,
    source_length_bytes: u64,
    target_offset_bytes: u64,
}

const FICLONERANGE: Opcode = opcode::write::<CloneRange>(0x94, 13);

/// Makes a range of `target` share the blocks of a range of `source` (reflink).
///
/// Offsets and length are in bytes and multiples of the filesystem's block size; a length of 0
/// means up to the end of the source.
///
/// # Errors
/// `EOPNOTSUPP` without reflink, `EXDEV` across filesystems, `EINVAL` where not aligned or the ranges
/// overlap in one file, `ENOSPC`, `ETXTBSY`, `EBADF`.
pub fn clone_range(
    source: impl AsFd,
    source_offset_bytes: u64,
    length_bytes: u64,
    target: impl AsFd,
    target_offset_bytes: u64,
) -> io::Result<()> {
    let source = source.as_fd();
    let range = CloneRange {
        source_fd: source.as_raw_fd().into(),
        source_offset_bytes,
        source_length_bytes: length_bytes,
        target_offset_bytes,
    };
    // SAFETY: the kernel reads one `struct file_clone_range` and writes nothing back; the source stays
    // open during the call.
    unsafe { ioctl(target, Setter::<FICLONERANGE, CloneRange>::new(range)) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn layout_is_the_kernels() {
        assert_eq!(size_of::<super::CloneRange>(), 32);
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        assert_eq!(super::FICLONERANGE, 0x4020_940D);
    }
}
