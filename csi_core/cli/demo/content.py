"""What the demo's pods write: a real file tree, or a pattern on a raw device; and its checksums.

Everything is derived from the Python standard library's own files, so two runs write the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

__all__ = ["BLOCK_BYTES", "Content", "Files", "Raw", "differing_blocks"]

BLOCK_BYTES = 4096
CHUNK_BYTES = 1 << 20

_LIBC = ctypes.CDLL(None, use_errno=True)


class Content(Protocol):
    """Something to write on a published volume. ``path`` is where the pod sees it."""

    def fill(self, path: Path) -> int:
        """Write all of it, flushed; answer how many bytes."""

    def change(self, path: Path) -> int:
        """Change what ``fill`` wrote here and there, flushed; answer how many bytes."""

    def checksums(self, path: Path) -> dict[str, str]:
        """SHA-256 of every part, read back from the volume."""


class Files:
    """A file tree: the standard library's modules, ``limit_bytes`` of them at most."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes

    def fill(self, path: Path) -> int:
        """Copy the modules, and link to their directory."""
        written = 0
        for name, data in _library(self._limit_bytes):
            target = path / "lib" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            written += target.write_bytes(data)
        (path / "latest").symlink_to("lib")
        flush(path)
        return written

    def change(self, path: Path) -> int:
        """Rewrite every tenth file, cut every eleventh to nothing, remove every twelfth, add one."""
        written = 0
        for number, name in enumerate(sorted(self._names(path))):
            target = path / name
            if number % 12 == 0:
                target.unlink()
            elif number % 11 == 0:
                target.write_bytes(b"")
            elif number % 10 == 0:
                written += target.write_bytes(target.read_bytes()[::-1] + b"changed")
        written += (path / "lib" / "added").write_bytes(_noise("added", CHUNK_BYTES))
        flush(path)
        return written

    def checksums(self, path: Path) -> dict[str, str]:
        """Of every file; of the link, where it leads."""
        sums = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in self._names(path)}
        return sums | {"latest": str((path / "latest").readlink())}

    @staticmethod
    def _names(path: Path) -> list[str]:
        return [str(p.relative_to(path)) for p in (path / "lib").rglob("*") if p.is_file()]


class Raw:
    """A pattern on a raw device: the first megabytes full, then single blocks far apart."""

    FULL_BYTES = 6 << 20
    SPARSE_OFFSETS = range(8 << 20, 40 << 20, 1 << 20)

    def fill(self, path: Path) -> int:
        """Write the pattern."""
        pieces = [(0, _noise("full", self.FULL_BYTES))]
        pieces += [(offset, _noise(f"at {offset}", BLOCK_BYTES)) for offset in self.SPARSE_OFFSETS]
        return self._write(path, pieces)

    def change(self, path: Path) -> int:
        """Overwrite single blocks, and write some where there was nothing."""
        inside = [(offset, _noise(f"new {offset}", BLOCK_BYTES)) for offset in range(0, self.FULL_BYTES, 700 * 1024)]
        fresh = [
            (offset + 64 * 1024, _noise(f"fresh {offset}", 3 * BLOCK_BYTES)) for offset in self.SPARSE_OFFSETS[::4]
        ]
        aligned = [(offset // BLOCK_BYTES * BLOCK_BYTES, data) for offset, data in inside + fresh]
        return self._write(path, aligned)

    def checksums(self, path: Path) -> dict[str, str]:
        """Of every MiB of the device."""
        with path.open("rb", buffering=0) as device:
            chunks = iter(lambda: device.read(CHUNK_BYTES), b"")
            return {f"MiB {number}": hashlib.sha256(chunk).hexdigest() for number, chunk in enumerate(chunks)}

    @staticmethod
    def _write(path: Path, pieces: list[tuple[int, bytes]]) -> int:
        device = os.open(path, os.O_RDWR)
        try:
            written = sum(os.pwrite(device, data, offset) for offset, data in pieces)
            os.fsync(device)
        finally:
            os.close(device)
        return written


def flush(root: Path) -> None:
    """Make all of ``root``'s filesystem durable, as a careful program does before it relies on a snapshot."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        if _LIBC.syncfs(descriptor):
            raise OSError(ctypes.get_errno(), "syncfs failed", str(root))
    finally:
        os.close(descriptor)


def differing_blocks(base: Path, target: Path) -> Iterator[int]:
    """The offsets, in bytes, of the blocks of ``BLOCK_BYTES`` in which two devices differ."""
    with base.open("rb", buffering=0) as old, target.open("rb", buffering=0) as new:
        for start in itertools.count(0, CHUNK_BYTES):
            left, right = old.read(CHUNK_BYTES), new.read(CHUNK_BYTES)
            if not left and not right:
                return
            if left != right:
                for offset in range(0, max(len(left), len(right)), BLOCK_BYTES):
                    if left[offset : offset + BLOCK_BYTES] != right[offset : offset + BLOCK_BYTES]:
                        yield start + offset


def _library(limit_bytes: int) -> Iterator[tuple[str, bytes]]:
    root = Path(sysconfig.get_path("stdlib"))
    left = limit_bytes
    for path in sorted(root.rglob("*.py")):
        if "site-packages" in path.parts or "dist-packages" in path.parts:
            continue
        data = path.read_bytes()
        left -= len(data)
        if left < 0:
            return
        yield str(path.relative_to(root)), data


def _noise(seed: str, size_bytes: int) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size_bytes)
