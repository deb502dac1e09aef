"""How much is measured: in full, or in little for CI (``CSICORE_BENCH=short``)."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["SCALE", "Scale"]


@dataclass(frozen=True)
class Scale:
    """Counts and times of one form of the benches.

    Attributes:
        form: "full" or "short".
        rounds: timed calls of cheap operations, each beside its floor.
        heavy_rounds: timed rounds of operations that take tens of milliseconds.
        burst: calls of one burst from ``CLIENTS`` clients.
        bursts: bursts of each kind, alternating.
        volumes: volumes in the large pool.
        fio_seconds: how long fio writes beside something else.
        fio_pairs: short runs of fio on each of two filesystems, alternating.
        fio_size_mib: size of the file that fio works on.
    """

    form: str
    rounds: int
    heavy_rounds: int
    burst: int
    bursts: int
    volumes: int
    fio_seconds: int
    fio_pairs: int
    fio_size_mib: int


FULL = Scale("full", 500, 25, 2000, 7, 100_000, 2, 100, 512)
SHORT = Scale("short", 60, 4, 300, 3, 2_000, 1, 15, 128)

SCALE = SHORT if os.environ.get("CSICORE_BENCH") == "short" else FULL
