"""Whether what is mounted still is the volume that it was.

A mounted filesystem holds its device; the bound node of a raw block device does not. Detached by hand, the device
may be another volume's by the time of the next call, and the mount table looks as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_core.node.mountinfo import Mount

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.node.mounts import Mounts

__all__ = ["in_use", "is_volume"]


def is_volume(mounts: Mounts, backend: Backend, handle: str, mount: Mount) -> bool:
    """Whether ``mount`` shows this volume; taken for granted where the backend has no ``find_source``."""
    if "find_source" not in backend.hooks:
        return True
    source = backend.find_source(handle)
    return source is not None and mounts.shows(mount, source)


def in_use(mounts: Mounts, backend: Backend, handle: str) -> bool:
    """Whether this volume is mounted anywhere; not known, and so False, where the backend has no ``find_source``."""
    source = backend.find_source(handle) if "find_source" in backend.hooks else None
    return source is not None and mounts.in_use(source)
