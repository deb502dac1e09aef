"""The allocator's comparison as JSON, as tables and as a picture, beside the other results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from benches import results
from benches.allocator_rust import EXACT, FASTEST_PEER, OURS, RustFigures, Workload

__all__ = ["PATH", "save"]

PATH = results.LATEST.with_name("allocator.json")
COLOURS = {
    OURS: "#1b6ca8",
    FASTEST_PEER: "#d1495b",
    "offset-allocator by address": "#e8a0a8",
    EXACT: "#3d8b5f",
    "range-alloc": "#c98b2b",
    "roaring": "#8a63b3",
}
LEFT, WIDTH, STEP, TOP = 150, 620, 17, 56
DECADES = 5
"""The axis goes from 1 ns to 10 to the power of so many."""


def save(figures: RustFigures, python: Mapping[str, Any], directory: Path) -> None:
    """Write ``allocator.json``, ``allocator.md`` and ``allocator.svg``; ``python`` is what Python's peers took."""
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": results.machine(directory),
        **figures.all,
        "python": python,
    }
    PATH.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PATH.with_suffix(".md").write_text(_markdown(figures, python, result), encoding="utf-8")
    PATH.with_suffix(".svg").write_text(_picture(figures), encoding="utf-8")


def _markdown(figures: RustFigures, python: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    where, plain = result["machine"], figures.plain
    lines = [
        "# The allocator beside its peers",
        "",
        f"Measured {result['date']} on {where['cpu']}, Linux {where['kernel']}; load average at the start "
        f"{where['load']}. Written by `make bench`. What the workloads and the peers are stands in "
        "[docs/allocator.md](../../docs/allocator.md).",
        "",
        "![nanoseconds a call by workload](allocator.svg)",
        "",
        "## Time",
        "",
        "Nanoseconds a call: processor time net of the workload's own, median over turns. p99 is ours, of single calls "
        "by the wall clock.",
        "",
        f"| workload, TiB | {' | '.join(COLOURS)} | p99 | B a free run |",
        f"|---|{'---:|' * (len(COLOURS) + 2)}",
    ]
    lines += [_speed_row(workload) for workload in figures.workloads]
    lines += [
        "",
        "## Fragmentation",
        "",
        "Requests that found no place while as many extents were free, and free runs in the end; sums over several "
        f"sequences of requests. The ratios are {OURS} beside exact best fit.",
        "",
        f"| workload, TiB | requests | failed: {OURS} | {EXACT} | {FASTEST_PEER} | ratio | free runs: {OURS} | {EXACT} "
        f"| {FASTEST_PEER} | ratio |",
        f"|---|{'---:|' * 9}",
    ]
    lines += [_fragmentation_row(workload) for workload in figures.churning()]
    lines += [
        "",
        "## From Python",
        "",
        f"One call after the other in an empty pool: {plain['call_ns']:.0f} ns in Rust, {python['call_ns']:.0f} ns "
        f"from Python. Batches of {plain['batch_runs']:,}: {plain['batch_allocate_ns_per_run']:.1f} ns a run to "
        f"allocate and {plain['batch_free_ns_per_run']:.1f} ns to free in Rust, "
        f"{python['batch_allocate_ns_per_run']:.1f} and {python['batch_free_ns_per_run']:.1f} ns from Python.",
        "",
        "| churn 90 %, 1 TiB, driven from Python | ns a call, the loop included | |",
        "|---|---:|---:|",
    ]
    ours = python["churn_ns_per_call"][OURS]
    lines += [f"| {name} | {ns:,.0f} | {ns / ours:.0f} x |" for name, ns in python["churn_ns_per_call"].items()]
    lines += [
        "",
        "## Rebuild",
        "",
        "The pool after a crash: from so many runs in no order. The best of five.",
        "",
        "| pool | extents | held runs | free runs | ms | B a free run |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {pool['tib']} TiB | {pool['extent_bytes'] >> 10:,} KiB | {pool['runs']:,} | {pool['free_runs']:,} "
        f"| {pool['ms']:.0f} | {pool['bytes_per_free_run']:.0f} |"
        for pool in figures.rebuilds
    ]
    return "\n".join(lines) + "\n"


def _speed_row(workload: Workload) -> str:
    ours = workload.allocators[OURS]
    cells = ["-" if (ns := workload.ns(name)) is None else f"{ns:,.0f}" for name in COLOURS]
    few = ours["free_runs"] < 1000
    memory = "-" if few else f"{ours['memory_bytes_per_free_run']:.0f}"
    return f"| {workload.title} | {' | '.join(cells)} | {ours['p99_ns']} | {memory} |"


def _fragmentation_row(workload: Workload) -> str:
    cells = [f"{workload.fragmentation[OURS]['requests']:,}"]
    for figure in ("failures_with_space", "free_runs"):
        cells += [f"{workload.fragmentation[name][figure]:,}" for name in (OURS, EXACT, FASTEST_PEER)]
        ratio = workload.beside_exact(figure)
        cells.append("-" if ratio is None else f"{ratio:.2f}")
    return f"| {workload.title} | {' | '.join(cells)} |"


def _picture(figures: RustFigures) -> str:
    """A dot an allocator in a row a workload, on a logarithmic axis."""
    height = TOP + STEP * len(figures.workloads) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (name, colour) in enumerate(COLOURS.items()):
        x = 12 + number * 128 + (40 if number > 2 else 0)
        parts += [
            f'<circle cx="{x}" cy="14" r="4" fill="{colour}"/>',
            f'<text x="{x + 8}" y="18">{escape(name)}</text>',
        ]
    for decade in range(DECADES + 1):
        x = _x(10.0**decade)
        parts += [
            f'<line x1="{x:.0f}" y1="{TOP - 8}" x2="{x:.0f}" y2="{height - 8}" stroke="#ccc"/>',
            f'<text x="{x:.0f}" y="{TOP - 13}" text-anchor="middle" fill="#555">{10**decade:,} ns</text>',
        ]
    for row, workload in enumerate(figures.workloads):
        y = TOP + row * STEP + STEP // 2
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(workload.title)}</text>')
        for name, colour in reversed(COLOURS.items()):
            if (ns := workload.ns(name)) is not None:
                parts.append(f'<circle cx="{_x(ns):.1f}" cy="{y}" r="4.5" fill="{colour}" fill-opacity="0.9"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(ns: float) -> float:
    return LEFT + WIDTH * min(max(math.log10(ns), 0.0), DECADES) / DECADES
