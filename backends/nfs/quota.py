"""Project quotas of XFS and ext4, by the system calls: a quota set by a program costs a process for each volume.

Both take the same calls: the project id is an attribute of a directory that everything made in it inherits, and
quotactl_fd(2) sets and reads the limit of an id. Needs CAP_SYS_ADMIN, Linux 5.14.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["ProjectUsage", "enforced", "project_of", "read", "read_all", "set_limit", "set_project"]

_QUOTACTL_FD: Final = 443
"""The same number on every architecture that is younger than unified system call numbers."""

_PROJECT_QUOTA: Final = 2
_GET: Final = 0x5803
_SET_LIMIT: Final = 0x5804
_GET_STATE: Final = 0x5808
_GET_NEXT: Final = 0x5809
_FIELD_BLOCKS_SOFT: Final = 1 << 2
_FIELD_BLOCKS_HARD: Final = 1 << 3
_PROJECT_ACCOUNTED: Final = 1 << 4
_PROJECT_ENFORCED: Final = 1 << 5
_BASIC_BLOCK_BYTES: Final = 512

_DQBLK: Final = struct.Struct("=bbHI6QiiHHbbbb3QiHh8x")
"""``struct fs_disk_quota`` of linux/dqblk_xfs.h."""
_STATE_BYTES: Final = 192
_STATE_HEAD: Final = struct.Struct("=bbH")

_GET_ATTRIBUTES: Final = 0x801C581F
_SET_ATTRIBUTES: Final = 0x401C5820
_ATTRIBUTES: Final = struct.Struct("=5I8x")
"""``struct fsxattr`` of linux/fs.h."""
_INHERIT_PROJECT: Final = 0x200

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class ProjectUsage:
    """What a project id has used and may use, in bytes; ``limit_bytes`` 0 means no limit."""

    used_bytes: int
    limit_bytes: int
    inodes: int


def enforced(directory: int) -> bool:
    """Whether the filesystem of this open directory counts and enforces project quotas."""
    state = ctypes.create_string_buffer(b"\1", _STATE_BYTES)
    try:
        _quotactl(directory, _GET_STATE, 0, state)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.ESRCH, errno.EOPNOTSUPP, errno.ENODEV):
            return False
        raise
    flags = _STATE_HEAD.unpack_from(state.raw)[2]
    wanted = _PROJECT_ACCOUNTED | _PROJECT_ENFORCED
    return bool(flags & wanted == wanted)


def set_project(directory: int, project_id: int) -> None:
    """Give an open, empty directory a project id, which everything made in it inherits."""
    attributes = bytearray(_ATTRIBUTES.size)
    fcntl.ioctl(directory, _GET_ATTRIBUTES, attributes)
    flags, extent_size, extents, _, cow_extent_size = _ATTRIBUTES.unpack_from(attributes)
    wanted = _ATTRIBUTES.pack(flags | _INHERIT_PROJECT, extent_size, extents, project_id, cow_extent_size)
    fcntl.ioctl(directory, _SET_ATTRIBUTES, wanted)


def project_of(directory: int) -> int:
    """The project id of an open directory; 0 where it has none."""
    attributes = bytearray(_ATTRIBUTES.size)
    fcntl.ioctl(directory, _GET_ATTRIBUTES, attributes)
    return int(_ATTRIBUTES.unpack_from(attributes)[3])


def set_limit(directory: int, project_id: int, limit_bytes: int) -> None:
    """Limit what the files of a project may take in all.

    Args:
        directory: any open directory of the filesystem.
        project_id: the id.
        limit_bytes: the limit, rounded up to 512 bytes; 0 for none.
    """
    blocks = -(-limit_bytes // _BASIC_BLOCK_BYTES)
    fields = _FIELD_BLOCKS_SOFT | _FIELD_BLOCKS_HARD
    # No soft limit: it would let a volume be written for a week only.
    record = _DQBLK.pack(1, _PROJECT_QUOTA, fields, project_id, blocks, *(0,) * 19)
    _quotactl(directory, _SET_LIMIT, project_id, ctypes.create_string_buffer(record, _DQBLK.size))


def read(directory: int, project_id: int) -> ProjectUsage:
    """What a project id has used and may use; nothing of either where nobody has it."""
    record = ctypes.create_string_buffer(_DQBLK.size)
    try:
        _quotactl(directory, _GET, project_id, record)
    except FileNotFoundError:
        return ProjectUsage(0, 0, 0)
    fields = _DQBLK.unpack(record.raw)
    return ProjectUsage(fields[8] * _BASIC_BLOCK_BYTES, fields[4] * _BASIC_BLOCK_BYTES, fields[9])


def read_all(directory: int) -> Iterator[tuple[int, int]]:
    """The project ids of the filesystem that anything is counted for, 0 included, and their used bytes."""
    record = ctypes.create_string_buffer(_DQBLK.size)
    project_id = 0
    while project_id < 1 << 32:
        try:
            _quotactl(directory, _GET_NEXT, project_id, record)
        except FileNotFoundError:
            return
        fields = _DQBLK.unpack(record.raw)
        yield fields[3], fields[8] * _BASIC_BLOCK_BYTES
        project_id = fields[3] + 1


def _quotactl(directory: int, command: int, project_id: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    if _libc.syscall(_QUOTACTL_FD, directory, command << 8 | _PROJECT_QUOTA, project_id, buffer) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
