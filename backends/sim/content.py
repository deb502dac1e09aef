"""The data of volumes and snapshots: one directory each, or one sparse file for raw block."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from csi_core import durable
from csi_core.errors import DataLoss
from csi_core.model import BlockRange, VolumeMode
from csi_core.run import run

__all__ = ["BLOCK_BYTES", "Content"]

BLOCK_BYTES = 4096
_COPY_TIMEOUT_S = 600.0


class Content:
    """Data by handle, below one directory. Handles must have been judged: they become file names."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, handle: str) -> Path:
        """Where the data of a handle is.

        Raises:
            DataLoss: it is not there.
        """
        path = self._directory / handle
        if not path.exists():
            raise DataLoss(f"{path} is missing: the data of {handle} is gone")
        return path

    def handles(self) -> set[str]:
        """Everything that there is data of."""
        return {path.name for path in self._directory.iterdir()}

    def create(self, handle: str, mode: VolumeMode, size_bytes: int) -> None:
        """Make empty content, durable on return; what a crash left behind under this handle is thrown away."""
        self.remove(handle)
        path = self._directory / handle
        if mode is VolumeMode.BLOCK:
            path.touch(mode=0o600)
            os.truncate(path, size_bytes)
        else:
            path.mkdir(mode=0o755)
        self._sync(path)

    def copy(self, source: str, handle: str) -> None:
        """Make ``handle`` a copy of ``source``, durable on return; holes stay holes."""
        self.remove(handle)
        path = self._directory / handle
        argv = ["cp", "--archive", "--reflink=auto", "--sparse=always", "--no-target-directory"]
        run([*argv, str(self.path(source)), str(path)], timeout_s=_COPY_TIMEOUT_S, mutates=True)
        self._sync(path)

    def grow(self, handle: str, size_bytes: int) -> None:
        """Make room for ``size_bytes``; a directory has no size of its own, and nothing ever shrinks."""
        path = self.path(handle)
        if path.is_file() and path.stat().st_size < size_bytes:
            os.truncate(path, size_bytes)
            self._sync(path)

    def remove(self, handle: str) -> None:
        """Remove the data; there may be none."""
        path = self._directory / handle
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def allocated(self, handle: str, start_bytes: int) -> Iterator[BlockRange]:
        """The blocks of a raw block content, from the one ``start_bytes`` is in, that are not all zero."""
        empty = bytes(BLOCK_BYTES)
        path = self.path(handle)
        return (block for block, data in _blocks(path, _extents(path), start_bytes) if data != empty)

    def changed(self, base: str, target: str, start_bytes: int) -> Iterator[BlockRange]:
        """The blocks, from the one ``start_bytes`` is in, in which two raw block contents differ."""
        old, new = self.path(base), self.path(target)
        extents = _extents(new) | _extents(old)
        with old.open("rb") as before:
            for block, data in _blocks(new, extents, start_bytes):
                if os.pread(before.fileno(), BLOCK_BYTES, block.offset_bytes).ljust(BLOCK_BYTES, b"\0") != data:
                    yield block

    def _sync(self, path: Path) -> None:
        for file in [*path.rglob("*"), path, self._directory]:
            if file.is_symlink() or not (file.is_file() or file.is_dir()):
                continue
            durable.sync(file)


def _extents(path: Path) -> set[int]:
    """The numbers of the blocks that are not in a hole."""
    blocks: set[int] = set()
    with path.open("rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole up to the end
                return blocks
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            blocks.update(range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES)))


def _blocks(path: Path, numbers: set[int], start_bytes: int) -> Iterator[tuple[BlockRange, bytes]]:
    with path.open("rb") as file:
        for number in sorted(numbers):
            offset = number * BLOCK_BYTES
            if offset + BLOCK_BYTES > start_bytes:
                data = os.pread(file.fileno(), BLOCK_BYTES, offset).ljust(BLOCK_BYTES, b"\0")
                yield BlockRange(offset, BLOCK_BYTES), data
