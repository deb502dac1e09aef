"""Segments: the block devices and preallocated files that volumes are packed into.

A segment begins with one extent that holds nothing but a label, so that a device which has got another one's name is
noticed before it is written to. Extent 0 of what can be given out lies behind it.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from backends.loop.loopdev import Backing
from csi_core.errors import DataLoss, Unavailable

__all__ = ["Label", "Segment", "aligned_buffer", "open_direct", "size_of"]

_LABEL_BYTES: Final = 4096
_MAGIC: Final = b"csi-core"
_FORMAT: Final = struct.Struct("<8sII16sQ")  # magic, format's version, number of the segment, pool, extent in bytes
_VERSION: Final = 1
_ABSENT: Final = (errno.ENOENT, errno.ENXIO, errno.ENODEV)
_CHECKSUM: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Label:
    """What stands at the beginning of a segment."""

    pool_uuid: str
    number: int
    extent_bytes: int

    def pack(self) -> bytes:
        """One block."""
        head = _FORMAT.pack(_MAGIC, _VERSION, self.number, UUID(self.pool_uuid).bytes, self.extent_bytes)
        return (head + _CHECKSUM.pack(zlib.crc32(head))).ljust(_LABEL_BYTES, b"\0")

    @classmethod
    def read(cls, descriptor: int) -> Label | None:
        """The label of an opened segment; None where there is none."""
        buffer = aligned_buffer(_LABEL_BYTES)
        if os.preadv(descriptor, [buffer], 0) < _LABEL_BYTES:
            return None
        head = buffer[: _FORMAT.size]
        (checksum,) = _CHECKSUM.unpack_from(buffer, _FORMAT.size)
        magic, version, number, pool, extent_bytes = _FORMAT.unpack(head)
        if magic != _MAGIC or version != _VERSION or checksum != zlib.crc32(head):
            return None
        return cls(str(UUID(bytes=pool)), number, extent_bytes)


class Segment:
    """An open segment of a pool.

    Attributes:
        number: its place in the pool.
        path: as it was given.
        descriptor: open for direct I/O, for zeroing and copying.
        found: its inode.
    """

    def __init__(self, path: Path, label: Label, extents: int) -> None:
        """Open it and make sure that it is the one.

        Raises:
            Unavailable: it is not there, as a disk that is attached or mounted later.
            DataLoss: it is another one, or shorter than recorded.
        """
        self.number = label.number
        self.path = path
        self._extent_bytes = label.extent_bytes
        try:
            self.descriptor = open_direct(path)
        except OSError as error:
            kind = Unavailable if error.errno in _ABSENT else DataLoss
            raise kind(f"segment {path}: {error.strerror}; attach its disk or put it back from a copy") from error
        try:
            self.found = os.fstat(self.descriptor)
            self.require(label, extents)
        except BaseException:
            os.close(self.descriptor)
            raise

    @property
    def is_block_device(self) -> bool:
        """Whether it is a block device and no file."""
        return stat.S_ISBLK(self.found.st_mode)

    def require(self, label: Label, extents: int) -> None:
        """Make sure that it has this label and is long enough.

        Raises:
            DataLoss: it is not so.
        """
        present = Label.read(self.descriptor)
        if present != label:
            what = f"segment {present.number} of pool {present.pool_uuid}" if present else "no segment of any pool"
            raise DataLoss(
                f"{self.path} is {what}, not segment {label.number} of pool {label.pool_uuid}; nothing on it was "
                "changed: look at the names of the devices"
            )
        size_bytes, wanted_bytes = size_of(self.descriptor), self.offset_of(extents)
        if size_bytes < wanted_bytes:
            raise DataLoss(f"segment {self.path} has {size_bytes} bytes of the {wanted_bytes} recorded; restore it")

    def offset_of(self, extent: int) -> int:
        """Where an extent begins, in bytes."""
        return (extent + 1) * self._extent_bytes

    def backing(self, extent: int) -> Backing:
        """What a loop device that begins at ``extent`` shows."""
        return Backing.of(self.found, self.offset_of(extent))

    @property
    def whole(self) -> Backing:
        """What a loop device over all of it shows."""
        return Backing.of(self.found, 0)

    @contextmanager
    def opened(self, *, write: bool) -> Iterator[int]:
        """A descriptor for a loop device, which chooses between direct and cached I/O by itself."""
        # Through /proc: the device or file that the label was read from, whatever the path leads to by now.
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC
        descriptor = os.open(f"/proc/self/fd/{self.descriptor}", flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def flush(self) -> None:
        """Make all that was written durable, the device's own cache included."""
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)


def aligned_buffer(size_bytes: int) -> mmap.mmap:
    """Zeroed memory that direct I/O takes."""
    return mmap.mmap(-1, size_bytes)


def open_direct(path: Path) -> int:
    """A descriptor that bypasses the page cache, where the filesystem has a way to."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_DIRECT)
    except OSError:
        return os.open(path, flags)


def size_of(descriptor: int) -> int:
    """Size of a file or block device, in bytes."""
    return os.lseek(descriptor, 0, os.SEEK_END)
