"""What everything is measured against: the same work by hand, without the driver."""

from __future__ import annotations

import itertools
import json
import sqlite3
import subprocess
from pathlib import Path

__all__ = ["CommitFloor", "HandMount"]


class CommitFloor:
    """One durable commit: SQLite, WAL, synchronous=FULL, a row as large as a volume's."""

    def __init__(self, path: Path) -> None:
        self._numbers = itertools.count()
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL").fetchall()
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("CREATE TABLE volume (key TEXT PRIMARY KEY, name TEXT UNIQUE, row TEXT) WITHOUT ROWID")

    def commit(self) -> None:
        number = next(self._numbers)
        values = (f"v-{number:020x}", f"pvc-floor-{number}", json.dumps({"provisioning": "thin", "size": number}))
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("INSERT INTO volume VALUES (?, ?, ?)", values)
        self._database.execute("COMMIT")

    def close(self) -> None:
        self._database.close()


class HandMount:
    """A volume made with standard tools: sparse file, losetup, mkfs, mount."""

    def __init__(self, directory: Path, name: str, size_bytes: int, mkfs: list[str]) -> None:
        """``mkfs``: its command line without the device."""
        self._image = directory / f"{name}.img"
        self.path = directory / name
        self._size_bytes = size_bytes
        self._mkfs = mkfs
        self._device = ""

    def make(self) -> None:
        """From nothing to a mounted filesystem."""
        self.path.mkdir()
        with self._image.open("xb") as image:
            image.truncate(self._size_bytes)
        found = _run("losetup", "--find", "--show", "-b", "4096", "--direct-io=on", str(self._image))
        self._device = found.strip()
        _run(*self._mkfs, self._device)
        _run("mount", self._device, str(self.path))

    def remove(self) -> None:
        _run("umount", str(self.path))
        _run("losetup", "-d", self._device)
        self._image.unlink()
        self.path.rmdir()


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
