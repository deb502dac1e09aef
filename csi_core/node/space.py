"""Bytes and inodes of a filesystem, as CSI "NodeGetVolumeStats" wants them."""

from __future__ import annotations

import os
from pathlib import Path

from csi_core.node.requests import VolumeUsage

__all__ = ["local_usage", "usage_of"]


def local_usage(path: Path) -> tuple[VolumeUsage, ...]:
    """Of the filesystem that ``path`` is on. On a share whose server is dead this never returns."""
    status = os.statvfs(path)
    return usage_of(status.f_frsize, status.f_blocks, status.f_bfree, status.f_bavail, status.f_files, status.f_ffree)


def usage_of(
    unit_bytes: int, blocks: int, free: int, available: int, inodes: int, free_inodes: int
) -> tuple[VolumeUsage, ...]:
    """From the numbers of statvfs(3): blocks of ``unit_bytes``, and inodes."""
    volume_bytes = VolumeUsage("bytes", blocks * unit_bytes, (blocks - free) * unit_bytes, available * unit_bytes)
    if not inodes:  # btrfs makes inodes as it needs them
        return (volume_bytes,)
    return volume_bytes, VolumeUsage("inodes", inodes, inodes - free_inodes, free_inodes)
