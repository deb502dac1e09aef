"""Whether what is mounted still is the volume that it was.

A mounted filesystem holds its device; the bound node of a raw block device does not. Detached by hand, the device
may be another volume's by the time of the next call, and the mount table looks as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_core.model import DirectorySource
from csi_core.node.mountinfo import Mount, canonical

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.node.mounts import Mounts

__all__ = ["in_use", "is_volume", "published"]


def is_volume(mounts: Mounts, backend: Backend, handle: str, mount: Mount) -> bool:
    """Whether ``mount`` shows this volume; taken for granted where the backend has no ``find_source``."""
    if "find_source" not in backend.hooks:
        return True
    source = backend.find_source(handle)
    return source is not None and mounts.shows(mount, source)


def published(mounts: Mounts, backend: Backend, handle: str, staged: Mount) -> tuple[Mount, ...]:
    """Where a staged volume is published.

    A directory that is a filesystem of its own (a dataset, say) is mounted by its backend too, which is no publication;
    that can be told where the backend has ``find_source``.
    """
    others = mounts.elsewhere(staged)
    source = backend.find_source(handle) if others and "find_source" in backend.hooks else None
    if not isinstance(source, DirectorySource):
        return others
    own = canonical(source.path)
    return tuple(m for m in others if m.path != own)


def in_use(mounts: Mounts, backend: Backend, handle: str) -> bool:
    """Whether this volume is mounted anywhere; not known, and so False, where the backend has no ``find_source``."""
    source = backend.find_source(handle) if "find_source" in backend.hooks else None
    return source is not None and mounts.in_use(source)
