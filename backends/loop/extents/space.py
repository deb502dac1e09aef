"""Which extents belong to whom: the allocator in memory, and the rows of pool.db that it is rebuilt from."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog

from backends.loop.database import PoolDatabase, Row
from backends.loop.records import RunRecord
from csi_core._allocator import HELD_OWNED, HELD_QUARANTINED, ExtentPool, RunConflictError
from csi_core.errors import Busy, DataLoss, NoSpace

__all__ = ["Space", "Taken"]

_log = structlog.get_logger(__name__)
_HELD: Final = struct.Struct("=4Q")
_RUN: Final = struct.Struct("=3Q")
_MOST_PLACES: Final = 1024
"""So many are looked at for what is moved."""
_UNDONE: Final = (Busy, NoSpace)
"""Errors of a commit after which it is certain that nothing was recorded."""


class Taken:
    """Extents that are taken in memory and not yet recorded; see :class:`backends.loop.layout.Placement`."""

    def __init__(self, key: str, position: int, runs: Sequence[RunRecord], lengthened: RunRecord | None = None) -> None:
        """``runs`` from ``position`` on are new, and the one before it is now as long as ``lengthened``."""
        self._key = key
        self._position = position
        self.runs = runs
        self._lengthened = lengthened
        self.recorded = False

    def rows(self) -> Sequence[Row]:
        """The new ones; from now on they may be recorded."""
        self.recorded = True
        return [Row("run", (self._key, self._position + number, *run)) for number, run in enumerate(self.runs)]

    def record(self, connection: sqlite3.Connection) -> None:
        """Write the rows."""
        rows = [row.values for row in self.rows()]
        if self._lengthened:
            connection.execute(
                "UPDATE run SET length = ? WHERE key = ? AND position = ?",
                (self._lengthened.length, self._key, self._position - 1),
            )
        if rows:
            connection.executemany("INSERT INTO run VALUES (?, ?, ?, ?, ?)", rows)


class Space:
    """The extents of one pool. All methods may be called by any thread."""

    def __init__(self, name: str, database: PoolDatabase, extent_bytes: int, segments: Sequence[int]) -> None:
        """Rebuild the free map from every recorded run.

        Args:
            name: of the pool, for messages.
            database: where the runs are recorded.
            extent_bytes: the unit.
            segments: the extents of each segment.

        Raises:
            DataLoss: two volumes claim the same extents.
        """
        self._name = name
        self.extent_bytes = extent_bytes
        query = (
            "SELECT run.key, segment, start, length, trash.key IS NOT NULL "
            "FROM run LEFT JOIN trash ON trash.key = run.key"
        )
        rows = database.rows(query)
        held = bytearray(_HELD.size * len(rows))
        self.found_quarantined: dict[str, list[RunRecord]] = {}
        """By key, what was in the trash when the pool was opened."""
        for number, (key, segment, start, length, trashed) in enumerate(rows):
            kind = HELD_QUARANTINED if trashed else HELD_OWNED
            if trashed:
                self.found_quarantined.setdefault(key, []).append(RunRecord(segment, start, length))
            if min(segment, start, length) < 0:
                raise self._contradiction(f"{length} extents at {start} of segment {segment} are no run", [key])
            _HELD.pack_into(held, number * _HELD.size, segment, start, length, kind)
        try:
            self.pool = ExtentPool.rebuild(segments, bytes(held), extent_bytes=extent_bytes)
        except RunConflictError as error:
            raise self._contradiction(str(error), {key for key, *run, _ in rows if tuple(run) in error.runs}) from error

    def _contradiction(self, found: str, keys: Iterable[str]) -> DataLoss:
        return DataLoss(
            f"pool {self._name}: {found} (recorded for {', '.join(sorted(keys))}); pool.db contradicts itself: restore "
            "it from a copy, and run csi-core pool check before anything is written"
        )

    def extents_of(self, size_bytes: int) -> int:
        """How many extents hold so many bytes."""
        return -(-size_bytes // self.extent_bytes)

    def space(self) -> tuple[int, int]:
        """Total and free bytes."""
        return self.pool.extents * self.extent_bytes, self.pool.free_extents * self.extent_bytes

    @contextmanager
    def placed(self, key: str, size_bytes: int, present_bytes: int, max_runs: int) -> Iterator[Taken]:
        """Take ``present_bytes`` in at most ``max_runs`` runs, where there is room to grow to ``size_bytes``.

        Raises:
            NoSpace: it does not fit.
        """
        wanted = self.extents_of(present_bytes)
        room = self.extents_of(size_bytes) - wanted
        if max_runs == 1 and self._roomy():
            room = max(room, wanted)  # expansion is in place or not at all, for the one before it too
        one = self.pool.allocate(wanted, room=room) if wanted else None
        runs = [RunRecord(*one)] if one else self._scattered(wanted, max_runs) if wanted else []
        with self._held(Taken(key, 0, runs), runs) as taken:
            yield taken

    @contextmanager
    def moved(self, key: str, present: Sequence[RunRecord]) -> Iterator[Taken]:
        """Take a better place for what lies in ``present``: one run, and if that is one already, before it.

        No room is left behind it.

        Raises:
            NoSpace: there is none.
        """
        wanted = sum(run.length for run in present)
        one, passed_over = None, []
        for _ in range(_MOST_PLACES):  # of several that fit as well, the first that is found may lie behind it
            one = self.pool.allocate(wanted)
            if one is None or len(present) > 1 or one < present[0]:
                break
            passed_over.append(one)
            one = None
        for run in passed_over:
            self.pool.free(*run)
        if one is None:
            raise NoSpace(f"pool {self._name} has no better place for {key}")
        runs = [RunRecord(*one)]
        with self._held(Taken(key, 0, runs), runs) as taken:
            yield taken

    @contextmanager
    def extended(self, key: str, present: Sequence[RunRecord], size_bytes: int, max_runs: int) -> Iterator[Taken]:
        """Take what is missing to ``size_bytes``: behind the last run, else in further ones, ``max_runs`` in all.

        Raises:
            NoSpace: it does not fit; nothing was taken.
        """
        missing = self.extents_of(size_bytes) - sum(run.length for run in present)
        if missing <= 0:
            yield Taken(key, len(present), [])
            return
        last = present[-1]
        if self.pool.extend(*last, missing):
            behind = RunRecord(last.segment, last.start + last.length, missing)
            lengthened = last._replace(length=last.length + missing)
            with self._held(Taken(key, len(present), [], lengthened), [behind]) as taken:
                yield taken
            return
        runs = self._scattered(missing, max_runs - len(present))
        with self._held(Taken(key, len(present), runs), runs) as taken:
            yield taken

    def room_behind(self, run: RunRecord) -> int:
        """How many bytes a run can grow in place."""
        return self.pool.room_behind(*run) * self.extent_bytes

    def quarantine(self, runs: Sequence[RunRecord]) -> None:
        """Their owner is gone, and what they hold must never be seen again."""
        for run in runs:
            self.pool.quarantine(*run)

    def reclaim(self, runs: Sequence[RunRecord]) -> None:
        """They read as zeros, durably: they may be given out."""
        for run in runs:
            self.pool.reclaim(*run)

    def _roomy(self) -> bool:
        """Whether room for expansions is left: while half of the pool is free, or a quarter in one piece.

        Later it would only split what is free, and larger volumes would find no place.
        """
        pool = self.pool
        return pool.free_extents >= pool.extents // 2 or pool.longest_free_run >= pool.extents // 4

    def _scattered(self, wanted: int, max_runs: int) -> list[RunRecord]:
        found = self.pool.allocate_scattered(wanted, max_runs) if max_runs > 0 else None
        if found is None:
            free, longest = self.space()[1], self.pool.longest_free_run * self.extent_bytes
            pieces = "in one piece" if max_runs <= 1 else f"in {max_runs} pieces at most"
            raise NoSpace(
                f"pool {self._name}: {wanted * self.extent_bytes} bytes are needed {pieces}; {free} bytes are free, of "
                f"which {longest} in one piece; delete volumes, or use csi-core pool grow or csi-core pool defrag"
            )
        return [RunRecord(*run) for run in _RUN.iter_unpack(found)]

    @contextmanager
    def _held(self, taken: Taken, pieces: Sequence[RunRecord]) -> Iterator[Taken]:
        """Give the pieces back where the block raises, unless they may be recorded after all."""
        try:
            yield taken
        except BaseException as error:
            if taken.recorded and not isinstance(error, _UNDONE):
                _log.error("extents stay out of use until the next start", pool=self._name, pieces=pieces)
            else:
                for piece in pieces:
                    self.pool.free(*piece)
            raise
