"""NodeGetVolumeStats and NodeExpandVolume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from csi_core.errors import NotFound
from csi_core.model import BlockSource, VolumeMode
from csi_core.node.identity import is_volume
from csi_core.node.mountinfo import Mount, canonical
from csi_core.node.requests import VolumeUsage
from csi_core.node.staging import staged_path

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.node.mounts import Mounts

__all__ = ["mounted_volume", "usage"]


def mounted_volume(mounts: Mounts, backend: Backend, handle: str, volume_path: Path) -> Mount:
    """The mount at a path that the CO says a volume is at: a target path or a staging path.

    Raises:
        NotFound: nothing is mounted there, or another volume.
    """
    if volume_path.is_absolute() and "\0" not in str(volume_path):
        paths = (canonical(volume_path), staged_path(volume_path, VolumeMode.BLOCK))
        mounted = next((m for m in map(mounts.at, paths) if m is not None), None)
        if mounted and is_volume(mounts, backend, handle, mounted):
            return mounted
    raise NotFound(f"volume {handle} is not mounted at {volume_path}")


def usage(mounts: Mounts, backend: Backend, handle: str, volume_path: Path) -> tuple[VolumeUsage, ...]:
    """Bytes and inodes of a filesystem; for raw block only the size (CSI "NodeGetVolumeStats")."""
    mounted = mounted_volume(mounts, backend, handle, volume_path)
    if mounts.is_device(mounted):
        return (VolumeUsage("bytes", mounts.device_size_bytes(mounted.path)),)
    found = mounts.usage(mounted)
    ungrown_bytes = _ungrown_bytes(mounts, backend, handle)
    return tuple(_with_room(usage, ungrown_bytes) if usage.unit == "bytes" else usage for usage in found)


def _ungrown_bytes(mounts: Mounts, backend: Backend, handle: str) -> int:
    """What an elastic volume will still get: to its user it is there already."""
    source = backend.find_source(handle) if "find_source" in backend.hooks else None
    if not isinstance(source, BlockSource) or not source.elastic:
        return 0
    return max(0, source.size_bytes - mounts.device_size_bytes(source.device))


def _with_room(usage: VolumeUsage, more_bytes: int) -> VolumeUsage:
    if usage.available is None:
        return usage
    return replace(usage, total=usage.total + more_bytes, available=usage.available + more_bytes)
