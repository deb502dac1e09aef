"""``csi-core pool check``: whether what pool.db says of a pool can be true. Reads only."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from backends.loop.database import PoolDatabase
from backends.loop.extents.content import Content
from backends.loop.extents.segments import Label, Segment
from backends.loop.extents.space import Space
from backends.loop.records import ExtentPoolRecord, Records, RunRecord, SegmentRecord
from csi_core.errors import DataLoss, Unavailable
from csi_core.health import Finding

__all__ = ["check"]

_SIZES = """
SELECT owner.key, owner.least, coalesce(sum(run.length), 0) * ?
FROM (SELECT key, CASE WHEN thick THEN size_bytes ELSE 1 END AS least FROM volume
      UNION ALL SELECT key, 1 FROM snapshot WHERE state = 'ready') AS owner
LEFT JOIN run ON run.key = owner.key
GROUP BY owner.key HAVING coalesce(sum(run.length), 0) * ? < owner.least
"""
_ORPHANS = """
SELECT DISTINCT key FROM run WHERE key NOT IN
    (SELECT key FROM volume UNION ALL SELECT key FROM snapshot UNION ALL SELECT key FROM trash)
"""


def check(name: str, database: PoolDatabase, *, zeros: bool) -> Iterator[Finding]:
    """Everything that is wrong with a pool of the layout extents.

    Args:
        name: of the pool, for messages.
        database: where it is recorded.
        zeros: read all that is free, too, which must hold nothing but zeros; nobody may serve the pool then.
    """
    records = Records(database)
    pool = records.extent_pool()
    if pool is None:
        return
    for (said,) in database.rows("PRAGMA integrity_check"):
        if said != "ok":
            yield Finding("pool.db", "damaged", f"{said}; restore it from a copy")
    recorded = [segment for segment in records.segments() if segment.state == "ready"]
    segments: dict[int, Segment] = {}
    try:
        for segment in recorded:
            try:
                label = Label(pool.uuid, segment.number, pool.extent_bytes)
                segments[segment.number] = Segment(Path(segment.path), label, segment.extents)
            except (DataLoss, Unavailable) as error:
                yield Finding(segment.path, "segment cannot be used", str(error))
        yield from _check_runs(name, database, pool, recorded)
        if zeros and len(segments) == len(recorded):
            yield from _check_zeros(name, database, pool, segments, recorded)
    finally:
        for opened in segments.values():
            opened.close()


def _check_runs(
    name: str, database: PoolDatabase, pool: ExtentPoolRecord, recorded: list[SegmentRecord]
) -> Iterator[Finding]:
    try:
        Space(name, database, pool.extent_bytes, [segment.extents for segment in recorded])
    except DataLoss as error:
        yield Finding("pool.db", "overlapping volumes", str(error))
    for key, least_bytes, present_bytes in database.rows(_SIZES, (pool.extent_bytes, pool.extent_bytes)):
        advice = f"{present_bytes} bytes of at least {least_bytes} have a place; restore pool.db from a copy"
        yield Finding(key, "lost extents", advice)
    for (key,) in database.rows(_ORPHANS):
        yield Finding(key, "extents of nobody", "keep a copy of pool.db, and ask for help")


def _check_zeros(
    name: str,
    database: PoolDatabase,
    pool: ExtentPoolRecord,
    segments: dict[int, Segment],
    recorded: list[SegmentRecord],
) -> Iterator[Finding]:
    space = Space(name, database, pool.extent_bytes, [segment.extents for segment in recorded])
    for run in (RunRecord(*found) for found in struct.iter_unpack("=3Q", space.pool.free_runs())):
        content = Content(segments, [run], pool.extent_bytes)
        if dirty := next(content.data_ranges(0), None):
            segment = segments[run.segment]
            advice = (
                f"byte {segment.offset_of(run.start) + dirty[0]} is free and not zero: it was written to from outside"
            )
            yield Finding(str(segment.path), "stale data", advice)
