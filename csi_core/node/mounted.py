"""A mounted filesystem that is looked at again and again, and grown: for volumes that get their room as they fill up.

Nothing of it is held open in between, or it could not be unmounted; so each look makes sure that it still is the same.
"""

from __future__ import annotations

import os
from pathlib import Path

from csi_core.errors import NotFound
from csi_core.node import growth
from csi_core.node.mkfs_options import FILESYSTEMS
from csi_core.node.mountinfo import MountTable

__all__ = ["MountedFilesystem", "filesystem_on"]


class MountedFilesystem:
    """See :class:`csi_core.hookspecs.MountedFilesystem`."""

    def __init__(self, path: Path, fs_type: str, device: Path) -> None:
        """``path`` is a writable mount of the filesystem on ``device``."""
        self._path = path
        self._fs_type = fs_type
        self._device = device
        self._number = path.stat().st_dev

    def free_bytes(self) -> int | None:
        """What can still be written, or None where it is mounted there no longer."""
        try:
            status = os.statvfs(self._path)
            same = self._path.stat().st_dev == self._number
        except OSError:
            return None
        return status.f_bavail * status.f_frsize if same else None

    def grow(self) -> None:
        """Grow it to its device; one that fills it is left alone. Waits while it is frozen.

        Raises:
            NotFound: it is mounted there no longer.
            Busy, FailedPrecondition, StorageFailure: as :func:`csi_core.node.growth.grow`.
        """
        try:
            root = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(f"the filesystem on {self._device} is not mounted at {self._path} any more") from error
        try:
            if os.fstat(root).st_dev != self._number:
                raise NotFound(f"the filesystem on {self._device} is not mounted at {self._path} any more")
            growth.grow(root, self._fs_type, self._device)
        finally:
            os.close(root)


def filesystem_on(device: Path) -> MountedFilesystem | None:
    """The filesystem on a device, where it is mounted writable on this node."""
    for mount in MountTable.read().of_device(device):
        if mount.root == "/" and not mount.read_only and mount.fs_type in FILESYSTEMS:
            try:
                return MountedFilesystem(mount.path, mount.fs_type, device)
            except OSError:
                continue
    return None
