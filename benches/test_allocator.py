"""The extent allocator: beside its peers in Rust and in Python, and what the way from Python to it costs."""

from __future__ import annotations

import random
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benches import allocator_report
from benches.allocator_peers import PEERS, Peer, Run
from benches.allocator_rust import EXACT, FASTEST_PEER, OURS, RustFigures, run
from benches.ratios import Bound, Findings
from benches.scale import FULL, SCALE
from csi_core._allocator import ExtentPool

TIB = 1 << 20
"""Extents."""
LENGTH = 16
BATCH = 10_000

_python: dict[str, Any] = {"churn_ns_per_call": {}}


@pytest.fixture(scope="module")
def rust(directory: Path) -> Iterator[RustFigures]:
    """Every workload, with every peer in Rust; what was found is written down when all is measured."""
    figures = run(directory)
    yield figures
    if SCALE is FULL and set(_python["churn_ns_per_call"]) == set(PEERS) and "batch_free_ns_per_run" in _python:
        allocator_report.save(figures, _python, directory)


def test_time_beside_peers(rust: RustFigures, findings: Findings) -> None:
    """Every churn workload, beside whoever is fastest on it."""
    ratios = {workload: workload.beside_peers() for workload in rust.churning()}
    slowest = max(ratios, key=lambda workload: ratios[workload][0])
    ratio, peer = ratios[slowest]
    ahead = sum(value <= 1 for value, _ in ratios.values())
    findings.add(
        "allocator-peers",
        "Allocator, slowest churn beside the fastest peer",
        ratio,
        Bound(high=1.0, gate_high=4.0),
        subject=f"{slowest.title}: {slowest.ns(OURS):.0f} ns a call",
        floor=f"{peer} {slowest.ns(peer):.0f} ns",
        note=f"ahead of every peer on {ahead} of {len(ratios)} churn workloads; all in [allocator.md](allocator.md)",
    )


@pytest.mark.parametrize("figure", ["failures_with_space", "free_runs"])
def test_fragmentation_is_that_of_exact_best_fit(rust: RustFigures, findings: Findings, figure: str) -> None:
    ratios = {w: ratio for w in rust.churning() if (ratio := w.beside_exact(figure)) is not None}
    assert ratios, "no workload had enough of them to compare"
    worst = max(ratios, key=lambda workload: ratios[workload])
    ours, exact, fastest = (worst.fragmentation[name][figure] for name in (OURS, EXACT, FASTEST_PEER))
    findings.add(
        f"allocator-{figure.replace('_', '-')}",
        f"Allocator, {figure.replace('_', ' ')} beside exact best fit",
        ratios[worst],
        Bound(high=1.1, gate_high=1.6),
        subject=f"{worst.title}: {ours:,}",
        floor=f"{exact:,}; {FASTEST_PEER} {fastest:,}",
        note=f"the worst of {len(ratios)} churn workloads with enough of them to compare",
    )


@pytest.mark.parametrize(("tib", "bound_ns"), [(1, 60), (16, 120)])
def test_time_a_call(rust: RustFigures, findings: Findings, tib: int, bound_ns: int) -> None:
    workload = rust.workload("churn 90 %", tib)
    figures = workload.allocators[OURS]
    findings.add(
        f"allocator-{tib}-tib",
        f"Allocator, a call at {tib} TiB",
        figures["ns_per_call"],
        Bound(high=bound_ns),
        unit="ns",
        subject=f"churn at 90 %; half of the turns from {figures['lower_quartile_ns']:.0f} "
        f"to {figures['upper_quartile_ns']:.0f} ns",
    )
    findings.add(
        f"allocator-{tib}-tib-p99",
        f"Allocator, p99 of a call at {tib} TiB",
        figures["p99_ns"],
        Bound(high=1000),
        unit="ns",
        subject="single calls by the wall clock",
    )


def test_rebuild_and_memory(rust: RustFigures, findings: Findings) -> None:
    """Pools of every size; the bounds are for the worst of them."""
    slowest = max(rust.rebuilds, key=lambda pool: pool["ms"])
    findings.add(
        "allocator-rebuild",
        "Allocator, rebuild of 1,000,000 runs",
        slowest["ms"],
        Bound(high=100),
        unit="ms",
        subject=f"in no order, {slowest['tib']} TiB; {slowest['free_runs']:,} free runs",
        note=f"the slowest of {', '.join(str(pool['tib']) for pool in rust.rebuilds)} TiB",
    )
    largest = max(rust.rebuilds, key=lambda pool: pool["bytes_per_free_run"])
    findings.add(
        "allocator-memory",
        "Allocator, memory for a free run",
        largest["bytes_per_free_run"],
        Bound(high=64, gate_high=64),
        unit="B",
        subject=f"in the rebuilt pool of {largest['tib']} TiB",
    )


