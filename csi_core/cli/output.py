"""What commands print: a table for people, or JSON with sizes in bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import click

__all__ = ["Fact", "Output", "emit", "emit_facts", "output_option", "size_text"]

Output = Literal["table", "json"]
Row = Mapping[str, Any]
Fact = tuple[str, str]
F = TypeVar("F", bound=Callable[..., Any])


def output_option(function: F) -> F:
    """The option ``--output table|json``."""
    choice = click.Choice(["table", "json"])
    return click.option("--output", "-o", type=choice, default="table", help="For people, or for programs.")(function)


def emit(rows: Sequence[Row], columns: Mapping[str, str], output: str, none: str) -> None:
    """Print rows.

    Args:
        rows: one mapping each; ``json`` prints them whole.
        columns: heading -> key, what the table shows. Keys that end in ``Bytes`` are shown as sizes.
        output: "table" or "json".
        none: the sentence that stands for a table without rows.
    """
    if output == "json":
        click.echo(json.dumps([dict(row) for row in rows], indent=2, ensure_ascii=False))
        return
    if not rows:
        click.echo(none)
        return
    from rich import box  # noqa: PLC0415 - the start-up time of every other command
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, key in columns.items():
        table.add_column(heading, overflow="fold", justify="right" if key.endswith("Bytes") else "left")
    for row in rows:
        table.add_row(*(Text(_cell(key, row.get(key))) for key in columns.values()))
    _print(table)


def emit_facts(things: Sequence[tuple[str, Sequence[Fact]]], none: str) -> None:
    """Print a few things with many facts each: a heading, and a line for each fact."""
    if not things:
        click.echo(none)
        return
    from rich.table import Table  # noqa: PLC0415 - the start-up time of every other command
    from rich.text import Text  # noqa: PLC0415

    for heading, facts in things:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in facts:
            table.add_row(Text(f"  {name}", style="dim"), Text(value))
        click.secho(heading, bold=True)
        _print(table)
        click.echo()


def size_text(size_bytes: int) -> str:
    """``10 GiB``, ``1.5 MiB``."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} PiB"


def _cell(key: str, value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, int) and key.endswith("Bytes"):
        return size_text(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={item}" for name, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value)


def _print(table: Any) -> None:
    from rich.console import Console  # noqa: PLC0415 - the start-up time of every other command

    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    # What reads a pipe wants no folded ids: as wide as the widest row, without the padding behind it.
    wide = console.options.update(max_width=10_000)
    console = Console(width=max(80, int(table.__rich_measure__(console, wide).maximum)))
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().strip("\n").splitlines()).strip("\n"))
