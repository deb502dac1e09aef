"""Timings that alternate: the subject by pytest-benchmark, its floors in the set-up of every round.

The two sides of a ratio are measured A B A B within one run, so that a machine which slows down, or a neighbour
who wakes up, weighs on both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["alternate", "milliseconds", "p50", "timed"]


def alternate(
    benchmark: Any,
    subject: Callable[[], object],
    floors: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
    warm_up: int = 5,
) -> dict[str, float]:
    """Time ``subject`` and each of ``floors``, in turns.

    Args:
        benchmark: the fixture; it times ``subject``.
        subject: what is measured.
        floors: what it is measured against, by name.
        rounds: how often each is timed.
        before, after: run before and after each round's subject, untimed.
        warm_up: rounds that are thrown away first.

    Returns:
        The p50 of each in seconds; the subject's is called "subject".
    """
    durations_s: dict[str, list[float]] = {name: [] for name in floors}

    def set_up() -> None:
        for name, floor in floors.items():
            durations_s[name].append(timed(floor))
        before()

    benchmark.pedantic(subject, setup=set_up, teardown=after, rounds=rounds, iterations=1, warmup_rounds=warm_up)
    found = {name: p50(values[warm_up:]) for name, values in durations_s.items()}
    found["subject"] = p50(benchmark.stats.stats.data)
    benchmark.extra_info.update({f"{name} p50 (s)": value for name, value in found.items()})
    return found


def timed(call: Callable[[], object]) -> float:
    """Seconds that ``call`` takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def p50(values: list[float]) -> float:
    return statistics.median(values)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
