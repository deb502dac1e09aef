"""Pools of the layout extents for tests: segments of some size, made as csi-core pool create makes them."""

from __future__ import annotations

import sqlite3
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from backends.loop.database import PoolDatabase
from backends.loop.extents import preparing
from backends.loop.extents.content import Content
from backends.loop.extents.layout import ExtentsLayout
from backends.loop.extents.preparing import Growth
from backends.loop.options import SegmentOptions
from backends.loop.records import RunRecord

MIB = 1 << 20


def made_pool(directory: Path, *sizes_bytes: int, extent_bytes: int = MIB) -> dict[str, object]:
    """Make a pool in ``directory`` whose segments are files there; answer its options."""
    segments = [SegmentOptions(path=directory / f"segment-{n}", size=size) for n, size in enumerate(sizes_bytes)]
    create(directory, segments, extent_bytes)
    return {"path": str(directory), "layout": "extents", "allowLoopHost": True}


def create(directory: Path, segments: Sequence[SegmentOptions], extent_bytes: int = MIB) -> list[Growth]:
    database = PoolDatabase(directory / "pool.db")
    try:
        return preparing.create(database, segments, extent_bytes, force=False, progress=unheard)
    finally:
        database.close()


def grow(directory: Path, *segments: SegmentOptions) -> list[Growth]:
    """As csi-core pool grow does it, beside a running server."""
    database = PoolDatabase(directory / "pool.db")
    try:
        return preparing.grow(database, segments, force=False, progress=unheard)
    finally:
        database.close()


def unheard(path: Path, done_bytes: int, total_bytes: int) -> None:
    """Progress that nobody watches."""


def cloned_pool(new: Path, directory: Path) -> dict[str, object]:
    """A copy of a pool that nobody has used, by reflink: as good as a new one, and made at once."""
    directory.mkdir()
    for segment in new.glob("segment-*"):
        subprocess.run(["cp", "--reflink=always", segment, directory], check=True)
    with sqlite3.connect(new / "pool.db") as database, sqlite3.connect(directory / "pool.db") as copy:
        database.backup(copy)
        copy.execute("UPDATE segment SET path = replace(path, ?, ?)", (str(new), str(directory)))
    database.close()
    copy.close()
    return {"path": str(directory), "layout": "extents", "allowLoopHost": True}


def free_bytes_are_zeros(layout: ExtentsLayout) -> bool:
    """Whether everything that could be given out next reads as zeros."""
    extent_bytes = layout.space_map.extent_bytes
    for number, start, length in struct.iter_unpack("=3Q", layout.space_map.pool.free_runs()):
        segment = layout._segments[number]
        content = Content({number: segment}, [RunRecord(number, start, length)], extent_bytes)
        if any(content.data_ranges(0)):
            return False
    return True
