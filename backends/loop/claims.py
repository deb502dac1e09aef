"""Who works on which volume or snapshot inside this backend: a try-lock with shared holders, never waited for.

The core locks what a call names. This adds what a call does not name: the source of a clone, which must be
neither attached, changed nor deleted while it is read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from csi_core.errors import Busy

__all__ = ["Claims"]

_EXCLUSIVE = -1


class Claims:
    """Claims on keys; empty when nothing is going on, whatever the number of volumes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: dict[str, int] = {}

    def held(self, key: str) -> bool:
        """Whether anybody holds ``key`` at this moment."""
        with self._lock:
            return key in self._holders

    @contextmanager
    def exclusive(self, *keys: str) -> Iterator[None]:
        """Hold each of ``keys`` alone.

        Raises:
            Busy: somebody holds one of them; none is held then.
        """
        with self._lock:
            for key in keys:
                if key in self._holders:
                    raise Busy(f"{key} is being copied or changed by another call; repeat the call when that has ended")
            self._holders.update(dict.fromkeys(keys, _EXCLUSIVE))
        try:
            yield
        finally:
            with self._lock:
                for key in keys:
                    del self._holders[key]

    @contextmanager
    def shared(self, keys: Iterable[str]) -> Iterator[None]:
        """Hold all of ``keys`` beside other shared holders.

        Raises:
            Busy: somebody holds one of them alone; none is held then.
        """
        wanted = set(keys)
        with self._lock:
            for key in wanted:
                if self._holders.get(key) == _EXCLUSIVE:
                    raise Busy(f"{key} is being changed by another call; repeat the call when that has ended")
            for key in wanted:
                self._holders[key] = self._holders.get(key, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                for key in wanted:
                    self._holders[key] -= 1
                    if not self._holders[key]:
                        del self._holders[key]
