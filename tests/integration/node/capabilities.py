"""Capabilities in short, for the tests beside this file."""

from __future__ import annotations

from csi_core.model import AccessMode, VolumeCapability, VolumeMode

__all__ = ["FILESYSTEMS", "block", "filesystem"]

FILESYSTEMS = ("ext4", "xfs", "btrfs")


def filesystem(
    fs_type: str = "ext4",
    *flags: str,
    access_mode: AccessMode = AccessMode.SINGLE_NODE_MULTI_WRITER,
    mount_group: str = "",
) -> VolumeCapability:
    return VolumeCapability(VolumeMode.FILESYSTEM, access_mode, fs_type, flags, mount_group)


def block(access_mode: AccessMode = AccessMode.SINGLE_NODE_MULTI_WRITER) -> VolumeCapability:
    return VolumeCapability(VolumeMode.BLOCK, access_mode)
