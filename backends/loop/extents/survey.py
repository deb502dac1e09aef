"""What ``csi-core pool show`` tells of a pool: read from pool.db, beside a server that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.loop.database import PoolDatabase
from backends.loop.extents.picture import Cells
from backends.loop.extents.space import Space
from backends.loop.records import Records, SegmentRecord
from csi_core.cli.output import Fact, size_text
from csi_core.errors import ConfigError

__all__ = ["Survey", "survey"]

_RUNS = """
SELECT segment, start, length, CASE WHEN trash.key IS NOT NULL THEN 'quarantined'
    WHEN run.key LIKE 's-%' THEN 'snapshot' ELSE 'volume' END
FROM run LEFT JOIN trash ON trash.key = run.key ORDER BY segment, start
"""


@dataclass(frozen=True)
class Survey:
    """A pool at one moment."""

    extent_bytes: int
    segments: Sequence[SegmentRecord]
    runs: Sequence[tuple[int, int, int, str]]
    volumes: int
    snapshots: int
    statistics: Mapping[str, Any]

    def cells(self, count: int) -> list[Cells]:
        """Each segment in cells, ``count`` for the longest one."""
        longest = max((segment.extents for segment in self.segments), default=1)
        return [
            Cells.of(
                f"segment {segment.number}  {segment.path}  {size_text(segment.extents * self.extent_bytes)}",
                max(1, segment.extents),
                [(start, length, kind) for number, start, length, kind in self.runs if number == segment.number],
                max(1, count * segment.extents // longest),
            )
            for segment in self.segments
        ]

    def facts(self) -> list[Fact]:
        """For people."""
        figures = self.statistics
        share = figures["free_extents"] / max(1, figures["extents"])
        return [
            ("volumes", str(self.volumes)),
            ("snapshots", str(self.snapshots)),
            ("extents", f"{figures['extents']} of {size_text(self.extent_bytes)}"),
            ("free", f"{size_text(figures['free_extents'] * self.extent_bytes)} ({share:.0%})"),
            ("longest free piece", size_text(figures["longest_free_run"] * self.extent_bytes)),
            ("free pieces", str(figures["free_runs"])),
            ("quarantined", size_text(figures["quarantined_extents"] * self.extent_bytes)),
            ("fragmentation", f"{figures['fragmentation']:.3f}"),
        ]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "extentBytes": self.extent_bytes,
            "volumes": self.volumes,
            "snapshots": self.snapshots,
            "statistics": dict(self.statistics),
            "segments": [{"number": s.number, "path": s.path, "extents": s.extents} for s in self.segments],
        }


def survey(name: str, database: PoolDatabase) -> Survey:
    """Look at a pool.

    Raises:
        ConfigError: it has not been made yet.
        DataLoss: what is recorded contradicts itself.
    """
    records = Records(database)
    pool = records.extent_pool()
    if pool is None:
        raise ConfigError(f"pool {name} has no segments yet; make it with csi-core pool create {name}")
    segments = [segment for segment in records.segments() if segment.state == "ready"]
    space = Space(name, database, pool.extent_bytes, [segment.extents for segment in segments])
    counts = [database.row(f"SELECT count(*) FROM {table}") for table in ("volume", "snapshot")]  # noqa: S608
    volumes, snapshots = (row[0] if row else 0 for row in counts)
    runs = [(number, start, length, kind) for number, start, length, kind in database.rows(_RUNS)]
    return Survey(pool.extent_bytes, segments, runs, volumes, snapshots, space.pool.statistics())
