"""One process of a node serves a volume group: another one would take what is being made for something half done."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from csi_core.errors import StorageFailure, Unavailable

__all__ = ["locked"]

_DIRECTORY: Final = Path("/run/lock/lvm")
"""LVM's own, which every container with LVM's commands has to share with its host."""


def locked(volume_group: str) -> int:
    """A descriptor that holds the group's lock until it is closed, or its process ends.

    Raises:
        Unavailable: another process serves the group; the one before this, perhaps, which is just ending.
        StorageFailure: no lock can be had.
    """
    path = _DIRECTORY / f"csi-core-{volume_group}"
    try:
        _DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StorageFailure(f"volume group {volume_group} cannot be locked: {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Unavailable(
            f"volume group {volume_group} is served by another process of this node; stop it (fuser {path} shows "
            "which), or give this one a group of its own"
        ) from error
    return lock
