"""The rows of pool.db as values, and every query over them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from backends.loop.database import PoolDatabase, Row
from csi_core import handles
from csi_core.model import ContentSource, GroupSnapshot, Snapshot, SourceKind, Volume

__all__ = [
    "ExtentPoolRecord",
    "GroupRecord",
    "Records",
    "RunRecord",
    "SegmentRecord",
    "SnapshotRecord",
    "State",
    "VolumeRecord",
    "dump",
    "now_us",
    "row_of",
]

State = Literal["creating", "promised", "ready"]
Table = Literal["volume", "snapshot", "snapshot_group"]


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """A row of ``volume``. State ``promised``: no image was ever made, so a missing one is no loss."""

    key: str
    name: str
    state: State
    size_bytes: int
    thick: bool
    charge_bytes: int
    formatted: str
    mkfs_options: str
    source: str
    recorded: str
    created_us: int

    def public(self, pool: str) -> Volume:
        """The volume as the core sees it."""
        return Volume(
            handle=handles.join(pool, self.key),
            name=self.name,
            size_bytes=self.size_bytes,
            recorded=_load(self.recorded),
            source=_content_source(self.source),
        )


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A row of ``snapshot``. ``name`` is None for a member of a group; the volume may be gone."""

    key: str
    name: str | None
    state: State
    volume_key: str
    group_key: str
    size_bytes: int
    charge_bytes: int
    formatted: str
    recorded: str
    created_us: int

    def public(self, pool: str) -> Snapshot:
        """The snapshot as the core sees it."""
        return Snapshot(
            handle=handles.join(pool, self.key),
            name=self.name or "",
            volume_handle=handles.join(pool, self.volume_key),
            size_bytes=self.size_bytes,
            created_at=_moment(self.created_us),
            recorded=_load(self.recorded),
            group_handle=handles.join(pool, self.group_key) if self.group_key else "",
        )


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """A row of ``snapshot_group``."""

    key: str
    name: str
    state: State
    recorded: str
    created_us: int

    def public(self, pool: str, members: tuple[Snapshot, ...]) -> GroupSnapshot:
        """The group as the core sees it."""
        return GroupSnapshot(
            handle=handles.join(pool, self.key),
            name=self.name,
            snapshots=members,
            created_at=_moment(self.created_us),
            recorded=_load(self.recorded),
        )


@dataclass(frozen=True, slots=True)
class ExtentPoolRecord:
    """The row of ``extent_pool``."""

    uuid: str
    extent_bytes: int


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """A row of ``segment``."""

    number: int
    path: str
    extents: int
    state: Literal["preparing", "ready"]


class RunRecord(NamedTuple):
    """Where a row of ``run`` lies; start and length are in extents."""

    segment: int
    start: int
    length: int


Record = VolumeRecord | SnapshotRecord | GroupRecord
_TABLES: Final[dict[type[Record], Table]] = {
    VolumeRecord: "volume",
    SnapshotRecord: "snapshot",
    GroupRecord: "snapshot_group",
}


def _columns(record: type[Record]) -> list[str]:
    return [field.name for field in fields(record)]


def _select(record: type[Record]) -> str:
    return f"SELECT {', '.join(_columns(record))} FROM {_TABLES[record]} "  # noqa: S608 - names of ours only


_INTO: Final = {
    record: (f"{table} ({', '.join(_columns(record))})", attrgetter(*_columns(record)))
    for record, table in _TABLES.items()
}
_SELECT_VOLUME: Final = _select(VolumeRecord)
_SELECT_SNAPSHOT: Final = _select(SnapshotRecord)
_SELECT_GROUP: Final = _select(GroupRecord)


def row_of(record: Record) -> Row:
    """What to insert for it."""
    into, values = _INTO[type(record)]
    return Row(into, values(record))


def now_us() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def dump(recorded: Mapping[str, str]) -> str:
    """Recorded parameters as JSON."""
    return _dumped(tuple(sorted(recorded.items())))


