"""What a run finds: values with the bound that they are held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Bound", "Finding", "Findings"]


@dataclass(frozen=True)
class Bound:
    """Where a value should lie.

    Attributes:
        low, high: the bar of the project; missing it is reported.
        gate_low, gate_high: beyond this something is broken, and the run fails. None: only reported, as for all
            absolute times, which say as much about the machine as about the code.
    """

    low: float | None = None
    high: float | None = None
    gate_low: float | None = None
    gate_high: float | None = None

    def met_by(self, value: float) -> bool:
        return _inside(value, self.low, self.high)

    def passed_by(self, value: float) -> bool:
        return _inside(value, self.gate_low, self.gate_high)

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        return f"at most {self.high:g}" if self.high is not None else f"at least {self.low:g}"


@dataclass(frozen=True)
class Finding:
    """One value.

    Attributes:
        key: its name in the results, the same for ever.
        title: its name for people.
        value: the ratio, or an absolute figure in ``unit``.
        unit: "x" for ratios.
        bound: as text.
        met: whether the bound is met.
        subject, floor: both sides, for people.
        note: conditions that a reader must know.
        plot: lines to draw, see :func:`benches.lines.picture`; mostly none.
    """

    key: str
    title: str
    value: float
    unit: str
    bound: str
    met: bool
    subject: str
    floor: str
    note: str = ""
    plot: Mapping[str, Any] = field(default_factory=dict)


class Findings:
    """The values of one run, in the order of measuring."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def add(
        self,
        key: str,
        title: str,
        value: float,
        bound: Bound,
        *,
        unit: str = "x",
        subject: str,
        floor: str = "",
        note: str = "",
        plot: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a value; fails where it lies beyond the gate."""
        met = bound.met_by(value)
        self.all.append(Finding(key, title, value, unit, str(bound), met, subject, floor, note, plot or {}))
        assert bound.passed_by(value), f"{title}: {value:.3g} {unit} is far from {bound}: {subject}; {floor}"

    def as_json(self) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in asdict(finding).items() if name != "plot" or value} for finding in self.all
        ]


def _inside(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)
