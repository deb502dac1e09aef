"""When a file was changed, as its server has it now: a client of NFS answers stat(2) from memory for up to a minute."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

__all__ = ["changed_ns"]

_SYMLINK_NOFOLLOW: Final = 0x100
_FORCE_SYNC: Final = 0x2000
_CTIME: Final = 0x80
_STATX_BYTES: Final = 256
_CTIME_OFFSET: Final = 96
"""Of stx_ctime in struct statx: seconds, then nanoseconds."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def changed_ns(directory: int, name: str) -> int:
    """The ctime of ``name`` itself in an open directory, asked of the server where there is one."""
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if _libc.statx(directory, os.fsencode(name), _SYMLINK_NOFOLLOW | _FORCE_SYNC, _CTIME, answer) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    seconds, nanoseconds = struct.unpack_from("=qI", answer, _CTIME_OFFSET)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
