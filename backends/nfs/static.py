"""Exports that an administrator made and a PersistentVolume names: mounted as they are, never made, never deleted.

Such a volume's handle is ``static.`` and any name; its PersistentVolume's attributes say ``server`` and ``share``.
"""

from __future__ import annotations

import re
from typing import Final

from csi_core.model import Volume

__all__ = ["is_static", "static_volume"]

_HANDLE: Final = re.compile(r"static\.[A-Za-z0-9._:-]{1,80}")


def is_static(handle: str) -> bool:
    """Whether ``handle`` names an export that is not this driver's."""
    return _HANDLE.fullmatch(handle) is not None


def static_volume(handle: str) -> Volume:
    """The volume of such a handle. Its size is not known, and nothing of it is recorded."""
    return Volume(handle, handle, 0)
