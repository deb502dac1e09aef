"""The comparison in Rust: built with cargo, run once, its figures as one mapping."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.scale import SCALE

__all__ = ["EXACT", "FASTEST_PEER", "OURS", "RustFigures", "Workload", "run"]

OURS = "csi-core"
EXACT = "two B-trees"
"""Exact best fit: what fragmentation is held against."""
FASTEST_PEER = "offset-allocator"
CRATE = Path(__file__).parents[1] / "allocator_rs" / "benches-crate" / "Cargo.toml"
FEW_FAILURES = 200
"""Fewer than so many say nothing about fragmentation."""


@dataclass(frozen=True, eq=False)
class Workload:
    """All allocators on one workload.

    Attributes:
        name, tib: the workload, and the size of its pool in TiB.
        allocators: figures by name; those that were too slow to get their pool ready are missing.
        fragmentation: counts by name, for workloads that churn: ours, exact best fit and the fastest peer.
    """

    name: str
    tib: int
    allocators: Mapping[str, Mapping[str, Any]]
    fragmentation: Mapping[str, Mapping[str, int]]

    @property
    def title(self) -> str:
        return f"{self.name}, {self.tib} TiB"

    @property
    def churns(self) -> bool:
        return bool(self.fragmentation)

    def ns(self, allocator: str) -> float | None:
        figures = self.allocators.get(allocator)
        return figures["ns_per_call"] if figures else None

    def beside_peers(self) -> tuple[float, str]:
        """Our time a call as a multiple of the fastest peer's, and who that is."""
        peers = {name: figures["ns_per_call"] for name, figures in self.allocators.items() if name != OURS}
        fastest = min(peers, key=lambda name: peers[name])
        return self.allocators[OURS]["ns_per_call"] / peers[fastest], fastest

    def beside_exact(self, figure: str) -> float | None:
        """One of our counts of fragmentation as a multiple of exact best fit's; None where both are small."""
        ours, exact = (self.fragmentation[name][figure] for name in (OURS, EXACT))
        return ours / exact if exact >= FEW_FAILURES else None


class RustFigures:
    """What one run of the comparison has found."""

    def __init__(self, figures: Mapping[str, Any]) -> None:
        self.all = figures
        self.workloads = [Workload(**row) for row in figures["workloads"]]
        self.rebuilds: Sequence[Mapping[str, Any]] = figures["rebuild"]
        """One a pool size."""
        self.plain: Mapping[str, Any] = figures["plain"]

    def workload(self, name: str, tib: int) -> Workload:
        return next(workload for workload in self.workloads if (workload.name, workload.tib) == (name, tib))

    def churning(self) -> Iterator[Workload]:
        return (workload for workload in self.workloads if workload.churns)


def run(directory: Path) -> RustFigures:
    """Build and run the comparison; ``directory`` takes its output."""
    output = directory / "allocator.json"
    cargo = ["cargo", "run", "--quiet", "--release", "--locked", "--manifest-path", CRATE, "--", "--json", output]
    subprocess.run([*cargo, *(["--short"] if SCALE.form == "short" else [])], check=True, timeout=1800)
    return RustFigures(json.loads(output.read_text(encoding="utf-8")))
