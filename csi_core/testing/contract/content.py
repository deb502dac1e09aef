"""Writing and reading what a source leads to, be it a device, a directory or a share."""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from csi_core.model import BlockSource, DirectorySource, ShareSource, Source
from csi_core.run import run

__all__ = ["Content", "DeviceContent", "DirectoryContent", "content_of"]

_CHUNK_BYTES = 1 << 20
_PATCH_BYTES = 96 * 1024 + 512
_MOUNT_TIMEOUT_S = 30.0


class Content(Protocol):
    """What a pod would see."""

    def write(self, seed: str) -> None:
        """Write what ``seed`` gives, durably."""

    def checksum(self, size_bytes: int | None = None) -> str:
        """Of everything, or of the first ``size_bytes`` where the content is a device."""

    def empty(self, offset_bytes: int = 0) -> bool:
        """Whether nothing is there: no file, or nothing but zeros, from an offset on where the content is a device."""


class DeviceContent:
    """A block device, or a file in its place."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size_bytes(self) -> int:
        """The device's real size."""
        with self.path.open("rb") as device:
            return device.seek(0, os.SEEK_END)

    def write(self, seed: str) -> None:
        """At the start, across the middle, at the end and at places that ``seed`` gives."""
        numbers = random.Random(seed)  # noqa: S311
        size_bytes = self.size_bytes
        last = size_bytes - _PATCH_BYTES
        with self.path.open("r+b") as device:
            for offset in (0, last // 2, last, *(numbers.randrange(last) for _ in range(3))):
                device.seek(offset)
                device.write(numbers.randbytes(_PATCH_BYTES))
            device.flush()
            os.fsync(device.fileno())

    def checksum(self, size_bytes: int | None = None) -> str:
        """SHA-256 of the device."""
        digest = hashlib.sha256()
        left = self.size_bytes if size_bytes is None else size_bytes
        with self.path.open("rb") as device:
            while left and (chunk := device.read(min(left, _CHUNK_BYTES))):
                digest.update(chunk)
                left -= len(chunk)
        assert not left, f"{self.path} ends {left} bytes early"
        return digest.hexdigest()

    def empty(self, offset_bytes: int = 0) -> bool:
        """Whether all of it from ``offset_bytes`` on is zero."""
        zeros = bytes(_CHUNK_BYTES)
        with self.path.open("rb") as device:
            device.seek(offset_bytes)
            return all(chunk == zeros[: len(chunk)] for chunk in iter(lambda: device.read(_CHUNK_BYTES), b""))


class DirectoryContent:
    """A directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, seed: str) -> None:
        """A small tree: files of several sizes and modes, a link, an empty directory, names that are not ASCII."""
        numbers = random.Random(seed)  # noqa: S311
        deep = self.path / "a" / "ünïcödé 名前"
        deep.mkdir(parents=True, exist_ok=True)
        (self.path / "empty").mkdir(exist_ok=True)
        for number, path in enumerate((self.path / "file", deep / "0600", self.path / f"only-{seed}")):
            with path.open("wb") as file:
                file.write(numbers.randbytes(1 + number * _PATCH_BYTES))
                file.flush()
                os.fsync(file.fileno())
        (deep / "0600").chmod(0o600)
        link = self.path / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(f"only-{seed}")

    def checksum(self, size_bytes: int | None = None) -> str:  # noqa: ARG002
        """SHA-256 of all names, modes, links and contents."""
        digest = hashlib.sha256()
        for path in sorted(self.path.rglob("*")):
            kind = "link" if path.is_symlink() else "directory" if path.is_dir() else "file"
            digest.update(f"{path.relative_to(self.path)}\0{kind}\0{path.lstat().st_mode:o}\0".encode())
            if kind == "link":
                digest.update(str(path.readlink()).encode())
            elif kind == "file":
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def empty(self, offset_bytes: int = 0) -> bool:  # noqa: ARG002
        """Whether nothing is in it."""
        return not any(self.path.iterdir())


@contextmanager
def content_of(source: Source) -> Iterator[Content]:
    """Open what ``attach_volume`` answered; a share is mounted for the time being, which needs root."""
    match source:
        case BlockSource():
            yield DeviceContent(source.device)
        case DirectorySource():
            yield DirectoryContent(source.path)
        case ShareSource():
            with tempfile.TemporaryDirectory(prefix="csi-core-share-") as directory:
                flags = ["-o", ",".join(source.mount_flags)] if source.mount_flags else []
                argv = ["mount", "-t", source.fs_type, *flags, source.remote, directory]
                run(argv, timeout_s=_MOUNT_TIMEOUT_S, mutates=True)
                try:
                    yield DirectoryContent(Path(directory))
                finally:
                    run(["umount", directory], timeout_s=_MOUNT_TIMEOUT_S, mutates=True)
