"""What of a pool's filesystem is neither free nor an image's, and so can be promised to nobody."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from backends.loop.image_files import ImageFiles

__all__ = ["filesystem_space", "others_bytes"]


def filesystem_space(path: Path) -> tuple[int, int]:
    """Total and free bytes of the filesystem at ``path``."""
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def others_bytes(files: ImageFiles) -> int:
    """Files of others, the ballast, and what the filesystem keeps for itself.

    It is too little where images share blocks, which count for each of them: who shares what is written nowhere.
    """
    directory = files.directory.parent
    used_bytes = _used_bytes(directory)
    allocated_bytes = files.allocated_bytes()
    # Images are written to and freed meanwhile; the lesser is nearer to what was seen of them.
    used_bytes = min(used_bytes, _used_bytes(directory))
    ballast_bytes = 0
    with suppress(FileNotFoundError):
        ballast_bytes = (directory / "ballast").stat().st_blocks * 512
    return max(used_bytes - allocated_bytes, ballast_bytes)


def _used_bytes(path: Path) -> int:
    total_bytes, free_bytes = filesystem_space(path)
    return total_bytes - free_bytes
