"""What is true after a power cut: files and directories brought to the disk.

A file that is to appear whole or not at all is written under another name, renamed, and its directory synced::

    write(new, content)
    new.rename(file)
    sync(file.parent)
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["sync", "write"]


def sync(path: Path) -> None:
    """Bring what a file or block device holds, or the names in a directory, to the disk.

    Raises:
        OSError: the disk refused; what was written before may be lost.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, content: bytes) -> None:
    """Make or replace a file with this content, and bring it to the disk; its name follows with its directory's sync.

    Raises:
        OSError: the disk refused.
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
