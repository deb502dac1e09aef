"""``csi-core pool defrag``: moving volumes that are not attached together, so that what is free is in one piece.

A move is a copy into a new place that belongs to the trash until one commit swaps the two places. So at any moment
one of them belongs to the volume, and the other one is zeroed before it is used again, also after a kill.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from backends.loop.extents.content import ContentCopy
from backends.loop.extents.layout import ExtentsLayout
from backends.loop.pool import Pool
from csi_core.errors import Busy, NoSpace
from csi_core.faults import fault

__all__ = ["Defragmentation", "defragment"]

_MOST_PASSES: Final = 8
_EMPTIED_WITHIN_S: Final = 3600.0
_MOVABLE: Final = """
SELECT run.key, min(run.segment * (1 << 40) + run.start) AS place FROM run
WHERE run.key IN (SELECT key FROM volume UNION ALL SELECT key FROM snapshot WHERE state = 'ready')
GROUP BY run.key ORDER BY count(*) > 1 DESC, place DESC
"""
"""What lies in several pieces first: the others would take the gaps that are large enough for it."""


@dataclass(frozen=True, slots=True)
class Defragmentation:
    """What was achieved; bytes of the longest free piece, before and after, and how many were moved."""

    moved: int
    moved_bytes: int
    longest_before_bytes: int
    longest_after_bytes: int


def defragment(pool: Pool, layout: ExtentsLayout, progress: Callable[[str], None]) -> Defragmentation:
    """Move what can be moved, the last ones first, into gaps before them.

    Args:
        pool: opened by this process alone.
        layout: its layout.
        progress: told the key of what is being moved.
    """
    space = layout.space_map
    before = space.pool.longest_free_run * space.extent_bytes
    moved = moved_bytes = 0
    for _ in range(_MOST_PASSES):
        in_this_pass = 0
        for key, _ in pool.database.rows(_MOVABLE):
            with suppress(Busy, NoSpace):
                in_this_pass += bool(size_bytes := _moved(pool, layout, key, progress))
                moved_bytes += size_bytes
        pool.trash.emptied(_EMPTIED_WITHIN_S)  # what was left is room for the next pass
        moved += in_this_pass
        if not in_this_pass:
            break
    return Defragmentation(moved, moved_bytes, before, space.pool.longest_free_run * space.extent_bytes)


def _moved(pool: Pool, layout: ExtentsLayout, key: str, progress: Callable[[str], None]) -> int:
    """Move one volume or snapshot where that helps; answer its bytes, or 0."""
    with pool.claims.exclusive(key):
        present = pool.records.runs(key)
        if layout.device(key) or not present:
            return 0
        size_bytes = sum(run.length for run in present) * layout.space_map.extent_bytes
        other = f"m-{secrets.token_hex(10)}"
        with layout.space_map.moved(other, present) as taken:

            def begin(connection: sqlite3.Connection) -> None:
                connection.execute("INSERT INTO trash VALUES (?, 0)", (other,))
                taken.record(connection)

            layout.held.add(other)
            fault("extents.move.before_begin")
            pool.database.write(begin)
            fault("extents.move.after_begin")
        try:
            progress(key)
            copy = ContentCopy(partial(layout.content, key), layout.content(other), size_bytes)
            copy.run(None)
            copy.finish()
            fault("extents.move.before_swap")
            pool.database.write(lambda connection: _swap(connection, key, other))
            fault("extents.move.after_swap")
        finally:
            layout.retire([other])  # the old place now, or the new one where the copy has failed
            layout.held.discard(other)
        pool.trash.more()
        return size_bytes


def _swap(connection: sqlite3.Connection, key: str, other: str) -> None:
    for before, after in ((key, ""), (other, key), ("", other)):
        connection.execute("UPDATE run SET key = ? WHERE key = ?", (after, before))
