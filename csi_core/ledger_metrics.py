"""The books of every pool as Prometheus metrics. A backend announces its ledgers; nothing is counted twice.

Read when they are scraped, so a create pays nothing for them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from csi_core.ledger import Ledger

__all__ = ["LEDGERS", "LedgerMetrics"]

_LEVELS = {"ok": 0, "warn": 1, "stop": 2}


class LedgerMetrics(Collector):
    """The ledgers that are open now, by backend and pool."""

    def __init__(self) -> None:
        self._ledgers: dict[tuple[str, str], Ledger] = {}
        self._mutex = threading.Lock()

    def announce(self, backend: str, pool: str, ledger: Ledger) -> None:
        """Show this pool from now on."""
        with self._mutex:
            self._ledgers[backend, pool] = ledger

    def withdraw(self, backend: str) -> None:
        """Show the backend's pools no longer; called when it stops."""
        with self._mutex:
            self._ledgers = {key: ledger for key, ledger in self._ledgers.items() if key[0] != backend}

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The families without samples, so that registering touches no disk."""
        yield from _families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The books as they stand."""
        with self._mutex:
            ledgers = sorted(self._ledgers.items())
        size, ratio, level = _families()
        for (backend, pool), ledger in ledgers:
            try:
                books = ledger.snapshot()
            except OSError:
                continue  # a pool whose storage cannot be asked is missing; the others, and the call metrics, are not
            kinds = {
                "capacity": books.capacity_bytes,
                "promised": books.promised_bytes,
                "reserved": books.reserved_bytes,
                "used": books.used_bytes,
                "free": books.free_bytes,
            }
            for kind, size_bytes in kinds.items():
                if size_bytes is not None:
                    size.add_metric((backend, pool, kind), size_bytes)
            ratio.add_metric((backend, pool), books.overcommit_ratio)
            level.add_metric((backend, pool), _LEVELS[books.level])
        yield from (size, ratio, level)


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    pool = ("backend", "pool")
    return (
        GaugeMetricFamily(
            "csi_core_pool_bytes",
            "Space of a pool by kind: capacity, promised and reserved (being created) as accounted; used and free as "
            "the storage says.",
            labels=(*pool, "kind"),
        ),
        GaugeMetricFamily(
            "csi_core_pool_overcommit_ratio", "Bytes of thin volumes promised for each byte of the pool.", labels=pool
        ),
        GaugeMetricFamily(
            "csi_core_pool_watermark",
            "Physical use: 0 below the watermarks, 1 above the one that warns, 2 above the one that stops admission.",
            labels=pool,
        ),
    )


LEDGERS = LedgerMetrics()
"""The pools of this process, served with the call metrics."""

REGISTRY.register(LEDGERS)
