"""Delegated fsGroup (CSI ``VOLUME_MOUNT_GROUP``)."""

from __future__ import annotations

import os
import re
import stat
from typing import Final

from csi_core.errors import InvalidArgument

__all__ = ["check_mount_group", "give_to_group"]

_GROUP_ID: Final = re.compile(r"\d{1,10}")
_HIGHEST_GROUP_ID: Final = (1 << 32) - 2
_GROUP_MODE: Final = stat.S_ISGID | stat.S_IRWXG


def check_mount_group(mount_group: str, served: bool) -> None:
    """Judge ``VolumeCapability.mount_group``: a group id in digits, for a backend that declares ``mount_group``.

    Raises:
        InvalidArgument: it is neither.
    """
    if not mount_group:
        return
    if not served:
        raise InvalidArgument("volume_mount_group is not served by this backend; leave fsGroup to the kubelet")
    if not _GROUP_ID.fullmatch(mount_group) or int(mount_group) > _HIGHEST_GROUP_ID:
        raise InvalidArgument(f"volume_mount_group {mount_group!r} is not a group id; give a number such as 2000")


def give_to_group(root: int, mount_group: str) -> None:
    """Make the root directory of a volume writable for a group and inherited by what is created in it.

    Only the root: walking a volume of millions of files would take longer than a pod may wait. Content that a copy
    brought along keeps its owners.

    Args:
        root: descriptor of the root directory.
        mount_group: a group id, checked.
    """
    group_id = int(mount_group)
    present = os.fstat(root)
    if present.st_gid != group_id:
        os.fchown(root, -1, group_id)
    if present.st_gid != group_id or present.st_mode & _GROUP_MODE != _GROUP_MODE:  # chown may clear the setgid bit
        os.fchmod(root, stat.S_IMODE(present.st_mode) | _GROUP_MODE)
