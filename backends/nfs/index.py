"""Volumes and snapshots in memory: read from the root at start, changed after the root was."""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from backends.nfs.records import Kind, Record, kind_of
from csi_core.errors import Busy, NotFound

__all__ = ["Index"]


class Index:
    """Records by key and by name. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._records: dict[Kind, dict[str, Record]] = {"v": {}, "s": {}, "g": {}}
        self._keys: dict[tuple[Kind, str], str] = {}
        self._readers: Counter[str] = Counter()

    def put(self, record: Record) -> None:
        """A new record, or a newer one."""
        kind = kind_of(record.key)
        with self._mutex:
            self._records[kind][record.key] = record
            self._keys[kind, record.name] = record.key

    def drop(self, key: str) -> None:
        """What it names is being deleted: no copy of it begins any more.

        Raises:
            Busy: one goes on.
        """
        kind = kind_of(key)
        with self._mutex:
            self._refuse_read(key)
            record = self._records[kind].pop(key, None)
            if record and self._keys.get((kind, record.name)) == key:
                del self._keys[kind, record.name]

    def find(self, kind: Kind, key: str) -> Record | None:
        """The record of this key."""
        with self._mutex:
            return self._records[kind].get(key)

    def named(self, kind: Kind, name: str) -> Record | None:
        """The record of this name."""
        with self._mutex:
            key = self._keys.get((kind, name))
            return self._records[kind][key] if key else None

    def all(self, kind: Kind) -> list[Record]:
        """The records of one moment, in no order."""
        with self._mutex:
            return list(self._records[kind].values())

    def after(self, kind: Kind, key: str, limit: int, volume_key: str = "") -> list[Record]:
        """At most ``limit`` records with greater keys, in their order; of one volume where its key is given."""
        wanted = (r for r in self.all(kind) if r.key > key and (not volume_key or r.volume_key == volume_key))
        return heapq.nsmallest(limit, wanted, key=lambda record: record.key)

    def members(self, group_key: str) -> list[Record]:
        """The snapshots of a group."""
        return [record for record in self.all("s") if record.group_key == group_key]

    @contextmanager
    def reading(self, key: str) -> Iterator[None]:
        """Keep ``key`` from being deleted while a copy of it goes on, beyond the call that began it.

        Raises:
            NotFound: it was deleted before the copy's turn came.
        """
        with self._mutex:
            if key not in self._records[kind_of(key)]:
                raise NotFound(f"there is no {key} any more to copy")
            self._readers[key] += 1
        try:
            yield
        finally:
            with self._mutex:
                self._readers[key] -= 1
                if not self._readers[key]:
                    del self._readers[key]

    def refuse_read(self, key: str) -> None:
        """Raise where a copy of ``key`` goes on.

        Raises:
            Busy: one does.
        """
        with self._mutex:
            self._refuse_read(key)

    def _refuse_read(self, key: str) -> None:
        if key in self._readers:
            raise Busy(f"{key} is being copied; repeat the call when that has ended")
