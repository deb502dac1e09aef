"""A private view of the root in which no symbolic link is followed and no device opened, whatever a tenant makes.

It is a mount of its own that no path leads to; it goes with the last descriptor that is opened through it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

import structlog

__all__ = ["guarded"]

_log = structlog.get_logger(__name__)
_OPEN_TREE: Final = 428
_MOUNT_SETATTR: Final = 442
"""The same numbers on every architecture: they are younger than unified system call numbers."""

_AT_EMPTY_PATH: Final = 0x1000
_CLONE: Final = 1
_NOSUID: Final = 0x2
_NODEV: Final = 0x4
_NOEXEC: Final = 0x8
_NOSYMFOLLOW: Final = 0x200000
_NOT_HERE: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL})

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Attributes(ctypes.Structure):
    """``struct mount_attr`` of linux/mount.h."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def guarded(directory: int) -> int | None:
    """Open the same directory again, guarded; None where the kernel (before 5.12) or this process's rights forbid it.

    The caller keeps ``directory`` open as well: it alone keeps the filesystem from being unmounted behind the guard.
    """
    try:
        mounted = _call(_OPEN_TREE, directory, b"", _AT_EMPTY_PATH | _CLONE | os.O_CLOEXEC)
        try:
            attributes = _Attributes(attr_set=_NOSUID | _NODEV | _NOEXEC | _NOSYMFOLLOW)
            size = ctypes.sizeof(attributes)
            _call(_MOUNT_SETATTR, mounted, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size)
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
        finally:
            os.close(mounted)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        _log.warning("the root cannot be mounted privately; copies take more care instead", reason=error.strerror)
        return None


def _call(number: int, *arguments: object) -> int:
    found = int(_libc.syscall(number, *arguments))
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found