def test_a_call_from_python(benchmark, rust: RustFigures, findings: Findings) -> None:
    """An allocation and its free, one after the other; the loop is part of it."""
    pool = ExtentPool([16 * TIB])

    def calls() -> None:
        allocate, free = pool.allocate, pool.free
        for _ in range(1000):
            free(*allocate(LENGTH))

    benchmark.pedantic(calls, rounds=SCALE.rounds, warmup_rounds=5)
    python_ns, rust_ns = benchmark.stats.stats.min * 1e9 / 2000, rust.plain["call_ns"]
    _python["call_ns"] = python_ns
    findings.add(
        "allocator-python-call",
        "Allocator, what Python adds to a call",
        python_ns - rust_ns,
        Bound(high=150),
        unit="ns",
        subject=f"{python_ns:.0f} ns from Python",
        floor=f"{rust_ns:.0f} ns in Rust",
    )


@pytest.mark.parametrize("direction", ["allocate", "free"])
def test_a_batch_from_python(benchmark, rust: RustFigures, findings: Findings, direction: str) -> None:
    pool = ExtentPool([16 * TIB])
    lengths = struct.pack(f"={BATCH}Q", *[LENGTH] * BATCH)
    held: list[bytes] = []

    def allocate() -> None:
        runs = pool.allocate_batch(lengths)
        assert runs
        held.append(runs)

    def free() -> None:
        pool.free_batch(held.pop())

    subject, before, after = (allocate, _nothing, free) if direction == "allocate" else (free, allocate, _nothing)
    benchmark.pedantic(subject, setup=before, teardown=after, rounds=SCALE.rounds, warmup_rounds=5)
    python_ns = benchmark.stats.stats.min * 1e9 / BATCH
    rust_ns = rust.plain[f"batch_{direction}_ns_per_run"]
    _python[f"batch_{direction}_ns_per_run"] = python_ns
    findings.add(
        f"allocator-python-batch-{direction}",
        f"Allocator, what Python adds to a run of a batch, {direction}",
        python_ns - rust_ns,
        Bound(high=5),
        unit="ns",
        subject=f"{python_ns:.1f} ns from Python",
        floor=f"{rust_ns:.1f} ns in Rust",
    )


@pytest.mark.parametrize("name", PEERS)
def test_churn_from_python(benchmark, rust: RustFigures, name: str, aged: tuple[list[Run], list[Run]]) -> None:
    """Churn at 90 % of 1 TiB, the same pool for all: what one would use from Python instead."""
    make, calls = PEERS[name]
    free, held = aged
    work = _churn(make(TIB, free), list(held))
    work(calls // 10)
    calls_s: list[float] = []

    def turn() -> None:
        begin = time.perf_counter()
        work(calls)
        calls_s.append((time.perf_counter() - begin) / calls)

    benchmark.pedantic(turn, rounds=7 if SCALE is FULL else 3)
    _python["churn_ns_per_call"][name] = statistics.median(calls_s) * 1e9


@pytest.fixture(scope="module")
def aged() -> tuple[list[Run], list[Run]]:
    """Free and held runs of a pool of 1 TiB that has been churned at 90 %."""
    held: list[Run] = []
    make, _ = PEERS[OURS]
    _churn(make(TIB, [(0, TIB)]), held)(60_000)
    held.sort()
    ends = [0, *(start + length for start, length in held)]
    starts = [*(start for start, _ in held), TIB]
    return [(end, start - end) for end, start in zip(ends, starts, strict=True) if end < start], held


def _churn(peer: Peer, held: list[Run]) -> Callable[[int], None]:
    """Keeps the pool 90 % full of runs of 64 to 65,536 extents, most of them short."""
    chance = random.Random(7)
    lengths = [int(64 / (1 / 1024 + 1023 / 1024 * chance.random())) for _ in range(1 << 12)]
    used, drawn = sum(length for _, length in held), 0

    def work(calls: int) -> None:
        nonlocal used, drawn
        for _ in range(calls):
            drawn += 1
            length = lengths[drawn % len(lengths)]
            start = peer.allocate(length) if used + length <= TIB * 9 // 10 else None
            if start is not None:
                held.append((start, length))
                used += length
            elif held:
                victim = chance.randrange(len(held))
                held[victim], held[-1] = held[-1], held[victim]
                start, freed = held.pop()
                peer.free(start, freed)
                used -= freed

    return work


def _nothing() -> None:
    pass
