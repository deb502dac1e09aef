"""How many calls are in backends at once, and what happens to the others.

Every call occupies a thread of the gRPC executor. ``workers`` of them are in backends at a time,
``queued`` wait for their turn in order, and the executor has a few threads more, which nothing but
constant answers ever uses: so Probe is answered at once, however stuck the storage is.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from csi_core.deadline import remaining_s
from csi_core.errors import TimedOut, Unavailable

__all__ = ["RESERVED_THREADS", "Admission"]

RESERVED_THREADS = 4
"""Executor threads beyond ``workers + queued``, for calls that need no admission."""

_PATIENCE_S = 300.0
"""How long a call without a deadline waits for its turn."""


class Admission:
    """A FIFO gate; use as a context manager around what touches a backend."""

    def __init__(self, workers: int, queued: int) -> None:
        self._workers = workers
        self._queued = queued
        self._mutex = threading.Lock()
        self._running = 0
        self._waiting: deque[threading.Lock] = deque()

    @property
    def threads(self) -> int:
        """How many executor threads this gate needs behind it."""
        return self._workers + self._queued + RESERVED_THREADS

    @property
    def running(self) -> int:
        """Calls that are in backends now, also those whose client has given up."""
        return self._running

    def __enter__(self) -> None:
        with self._mutex:
            if self._running < self._workers:
                self._running += 1
                return
            if len(self._waiting) >= self._queued:
                raise Unavailable(
                    f"all {self._workers} workers are busy and {self._queued} calls wait already; repeat the call later"
                )
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        self._wait(turn)

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._running -= 1

    def _wait(self, turn: threading.Lock) -> None:
        if turn.acquire(timeout=max(0.0, remaining_s(_PATIENCE_S))):
            return
        with self._mutex:
            if turn in self._waiting:
                self._waiting.remove(turn)
                raise TimedOut(f"all {self._workers} workers stayed busy until the deadline; nothing was started")
        # Its turn came in the moment it gave up: the slot is its own, and must be handed on.
        self.__exit__()
        raise TimedOut(f"all {self._workers} workers stayed busy until the deadline; nothing was started")
