"""What the demo shows: each call as it ends, then tables. Plain lines where the output is no terminal."""

from __future__ import annotations

import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from csi_core.cli.demo.client import Call
from csi_core.cli.demo.samples import Sample

__all__ = ["Report"]

PLAIN_WIDTH = 120
CHART_COLUMNS = 48
NUMBER_COLUMNS = 68
"""What the table needs beside the chart."""
TICKS = "▁▂▃▄▅▆▇█"
ASCII_TICKS = "_.-=+*%#"


class Report:
    """Lines on a console while the walk goes on, and the tables at its end."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(highlight=False)
        self._console = (
            console if console.is_terminal else Console(file=console.file, highlight=False, width=PLAIN_WIDTH)
        )
        self._begin = time.monotonic()
        self.calls: list[Call] = []
        self.checks = 0

    def title(self, text: str) -> None:
        """A heading."""
        self._console.print()
        self._console.rule(f"[bold]{text}", align="left")

    def say(self, text: str) -> None:
        """A line for people."""
        self._console.print(text, markup=False, soft_wrap=True)

    def call(self, call: Call) -> None:
        """Show a call that has ended, and count it."""
        self.calls.append(call)
        mark = "[green]ok[/]" if call.expected else "[bold red]NO[/]"
        code = "" if call.code == "OK" else f"  [yellow]{call.code}[/]"
        self._console.print(
            f"{self._clock()} {mark} {call.name:<26}{call.duration_s * 1e3:>9.1f} ms  "
            f"[dim]{escape(call.subject)}[/]{code}",
            soft_wrap=True,
        )

    def check(self, text: str) -> None:
        """Show something that was compared and found right."""
        self.checks += 1
        self._console.print(f"{self._clock()} [green]==[/] [cyan]{escape(text)}[/]", soft_wrap=True)

    def failure(self, text: str) -> None:
        """Show what went wrong."""
        self._console.print(f"{self._clock()} [bold red]FAILED:[/] {escape(text)}", soft_wrap=True)

    def call_table(self) -> None:
        """Calls by name: how many, p50 and the slowest."""
        table = Table(title="Calls", box=box.SIMPLE_HEAD, title_justify="left")
        table.add_column("call")
        for column in ("count", "p50 ms", "max ms"):
            table.add_column(column, justify="right")
        for name, durations in sorted(self._durations_ms().items()):
            table.add_row(name, str(len(durations)), f"{statistics.median(durations):.1f}", f"{max(durations):.1f}")
        self._console.print()
        self._console.print(table)

    def pool_chart(self, samples: Sequence[Sample]) -> None:
        """What the pool looked like over time."""
        if not samples:
            return
        table = Table(
            title=f"The pool over {samples[-1].at_s:.0f} s ({len(samples)} samples)",
            box=box.SIMPLE_HEAD,
            title_justify="left",
        )
        for column in ("", "over time", "first", "lowest", "highest", "last"):
            table.add_column(column, justify="left" if column in ("", "over time") else "right")
        rows = {
            "promised": [s.promised_bytes for s in samples],
            "used": [s.used_bytes - samples[0].used_bytes for s in samples],
            "free": [s.free_bytes for s in samples],
        }
        for name, values in rows.items():
            numbers = (values[0], min(values), max(values), values[-1])
            table.add_row(name, self._chart(values), *(f"{value / 2**20:,.0f} MiB" for value in numbers))
        self._console.print(table)

    def closing(self, verdict: str, good: bool) -> None:
        """The last line."""
        took = time.monotonic() - self._begin
        text = f"{verdict} ({len(self.calls)} calls, {self.checks} checks, {took:.1f} s)"
        self._console.print(text, style="bold green" if good else "bold red", markup=False)

    def _chart(self, values: Sequence[int]) -> str:
        ticks = TICKS if self._console.encoding.lower().startswith("utf") else ASCII_TICKS
        columns = max(1, min(CHART_COLUMNS, self._console.width - NUMBER_COLUMNS, len(values)))
        edges = [i * len(values) // columns for i in range(columns + 1)]
        picked = [max(values[start:end]) for start, end in itertools.pairwise(edges)]
        low, high = min(values), max(values)
        span = (high - low) or 1
        return "".join(ticks[(value - low) * (len(ticks) - 1) // span] for value in picked)

    def _durations_ms(self) -> dict[str, list[float]]:
        by_name: dict[str, list[float]] = defaultdict(list)
        for call in self.calls:
            by_name[call.name].append(call.duration_s * 1e3)
        return by_name

    def _clock(self) -> str:
        return f"[dim]{time.monotonic() - self._begin:6.2f}[/]"