class Records:
    """Queries over one pool's database. Unless said otherwise they show rows in every state."""

    def __init__(self, database: PoolDatabase) -> None:
        self._database = database

    def volume(self, key: str) -> VolumeRecord | None:
        """The volume ``key``."""
        row = self._database.row(_SELECT_VOLUME + "WHERE key = ?", (key,))
        return VolumeRecord(*row) if row else None

    def volume_named(self, name: str) -> VolumeRecord | None:
        """The volume created under ``name``."""
        row = self._database.row(_SELECT_VOLUME + "WHERE name = ?", (name,))
        return VolumeRecord(*row) if row else None

    def volume_names(self) -> Iterator[str]:
        """Every volume's, in any state."""
        return (name for (name,) in self._database.rows("SELECT name FROM volume"))

    def volumes_after(self, key: str, limit: int) -> list[VolumeRecord]:
        """At most ``limit`` finished volumes whose key sorts after ``key``."""
        query = _SELECT_VOLUME + "WHERE key > ? AND state <> 'creating' ORDER BY key LIMIT ?"
        return [VolumeRecord(*row) for row in self._database.rows(query, (key, limit))]

    def snapshot(self, key: str) -> SnapshotRecord | None:
        """The snapshot ``key``."""
        row = self._database.row(_SELECT_SNAPSHOT + "WHERE key = ?", (key,))
        return SnapshotRecord(*row) if row else None

    def snapshot_named(self, name: str) -> SnapshotRecord | None:
        """The snapshot taken under ``name``."""
        row = self._database.row(_SELECT_SNAPSHOT + "WHERE name = ?", (name,))
        return SnapshotRecord(*row) if row else None

    def snapshots_after(self, key: str, limit: int, volume_key: str = "") -> list[SnapshotRecord]:
        """At most ``limit`` finished snapshots after ``key``, of one volume where ``volume_key`` is set."""
        if volume_key:
            query = _SELECT_SNAPSHOT + "WHERE volume_key = ? AND key > ? AND state = 'ready' ORDER BY key LIMIT ?"
            rows = self._database.rows(query, (volume_key, key, limit))
        else:
            query = _SELECT_SNAPSHOT + "WHERE key > ? AND state = 'ready' ORDER BY key LIMIT ?"
            rows = self._database.rows(query, (key, limit))
        return [SnapshotRecord(*row) for row in rows]

    def group(self, key: str) -> GroupRecord | None:
        """The group ``key``."""
        row = self._database.row(_SELECT_GROUP + "WHERE key = ?", (key,))
        return GroupRecord(*row) if row else None

    def group_named(self, name: str) -> GroupRecord | None:
        """The group taken under ``name``."""
        row = self._database.row(_SELECT_GROUP + "WHERE name = ?", (name,))
        return GroupRecord(*row) if row else None

    def members(self, group_key: str) -> list[SnapshotRecord]:
        """The snapshots of a group, in the order of their keys."""
        query = _SELECT_SNAPSHOT + "WHERE group_key = ? AND group_key <> '' ORDER BY key"
        return [SnapshotRecord(*row) for row in self._database.rows(query, (group_key,))]

    def extent_pool(self) -> ExtentPoolRecord | None:
        """What is recorded of the pool itself; None where its layout is "images"."""
        row = self._database.row("SELECT uuid, extent_bytes FROM extent_pool")
        return ExtentPoolRecord(*row) if row else None

    def segments(self) -> list[SegmentRecord]:
        """All segments, by number."""
        query = "SELECT number, path, extents, state FROM segment ORDER BY number"
        return [SegmentRecord(*row) for row in self._database.rows(query)]

    def runs(self, key: str) -> list[RunRecord]:
        """Where the volume or snapshot ``key`` lies, in its own order; () where it is not placed."""
        query = "SELECT segment, start, length FROM run WHERE key = ? ORDER BY position"
        return [RunRecord(*row) for row in self._database.rows(query, (key,))]

    def unfinished(self) -> Iterator[str]:
        """The keys of all rows that were being created."""
        for table in _TABLES.values():
            query = f"SELECT key FROM {table} WHERE state = 'creating'"  # noqa: S608
            for (key,) in self._database.rows(query):
                yield key

    def trash(self, key: str, limit: int) -> list[tuple[str, int]]:
        """Key and charge in bytes of at most ``limit`` images to free, after ``key``."""
        query = "SELECT key, charge_bytes FROM trash WHERE key > ? ORDER BY key LIMIT ?"
        return [(found, charge) for found, charge in self._database.rows(query, (key, limit))]

    def forget_trash(self, keys: list[str]) -> None:
        """These images are freed, or their runs free again."""

        def work(connection: sqlite3.Connection) -> None:
            rows = [(key,) for key in keys]
            connection.executemany("DELETE FROM run WHERE key = ?", rows)
            connection.executemany("DELETE FROM trash WHERE key = ?", rows)

        self._database.write(work)

    def forget_unused(self, key: str) -> None:
        """Forget a volume that was never attached: there is nothing of it that would have to be freed."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM volume WHERE key = ?", (key,))
            connection.execute("DELETE FROM run WHERE key = ?", (key,))

        self._database.write(work)

    def images_known(self, keys: list[str]) -> set[str]:
        """Those of ``keys``, at most some hundreds, whose images belong to a row of any table."""
        marks = ",".join("?" * len(keys))
        found: set[str] = set()
        for table in ("volume", "snapshot", "trash"):
            query = f"SELECT key FROM {table} WHERE key IN ({marks})"  # noqa: S608
            found.update(key for (key,) in self._database.rows(query, keys))
        return found

    def empty(self) -> bool:
        """Whether there is nothing but, perhaps, room: no volume, snapshot or group, and no trash."""
        return not any(self._database.row(f"SELECT 1 FROM {table} LIMIT 1") for table in (*_TABLES.values(), "trash"))  # noqa: S608

    def promised_bytes(self) -> int:
        """What all rows together take from the pool's capacity."""
        promised = 0
        for table in ("volume", "snapshot", "trash"):
            row = self._database.row(f"SELECT coalesce(sum(charge_bytes), 0) FROM {table}")  # noqa: S608
            promised += row[0] if row else 0
        return promised

    def discard(self, *keys: str) -> int:
        """Forget volumes, snapshots and groups in one commit; their images become trash, still charged."""

        def work(connection: sqlite3.Connection) -> int:
            forgotten = 0
            for key in keys:
                for table in ("volume", "snapshot"):
                    query = f"INSERT INTO trash SELECT key, charge_bytes FROM {table} WHERE key = ?"  # noqa: S608
                    connection.execute(query, (key,))
                for table in _TABLES.values():
                    forgotten += connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,)).rowcount  # noqa: S608
            return forgotten

        return self._database.write(work)


@lru_cache(maxsize=256)
def _dumped(recorded: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(dict(recorded), ensure_ascii=False)


@lru_cache(maxsize=256)
def _load(recorded: str) -> Mapping[str, str]:
    # The volumes of one StorageClass have the same; so nobody may change what they share.
    return MappingProxyType(json.loads(recorded))


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1e6, tz=UTC)


def _content_source(handle: str) -> ContentSource | None:
    if not handle:
        return None
    return ContentSource(SourceKind.SNAPSHOT if handles.split(handle, "s") else SourceKind.VOLUME, handle)
