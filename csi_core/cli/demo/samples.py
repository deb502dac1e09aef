"""Watches the pool while the walk goes on: what is promised, used and free."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import grpc

__all__ = ["PoolWatch", "Sample"]

INTERVAL_S = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """The pool at one moment, ``at_s`` seconds after the first one; sizes in bytes.

    ``promised_bytes`` is what GetCapacity offers less than it did for the empty pool: the charges of volumes and
    snapshots; the other two are the filesystem's own figures.
    """

    at_s: float
    promised_bytes: int
    used_bytes: int
    free_bytes: int


class PoolWatch:
    """Samples on a thread of its own, from entering until leaving.

    Args:
        available_bytes: asks the server (GetCapacity); a failing call is left out.
        directory: somewhere on the pool's filesystem.
    """

    def __init__(self, available_bytes: Callable[[], int], directory: Path) -> None:
        self.samples: list[Sample] = []
        self._available_bytes = available_bytes
        self._directory = directory
        self._begin = time.monotonic()
        self._empty_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pool-watch", daemon=True)

    def __enter__(self) -> PoolWatch:
        self._empty_bytes = self._available_bytes()
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._done.wait(INTERVAL_S):
            self._sample()

    def _sample(self) -> None:
        try:
            promised_bytes = self._empty_bytes - self._available_bytes()
        except grpc.RpcError:
            return
        host = os.statvfs(self._directory)
        used_bytes = (host.f_blocks - host.f_bfree) * host.f_frsize
        free_bytes = host.f_bavail * host.f_frsize
        self.samples.append(Sample(time.monotonic() - self._begin, promised_bytes, used_bytes, free_bytes))
