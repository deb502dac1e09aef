//! Two filesystem ioctls that no safe crate offers: FIEMAP and FICLONERANGE.
//!
//! All unsafe code of the workspace is in this crate, so that the allocator itself can forbid it.

mod clone_range;
mod fiemap;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

pub use clone_range::clone_range;
pub use fiemap::{RawExtent, fiemap};

/// Duplicates a descriptor that belongs to someone else.
///
/// The copy keeps the same open file for as long as the caller works, even where another thread
/// closes the original meanwhile and its number is given to another file.
///
/// # Errors
/// `EBADF` where `fd` is not open, `EMFILE` where the process has no descriptor left.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(rustix::io::Errno::BADF.into());
    }
    // SAFETY: the number is not -1, and it is borrowed for this one system call only, which answers
    // EBADF where nothing is open under it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 0)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    #[test]
    fn a_closed_descriptor_is_an_error() {
        assert_eq!(super::duplicate(-1).unwrap_err().raw_os_error(), Some(9));
        assert_eq!(super::duplicate(1_000_000).unwrap_err().raw_os_error(), Some(9));
    }

    #[test]
    fn the_copy_outlives_the_original() {
        let original = std::fs::File::open("/proc/self/exe").unwrap();
        let copy = super::duplicate(original.as_raw_fd()).unwrap();
        drop(original);
        assert!(std::fs::File::from(copy).metadata().unwrap().len() > 0);
    }
}
