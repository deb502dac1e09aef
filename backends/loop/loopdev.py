"""Loop devices, driven by ioctl: no process is spawned.

An attachment is known by its backing file's device and inode number, never by its path: paths can be
renamed, are cut off at 64 bytes, and look different in a container. Where many volumes share a backing file, the
offset of each tells them apart; a block device is known by its own number, whatever node it was opened by.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from backends.loop.loop_control import free_number, opened, read_attribute, renew, write_attribute
from csi_core.errors import Busy, StorageFailure, Unavailable

__all__ = [
    "BLOCK_SIZE_BYTES",
    "Backing",
    "LoopDevice",
    "attach",
    "attached",
    "detach",
    "find",
    "fit_size",
    "keep",
    "limit_size",
    "tune_discard",
]

BLOCK_SIZE_BYTES: Final = 4096
"""Set at configure time: with 512-byte sectors over a reflinked XFS file, direct I/O is refused silently."""

_SYS_BLOCK: Final = Path("/sys/block")
_LOOP_CLR_FD: Final = 0x4C01
_LOOP_SET_STATUS64: Final = 0x4C04
_LOOP_GET_STATUS64: Final = 0x4C05
_LOOP_SET_CAPACITY: Final = 0x4C07
_LOOP_CONFIGURE: Final = 0x4C0A
_BLKGETSIZE64: Final = 0x80081272
_BLKROSET: Final = 0x125D
_READ_ONLY: Final = 1
_AUTOCLEAR: Final = 4
_DIRECT_IO: Final = 16

_INFO: Final = struct.Struct("=5Q4I64s64s32s2Q")  # struct loop_info64
_CONFIG_HEAD: Final = struct.Struct("=2I")  # struct loop_config: fd and block size, then loop_info64, then 64 bytes
_CONFIG_TAIL: Final = bytes(64)

_GOING: Final = (errno.ENOENT, errno.ENXIO, errno.ENODEV)
"""Opening a device that is being removed or, before Linux 6.11, unbound at this moment."""

_FREE_ATTEMPTS: Final = 200
_DETACH_WAIT_S: Final = 5.0
_POLL_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Backing:
    """What a loop device shows: a file from an offset on.

    Attributes:
        device, inode: ``st_dev`` and ``st_ino`` of a file; number of a block device, and 0.
        offset_bytes: where in it the device begins; None, where one is looked for, for anywhere.
    """

    device: int
    inode: int
    offset_bytes: int | None = None

    @classmethod
    def of(cls, found: os.stat_result, offset_bytes: int | None = None) -> Backing:
        """A file or block device that was looked at."""
        if stat.S_ISBLK(found.st_mode):
            return cls(found.st_rdev, 0, offset_bytes)
        return cls(found.st_dev, found.st_ino, offset_bytes)

    @property
    def anywhere(self) -> Backing:
        """The same file, whatever the offset."""
        return Backing(self.device, self.inode)


@dataclass(frozen=True, slots=True)
class LoopDevice:
    """An attached loop device.

    Attributes:
        number: the N of ``/dev/loopN``.
        backing: what it shows.
        size_limit_bytes: bytes of the file that the device shows, 0 for all of it.
        flags: ``LO_FLAGS_*``.
    """

    number: int
    backing: Backing
    size_limit_bytes: int
    flags: int

    @property
    def node(self) -> Path:
        """The device node."""
        return Path(f"/dev/loop{self.number}")

    @property
    def read_only(self) -> bool:
        """Whether the device refuses writes."""
        return bool(self.flags & _READ_ONLY)

    @property
    def direct_io(self) -> bool:
        """Whether the device bypasses the host's page cache, read back from the kernel."""
        return read_attribute(self.number, "loop/dio") == "1"

    @property
    def backing_path(self) -> str:
        """The backing file as the kernel names it now; ends in `` (deleted)`` for an unlinked one."""
        return read_attribute(self.number, "loop/backing_file")

    @property
    def writes(self) -> tuple[int, int, int]:
        """How many writes and discards have ended since the device was made, and how many are under way.

        Raises:
            FileNotFoundError: it was removed meanwhile.
        """
        ended, under_way = read_attribute(self.number, "stat").split(), read_attribute(self.number, "inflight").split()
        if not ended or not under_way:
            raise FileNotFoundError(errno.ENOENT, "the loop device was removed", str(self.node))
        return int(ended[4]), int(ended[11]), int(under_way[1])

    @property
    def held(self) -> bool:
        """Whether something opened it exclusively: a mount, a swap area, another block device."""
        try:
            descriptor = os.open(self.node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return True
            raise
        os.close(descriptor)
        return False


_last_found: Final[dict[Backing, int]] = {}
"""Where an image was bound when it was last looked for: looked at first, before every other device."""


def attach(
    image: int, *, read_only: bool, direct_io: bool, offset_bytes: int = 0, size_limit_bytes: int = 0
) -> LoopDevice:
    """Attach the open file ``image`` to a free loop device, with blocks of 4096 bytes.

    Args:
        image: a descriptor, open for writing unless ``read_only``; it can be closed afterwards.
        read_only: the device refuses writes.
        direct_io: ask for direct I/O. Whether it was granted: :attr:`LoopDevice.direct_io`.
        offset_bytes, size_limit_bytes: show this much of the file from there on; 0 for all that follows.

    Raises:
        Unavailable: no loop device came free.
        StorageFailure: the kernel refused the file.
    """
    flags = (_READ_ONLY if read_only else 0) | (_DIRECT_IO if direct_io else 0)
    config = (
        _CONFIG_HEAD.pack(image, BLOCK_SIZE_BYTES)
        + _INFO.pack(0, 0, 0, offset_bytes, size_limit_bytes, 0, 0, 0, flags, b"", b"", b"", 0, 0)
        + _CONFIG_TAIL
    )
    for _ in range(_FREE_ATTEMPTS):
        number = free_number()
        if renew(number):
            continue
        try:
            # Opened for writing here only: the kernel takes a read-only descriptor as the wish for a read-only device.
            with opened(number, os.O_RDWR) as device:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
                # The read-only mark of an earlier user of this device outlives its detach.
                fcntl.ioctl(device, _BLKROSET, struct.pack("=i", read_only))
                found = _status(number, device)
        except OSError as error:
            # GET_FREE does not reserve: udev, another driver or a person may have taken the device meanwhile.
            if error.errno in (errno.EBUSY, errno.ENXIO, errno.ENODEV):
                time.sleep(_POLL_S / 5)
                continue
            raise StorageFailure(f"/dev/loop{number} cannot be configured: {error.strerror}") from error
        if found:
            return found
    raise Unavailable("no free loop device could be claimed; look at losetup -l and at /dev/loop-control")


def find(backing: Backing) -> LoopDevice | None:
    """The loop device that shows ``backing``, or None."""
    number = _last_found.get(backing)
    seen = [device] if number is not None and (device := _shown(number)) else []
    for device in chain(seen, attached()):
        if backing in (device.backing, device.backing.anywhere):
            _last_found[backing] = device.number
            return device
    _last_found.pop(backing, None)
    return None


def attached() -> Iterator[LoopDevice]:
    """Every loop device that is bound to a file now."""
    for entry in os.scandir(_SYS_BLOCK):
        if not entry.name.startswith("loop") or not Path(entry.path, "loop").is_dir():
            continue
        number = int(entry.name.removeprefix("loop"))
        if found := _shown(number):  # yielded after it is closed: an open descriptor would make a detach lazy
            yield found


def fit_size(device: LoopDevice, size_bytes: int) -> int:
    """Make an attached device show ``size_bytes`` of its file, never less than it shows now; answer its size.

    Raises:
        StorageFailure: the kernel refused.
    """
    with opened(device.number) as descriptor:
        present = _size(descriptor)
        if present >= size_bytes:
            return present
        if device.size_limit_bytes:
            _set_status(descriptor, device, size_limit_bytes=size_bytes, flags=device.flags)
        else:
            fcntl.ioctl(descriptor, _LOOP_SET_CAPACITY)
        present = _size(descriptor)
    if present < size_bytes:
        raise StorageFailure(f"{device.node} shows {present} bytes after growing to {size_bytes}")
    return present


def limit_size(device: LoopDevice, size_bytes: int) -> LoopDevice:
    """Show only the first ``size_bytes`` of a longer file (an expansion that was cut off before its commit)."""
    with opened(device.number) as descriptor:
        _set_status(descriptor, device, size_limit_bytes=size_bytes, flags=device.flags)
        return _status(device.number, descriptor) or device


def keep(device: LoopDevice) -> LoopDevice:
    """Revoke a lazy detach that is still waiting for the last user, so that the device stays.

    Raises:
        Busy: it was too late.
    """
    if not device.flags & _AUTOCLEAR:
        return device
    with opened(device.number) as descriptor:
        _set_status(descriptor, device, size_limit_bytes=device.size_limit_bytes, flags=device.flags & ~_AUTOCLEAR)
        return _status(device.number, descriptor) or device


def tune_discard(device: LoopDevice, limit_bytes: int) -> None:
    """Cap one discard at ``limit_bytes``; 0 forbids, for good, every request that would punch a hole in the image."""
    # The limit outlives a detach, and setting it stops the queue for some 10 ms, a third of what a stage takes.
    if read_attribute(device.number, "queue/discard_max_bytes") != str(limit_bytes):
        write_attribute(device.number, "queue/discard_max_bytes", limit_bytes)
    if limit_bytes == 0:
        # Kernels from 6.17 on. On older ones write-zeroes may still punch; attach fills the holes again.
        write_attribute(device.number, "queue/write_zeroes_unmap_max_bytes", 0)


def detach(device: LoopDevice) -> None:
    """Unbind ``device`` from its file and wait until that is true: the ioctl itself is lazy and always succeeds.

    Raises:
        Busy: something holds the device open; it unbinds by itself when that ends.
    """
    if not _same(device, _shown(device.number)):
        return
    with opened(device.number) as descriptor:
        if not _same(device, _status(device.number, descriptor)):
            return
        # The kernel would keep the mark for whatever is bound to the device next.
        fcntl.ioctl(descriptor, _BLKROSET, struct.pack("=i", 0))
        fcntl.ioctl(descriptor, _LOOP_CLR_FD)
    give_up = time.monotonic() + _DETACH_WAIT_S
    while _same(device, _shown(device.number)):
        if time.monotonic() >= give_up:
            raise Busy(f"{device.node} is still held open by a process or a mount; it detaches when that ends")
        time.sleep(_POLL_S)
    for backing in (device.backing, device.backing.anywhere):
        _last_found.pop(backing, None)
    renew(device.number)


def _same(device: LoopDevice, found: LoopDevice | None) -> bool:
    """Whether ``found``, read just now, still shows the file that ``device`` was seen to show."""
    return found is not None and found.backing == device.backing


def _shown(number: int) -> LoopDevice | None:
    """What is bound to a device now; None where nothing is, or where it is just going."""
    try:
        with opened(number) as device:
            return _status(number, device)
    except OSError as error:
        if error.errno in _GOING:
            return None
        raise


def _status(number: int, device: int) -> LoopDevice | None:
    info = bytearray(_INFO.size)
    try:
        fcntl.ioctl(device, _LOOP_GET_STATUS64, info)
    except OSError as error:
        if error.errno == errno.ENXIO:  # not bound
            return None
        raise
    fields = _INFO.unpack(info)
    device, inode, block_device, offset_bytes, size_limit_bytes, *_ = fields
    # A block device is told by its own number: its inode belongs to the /dev that it was opened through. (Old kernels
    # repeat a file's device there.)
    if block_device not in (0, device):
        device, inode = block_device, 0
    backing = Backing(device, inode, offset_bytes)
    return LoopDevice(number, backing, size_limit_bytes, fields[8])


def _set_status(descriptor: int, device: LoopDevice, *, size_limit_bytes: int, flags: int) -> None:
    info = bytearray(_INFO.size)
    try:
        # Between being found and being opened, which is what keeps it, it may have gone to another volume.
        if not _same(device, _status(device.number, descriptor)):
            raise Busy(f"{device.node} was detached at this moment; repeat the call")
        fcntl.ioctl(descriptor, _LOOP_GET_STATUS64, info)
        fields = list(_INFO.unpack(info))
        fields[4], fields[8] = size_limit_bytes, flags
        fcntl.ioctl(descriptor, _LOOP_SET_STATUS64, _INFO.pack(*fields))
    except OSError as error:
        raise StorageFailure(f"{device.node} cannot be changed: {error.strerror}") from error


def _size(device: int) -> int:
    answer = bytearray(8)
    fcntl.ioctl(device, _BLKGETSIZE64, answer)
    return int.from_bytes(answer, "little")
