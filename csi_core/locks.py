"""Keyed try-locks: one call at a time for each volume and each name, and nobody waits.

Waiting would fill the worker threads with calls on one stuck volume; the CSI's answer to "pending
operation" is ABORTED, after which the CO comes again (CSI specification, "Concurrency").
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from csi_core.errors import Busy

__all__ = ["Held", "Key", "KeyedLocks"]


@dataclass(frozen=True, slots=True)
class Key:
    """What is locked: a ``kind`` ("volume", "name", ...) for people, and the identity within that kind."""

    kind: str
    identity: Hashable

    def __str__(self) -> str:
        identity = "/".join(map(str, self.identity)) if isinstance(self.identity, tuple) else str(self.identity)
        return f"{self.kind} {identity}"


@dataclass(slots=True)
class _Holder:
    call: str
    since_s: float
    shared: int = 0


class KeyedLocks:
    """Locks that are taken all at once or not at all, so no order of taking them can deadlock."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._holders: dict[Key, _Holder] = {}

    def hold(self, call: str, *exclusive: Key, shared: Sequence[Key] = ()) -> Held:
        """Take every key, or none.

        Args:
            call: who takes them, for the message to the next one.
            exclusive: keys that nobody else may hold.
            shared: keys that others may share (many clones of one volume) but nobody may hold exclusively.

        Returns:
            A context manager; the keys are released when it is left.

        Raises:
            Busy: another call holds one of them; names it, and since when.
        """
        with self._mutex:
            now_s = time.monotonic()
            for key in exclusive:
                if key in self._holders:
                    raise self._busy(key, now_s)
            for key in shared:
                holder = self._holders.get(key)
                if holder is not None and not holder.shared:
                    raise self._busy(key, now_s)
            for key in exclusive:
                self._holders[key] = _Holder(call, now_s)
            for key in shared:
                self._holders.setdefault(key, _Holder(call, now_s)).shared += 1
        return Held(self, exclusive, shared)

    def release(self, exclusive: Sequence[Key], shared: Sequence[Key]) -> None:
        """Give back what :meth:`hold` took. Called by :class:`Held`."""
        with self._mutex:
            for key in exclusive:
                del self._holders[key]
            for key in shared:
                holder = self._holders[key]
                holder.shared -= 1
                if not holder.shared:
                    del self._holders[key]

    def held(self) -> tuple[str, ...]:
        """One line for each key in use: what a stop that ran out of time was waiting for."""
        with self._mutex:
            now_s = time.monotonic()
            return tuple(f"{key}: {h.call} for {now_s - h.since_s:.1f} s" for key, h in self._holders.items())

    def _busy(self, key: Key, now_s: float) -> Busy:
        holder = self._holders[key]
        return Busy(
            f"{key} is busy: {holder.call} has held it for {now_s - holder.since_s:.1f} s; repeat the call later"
        )


class Held:
    """Keys in the hands of one call."""

    __slots__ = ("_exclusive", "_locks", "_shared")

    def __init__(self, locks: KeyedLocks, exclusive: Sequence[Key], shared: Sequence[Key]) -> None:
        self._locks = locks
        self._exclusive = exclusive
        self._shared = shared

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._locks.release(self._exclusive, self._shared)
