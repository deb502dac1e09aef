"""Making what a device holds unreadable, in steps that can be stopped and begun again."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Final, Literal

from csi_core.background import Task
from csi_core.errors import StorageFailure

__all__ = ["wipe", "wipe_ends"]

_STEP_BYTES: Final = 256 << 20
_HEAD_BYTES: Final = 4 << 20
_TAIL_BYTES: Final = 2 << 20
"""Every signature that blkid knows lies this near to one of the ends: as in :mod:`csi_core.node.filesystems`."""
_ZEROS: Final = bytes(256 << 10)
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 0x01, 0x02, 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]


def wipe(device: Path, method: Literal["discard", "zero"], task: Task) -> None:
    """Have a block device read as zeros from end to end; durable on return.

    ``discard`` gives the blocks back to the device (write zeroes with unmap), and only where the kernel promises that
    they then read as zeros; a plain discard promises nothing. Where it does not, and for ``zero``, zeros are written.

    Raises:
        Cancelled: it was stopped half-way.
        StorageFailure: the device failed.
    """
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        size_bytes = os.lseek(descriptor, 0, os.SEEK_END)
        modes = [_PUNCH_HOLE, _ZERO_RANGE] if method == "discard" else [_ZERO_RANGE]
        for offset in range(0, size_bytes, _STEP_BYTES):
            modes = _zeroed(descriptor, device, modes, offset, min(_STEP_BYTES, size_bytes - offset))
            task.progress(offset, size_bytes)
        os.fsync(descriptor)
    except OSError as error:
        raise StorageFailure(f"{device} cannot be wiped: {error.strerror}") from error
    finally:
        os.close(descriptor)


def wipe_ends(device: Path) -> None:
    """Overwrite where signatures of filesystems, partition tables and RAID are; durable on return.

    What is zero already is left alone: to a copy-on-write snapshot each write is one.

    Raises:
        StorageFailure: the device failed.
    """
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        size_bytes = os.lseek(descriptor, 0, os.SEEK_END)
        head, tail = (0, min(_HEAD_BYTES, size_bytes)), (max(0, size_bytes - _TAIL_BYTES), size_bytes)
        for begin, end in (head, tail):
            for offset in range(begin, end, len(_ZEROS)):
                length = min(len(_ZEROS), end - offset)
                if os.pread(descriptor, length, offset) != _ZEROS[:length]:
                    _zeroed(descriptor, device, [_ZERO_RANGE], offset, length)
        os.fsync(descriptor)
    except OSError as error:
        raise StorageFailure(f"{device} cannot be wiped: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _zeroed(descriptor: int, device: Path, modes: list[int], offset: int, length: int) -> list[int]:
    """Zero a range in the first way that the device has; answer the ways that are left."""
    while modes:
        if _libc.fallocate(descriptor, modes[0] | _KEEP_SIZE, offset, length) == 0:
            return modes
        number = ctypes.get_errno()
        if number not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise OSError(number, os.strerror(number))
        modes = modes[1:]
    raise StorageFailure(f"{device} takes no zeroing at offset {offset}: its kernel driver is too old")
