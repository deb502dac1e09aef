"""The one door to the kernel's mount calls (fsopen(2) and its kin, umount2(2)).

The mount calls of Linux 5.12 let a mount be made complete before anybody can see it: a filesystem is
mounted *detached*, grown and marked, and appears at its path in one step; a bind is read-only from
the moment it exists. A process killed half way leaves nothing behind, since a detached mount ends
with its descriptor. ctypes releases the GIL while the kernel works.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from csi_core.errors import CallError, FailedPrecondition, NotFound, PermissionDenied, StorageFailure

__all__ = ["ATTRIBUTES", "attach", "bind", "detached_filesystem", "unmount"]

# numbers shared by all architectures since the generic table of 5.2
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_CLOEXEC: Final = os.O_CLOEXEC
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_UMOUNT_NOFOLLOW: Final = 8
_BUSY_FOR_A_MOMENT_S: Final = 1.0
_BUSY_POLL_S: Final = 0.01

ATTRIBUTES: Final = {
    "ro": 0x01,
    "nosuid": 0x02,
    "nodev": 0x04,
    "noexec": 0x08,
    "noatime": 0x10,
    "strictatime": 0x20,
    "nodiratime": 0x80,
    "relatime": 0x00,
}
"""Options of a single mount (MOUNT_ATTR_*), as opposed to those of its filesystem."""
_ATIME_MASK: Final = 0x70

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("ns", ctypes.c_uint64),
    )


def _call(number: int, *arguments: object) -> int:
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def _attribute_bits(attributes: Sequence[str]) -> int:
    bits = 0
    for attribute in attributes:
        bits |= ATTRIBUTES[attribute]
    return bits


@contextmanager
def detached_filesystem(
    fs_type: str, source: str, options: Sequence[str], attributes: Sequence[str], read_only: bool
) -> Iterator[int]:
    """Mount a filesystem where nobody sees it; :func:`attach` puts it in place.

    Args:
        fs_type: as the kernel calls it.
        source: path of the block device.
        options: of the filesystem, ``name`` or ``name=value``; checked against the allow-list by the caller.
        attributes: of the mount: keys of :data:`ATTRIBUTES`.
        read_only: the filesystem itself, not only this mount of it.

    Yields:
        A descriptor of the mount; without :func:`attach`, leaving the context unmounts.

    Raises:
        CallError: with the kernel's own words where it has any.
    """
    what = f"mounting {source} as {fs_type}"
    try:
        context = _call(_FSOPEN, fs_type.encode(), _FSOPEN_CLOEXEC)
    except OSError as error:
        raise _explain(error, what, "") from error
    try:
        _configure(context, _FSCONFIG_SET_STRING, "source", source)
        for option in ("ro", *options) if read_only else options:
            name, has_value, value = option.partition("=")
            what = f"mounting {source} as {fs_type} with the option {option}"
            _configure(context, _FSCONFIG_SET_STRING if has_value else _FSCONFIG_SET_FLAG, name, value or None)
        what = f"mounting {source} as {fs_type}" + (f" with {','.join(options)}" if options else "")
        _configure(context, _FSCONFIG_CMD_CREATE, None, None)
        mount = _call(_FSMOUNT, context, _FSMOUNT_CLOEXEC, _attribute_bits(attributes))
    except OSError as error:
        raise _explain(error, what, _kernel_messages(context)) from error
    finally:
        os.close(context)
    try:
        yield mount
    finally:
        os.close(mount)


def _configure(context: int, command: int, key: str | None, value: str | None) -> None:
    _call(_FSCONFIG, context, command, key.encode() if key else None, os.fsencode(value) if value else None, 0)


def _kernel_messages(context: int) -> str:
    said = []
    with contextlib.suppress(OSError):  # ENODATA is the end
        while message := os.read(context, 4096):
            said.append(message.decode(errors="replace").strip().partition(" ")[2])
    return "; ".join(said)


def attach(mount: int, path: Path) -> None:
    """Put a detached mount in place at ``path``, which is not followed if it is a symbolic link."""
    try:
        _call(_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(path), _MOVE_MOUNT_F_EMPTY_PATH)
    except OSError as error:
        raise _explain(error, f"mounting at {path}", "") from error


def bind(source: Path, target: Path, attributes: Sequence[str] = ()) -> None:
    """Show ``source`` (a directory or a file) at ``target`` too.

    The new mount has the attributes of the one that ``source`` is on and ``attributes`` besides, from its first moment.
    """
    what = f"binding {source} to {target}"
    try:
        mount = _call(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE | _CLOEXEC)
    except OSError as error:
        raise _explain(error, what, "") from error
    try:
        if bits := _attribute_bits(attributes):
            change = _MountAttr(set=bits, clear=_ATIME_MASK if bits & _ATIME_MASK else 0)
            _call(_MOUNT_SETATTR, mount, b"", _AT_EMPTY_PATH, ctypes.byref(change), ctypes.sizeof(change))
        _call(_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
    except OSError as error:
        raise _explain(error, what, "") from error
    finally:
        os.close(mount)


def unmount(path: Path) -> bool:
    """Take away the mount on top at ``path``; False where it stays in use. Never lazily: a detach may follow.

    Who only looks at it uses it for a moment: whoever reads its statistics, or grows it. That is waited for.
    """
    give_up = time.monotonic() + _BUSY_FOR_A_MOMENT_S
    while _libc.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW) != 0:
        code = ctypes.get_errno()
        if code != errno.EBUSY:
            raise _explain(OSError(code, os.strerror(code)), f"unmounting {path}", "")
        if time.monotonic() >= give_up:
            return False
        time.sleep(_BUSY_POLL_S)
    return True


_REASONS: Final = {
    errno.EPERM: (PermissionDenied, "the driver lacks CAP_SYS_ADMIN; run its container privileged"),
    errno.EACCES: (PermissionDenied, "access denied, or the device is write-protected"),
    errno.ENOSYS: (FailedPrecondition, "this kernel lacks the mount calls; Linux 5.12 or later is needed"),
    errno.ENODEV: (FailedPrecondition, "this kernel does not know the filesystem; load its module"),
    errno.EROFS: (FailedPrecondition, "the device is write-protected and the filesystem has a journal to replay"),
    errno.EBUSY: (FailedPrecondition, "it is in use with other options or exclusively by something else"),
    errno.EEXIST: (
        FailedPrecondition,
        "a copy of this filesystem with the same UUID is mounted already; for btrfs that takes Linux 6.7 or later",
    ),
    errno.EINVAL: (FailedPrecondition, "an option this kernel does not take, or a superblock it cannot read"),
    errno.EUCLEAN: (StorageFailure, "the filesystem is damaged; check it with fsck while it is unmounted"),
    errno.ENOENT: (NotFound, "no such path"),
}


def _explain(error: OSError, what: str, kernel_messages: str) -> CallError:
    kind, reason = _REASONS.get(error.errno or 0, (StorageFailure, ""))
    said = "; ".join(part for part in (kernel_messages, reason) if part)
    return kind(f"{what}: {error.strerror}" + (f" ({said})" if said else ""))
