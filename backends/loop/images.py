"""Image files: every way in which they are made, copied and freed. Pure file operations, no records."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from csi_core import _allocator
from csi_core._allocator import clone_range, fiemap
from csi_core.errors import NoSpace, StorageFailure, TimedOut

__all__ = [
    "allocate",
    "clone",
    "copy_data",
    "data_ranges",
    "free",
    "holes_bytes",
    "opened",
    "own_blocks",
    "set_aside",
    "storage_errors",
]

_FS_IOC_GETFLAGS: Final = 0x80086601
_FS_IOC_SETFLAGS: Final = 0x40086602
_FS_NOCOW_FL: Final = 0x00800000
_BTRFS_MAGIC: Final = 0x9123683E
_FALLOC_FL_KEEP_SIZE: Final = 0x01
_FALLOC_FL_UNSHARE_RANGE: Final = 0x40
_COPY_BYTES: Final = 8 << 20
_FREE_SLICE_BYTES: Final = 1 << 30
_NO_REFLINK: Final = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)

_libc: Final = ctypes.CDLL(None, use_errno=True)


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn an OSError into the error that the core understands; ``what`` begins the message."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoSpace(f"{what}: {error.strerror}; free space on the pool's filesystem") from error
        raise StorageFailure(f"{what}: {error.strerror}") from error


@contextmanager
def opened(path: Path, *, create: bool = False, write: bool = True) -> Iterator[int]:
    """A descriptor of the image at ``path``; never followed through a symbolic link."""
    flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        if create:
            _no_copy_on_write(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def clone(source: int, target: int) -> bool:
    """Let ``target`` share all blocks of ``source``; False where the filesystem cannot do that."""
    try:
        clone_range(source, 0, 0, target, 0)
    except OSError as error:
        if error.errno in _NO_REFLINK:
            return False
        raise
    return True


def copy_data(source: int, target: int, *, give_up_at: float | None = None) -> None:
    """Copy the data of ``source`` into the empty file ``target``; holes stay holes.

    Args:
        source, target: descriptors on one filesystem.
        give_up_at: a moment of ``time.monotonic()``, or None for as long as it takes.

    Raises:
        TimedOut: it was not done at that moment.
    """
    os.ftruncate(target, os.fstat(source).st_size)
    for start, end in data_ranges(source):
        offset = start
        while offset < end:
            if give_up_at is not None and time.monotonic() >= give_up_at:
                raise TimedOut("the copy took longer than writers may be held")
            copied = os.copy_file_range(source, target, min(_COPY_BYTES, end - offset), offset, offset)
            if not copied:
                raise StorageFailure(f"the image ended at byte {offset} while it was copied")
            offset += copied


def own_blocks(image: int) -> None:
    """Give ``image`` blocks of its own over its whole length: none shared with another file, no holes.

    What it holds stays as it is. Afterwards no write into it can find the filesystem full.
    """
    size = os.fstat(image).st_size
    if not size:
        return
    if not _fallocate(image, _FALLOC_FL_UNSHARE_RANGE, 0, size):
        _rewrite(image)
    os.posix_fallocate(image, 0, size)


def allocate(image: int, size_bytes: int) -> None:
    """Allocate every block up to ``size_bytes``; the file grows to that where it is shorter."""
    os.posix_fallocate(image, 0, size_bytes)


def holes_bytes(found: os.stat_result) -> int:
    """How many bytes of a file have no block behind them."""
    return max(0, found.st_size - found.st_blocks * 512)


def data_ranges(image: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Start and end of every range from ``start`` on that may hold anything but zeros; ascending.

    From the extent map where there is one: SEEK_DATA takes preallocated blocks for data once somebody has read them.
    """
    try:
        extents = fiemap(image, start)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        yield from _sought_ranges(image, start)
        return
    for offset, length in struct.iter_unpack("=2Q", _allocator.data_ranges(extents)):
        yield offset, offset + length


def _sought_ranges(image: int, start: int) -> Iterator[tuple[int, int]]:
    offset = start
    while True:
        try:
            offset = os.lseek(image, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        end = os.lseek(image, offset, os.SEEK_HOLE)
        yield offset, end
        offset = end


def set_aside(path: Path, size_bytes: int) -> bool:
    """Allocate blocks behind the end of a file, so that it grows to ``size_bytes`` even on a full filesystem.

    Answers False where the filesystem has no room for that, or no way.
    """
    try:
        with opened(path) as file:
            return _fallocate(file, _FALLOC_FL_KEEP_SIZE, 0, size_bytes)
    except OSError:
        return False


def free(path: Path) -> None:
    """Free the image's blocks in slices, then its name. One that is not there is free.

    A single unlink of a large, fragmented file holds the filesystem's journal for seconds.
    """
    with suppress(FileNotFoundError):
        with opened(path) as image:
            size = os.fstat(image).st_size
            while size > _FREE_SLICE_BYTES:
                size -= _FREE_SLICE_BYTES
                os.ftruncate(image, size)
            os.ftruncate(image, 0)
        path.unlink()


def _fallocate(image: int, mode: int, offset: int, length: int) -> bool:
    result = _libc.fallocate(image, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
    if not result:
        return True
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number))


def _rewrite(image: int) -> None:
    """Write all data once more in place, which makes the filesystem give it blocks of its own."""
    for start, end in list(data_ranges(image)):
        for offset in range(start, end, _COPY_BYTES):
            os.pwrite(image, os.pread(image, min(_COPY_BYTES, end - offset), offset), offset)


def _no_copy_on_write(image: int) -> None:
    """On btrfs, let an empty image be overwritten in place, as ext4 and XFS do: thick would mean nothing otherwise."""
    if os.fstat(image).st_size or not _is_btrfs(image):
        return
    flags = bytearray(8)
    fcntl.ioctl(image, _FS_IOC_GETFLAGS, flags)
    (value,) = struct.unpack("=Q", flags)
    with suppress(OSError):  # a read-only attribute only costs speed
        fcntl.ioctl(image, _FS_IOC_SETFLAGS, struct.pack("=Q", value | _FS_NOCOW_FL))


def _is_btrfs(image: int) -> bool:
    found = bytearray(256)
    buffer = (ctypes.c_char * len(found)).from_buffer(found)
    return bool(_libc.fstatfs(image, buffer) == 0) and struct.unpack_from("=q", found)[0] == _BTRFS_MAGIC
