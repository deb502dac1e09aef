"""``csi-core pool``: making, growing, showing, checking and defragmenting the pools of the layout extents."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from csi_core.cli.output import emit, emit_facts, output_option, size_text
from csi_core.cli.serve import config_option

if TYPE_CHECKING:
    from backends.loop.database import PoolDatabase
    from backends.loop.extents.preparing import Growth
    from backends.loop.options import PoolOptions

__all__ = ["pool"]

_GROWTH_COLUMNS: Final = {"SEGMENT": "segment", "NUMBER": "number", "ADDED": "addedBytes"}
_FINDING_COLUMNS: Final = {"WHAT": "subject", "PROBLEM": "problem", "DO": "advice"}
_TERMINAL_ROWS: Final = 12
_IMAGE_CELLS: Final = 96 * 24
_GLYPHS: Final = {"volume": "█", "snapshot": "▓", "quarantined": "▒", "free": "·"}


@dataclass(frozen=True)
class _Chosen:
    name: str
    options: PoolOptions


def _pool_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--backend", default="", metavar="NAME", help="Which loop backend, where several have a pool of this name."
    )(command)
    return config_option(click.argument("name", metavar="POOL")(command))


_force_option = click.option("--force", is_flag=True, help="Overwrite devices and files that are not empty.")


@click.group()
def pool() -> None:
    """Make, grow, show, check and defragment pools of the loop backend with layout: extents."""


@pool.command(short_help="Make POOL of the segments in the configuration.")
@_pool_options
@_force_option
@output_option
def create(name: str, config_path: Path, backend: str, force: bool, output: str) -> None:
    """Make POOL of the segments that the configuration lists; each is written once, with zeros.

    Killed in the middle, the same command goes on. A server that waits for the pool may run.
    """
    from backends.loop.extents import preparing  # noqa: PLC0415 - the start-up time of --help

    chosen = _chosen(config_path, name, backend)
    _begin(chosen)
    with _database(chosen) as database, _progress() as progress:
        wanted = chosen.options.segments
        made = preparing.create(database, wanted, chosen.options.extent_size, force=force, progress=progress)
    _show_growth(made, output, f"Pool {name} is made already.")


@pool.command(short_help="Add new segments, and what others have grown by, to POOL.")
@_pool_options
@_force_option
@output_option
def grow(name: str, config_path: Path, backend: str, force: bool, output: str) -> None:
    """Add to POOL the segments that the configuration lists and it does not have, and what others have grown by.

    The server may run, and its volumes be in use: it takes notice within a second.
    """
    from backends.loop.extents import preparing  # noqa: PLC0415

    chosen = _chosen(config_path, name, backend)
    with _database(chosen) as database, _progress() as progress:
        grown = preparing.grow(database, chosen.options.segments, force=force, progress=progress)
    _show_growth(grown, output, f"Pool {name} has all of these segments already, at their full length.")


@pool.command(short_help="Draw the map of POOL, and say how much of it is free.")
@_pool_options
@click.option(
    "--image",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the map to this file, too: .svg, or .png, which has no words.",
)
@output_option
def show(name: str, config_path: Path, backend: str, image: Path | None, output: str) -> None:
    """Draw the map of POOL, and say how much of it is free and in how many pieces. The server may run."""
    from backends.loop.extents import picture  # noqa: PLC0415
    from backends.loop.extents.survey import survey  # noqa: PLC0415

    if image and image.suffix not in (".svg", ".png"):
        raise click.UsageError("--image takes a name that ends in .svg or .png")
    with _database(_chosen(config_path, name, backend)) as database:
        found = survey(name, database)
    if image:
        cells = found.cells(_IMAGE_CELLS)
        image.write_bytes(picture.png(cells) if image.suffix == ".png" else picture.svg(cells).encode())
    if output == "json":
        emit([found.as_json()], {}, output, "")
        return
    _draw(found.cells)
    emit_facts([(f"pool {name}", found.facts())], "")


@pool.command()
@_pool_options
@click.option("--zeros", is_flag=True, help="Read what is free, too: it must be zeros. The server must be stopped.")
@output_option
def check(name: str, config_path: Path, backend: str, zeros: bool, output: str) -> None:
    """Check what is recorded of POOL. Changes nothing; exits with 1 where something is wrong."""
    from backends.loop.extents import checking  # noqa: PLC0415
    from backends.loop.pool import locked  # noqa: PLC0415

    chosen = _chosen(config_path, name, backend)
    with _database(chosen) as database:
        lock = locked(name, chosen.options.path) if zeros else None
        try:
            found = list(checking.check(name, database, zeros=zeros))
        finally:
            if lock is not None:
                os.close(lock)
    rows = [{"subject": f.subject, "problem": f.problem, "advice": f.advice} for f in found]
    emit(rows, _FINDING_COLUMNS, output, "Nothing is wrong.")
    sys.exit(1 if found else 0)


@pool.command(short_help="Move what is not attached, so that free pieces become longer.")
@_pool_options
def defrag(name: str, config_path: Path, backend: str) -> None:
    """Move volumes and snapshots of POOL together, so that there are fewer and longer free pieces.

    What is attached stays where it is. The server of this node must be stopped.

    It can be interrupted at any moment: a volume is at its old place or at its new one.
    """
    from backends.loop.extents.defragmenting import defragment  # noqa: PLC0415
    from backends.loop.extents.layout import ExtentsLayout  # noqa: PLC0415
    from backends.loop.pool import Pool  # noqa: PLC0415

    chosen = _chosen(config_path, name, backend)
    opened = Pool(name, chosen.options, _NoHost())
    try:
        if not isinstance(opened.layout, ExtentsLayout):
            raise click.ClickException(f"pool {name} has the layout images: its filesystem keeps the files together")
        done = defragment(opened, opened.layout, lambda key: click.echo(f"moving {key}", err=True))
    finally:
        opened.close()
    click.echo(
        f"{done.moved} moved ({size_text(done.moved_bytes)}); the longest free piece has "
        f"{size_text(done.longest_after_bytes)} now, {size_text(done.longest_before_bytes)} before."
    )


class _NoHost:
    """Nothing is frozen or grown by a command."""

    node_id = ""
    backend_name = ""

    def frozen(self, devices: tuple[Path, ...], time_limit_s: float) -> Any:
        raise NotImplementedError(devices, time_limit_s)

    def filesystem_on(self, device: Path) -> None:
        """Not asked for: what grows volumes is not started."""


def _chosen(config_path: Path, name: str, backend: str) -> _Chosen:
    from backends.loop.options import LoopOptions  # noqa: PLC0415
    from csi_core.config_check import load_checked_config  # noqa: PLC0415

    config = load_checked_config(config_path)
    loops = {n: s for n, s in config.backends.items() if s.type == "loop" and backend in ("", n)}
    found = []
    for section in loops.values():
        pools = LoopOptions.model_validate(section.options).pools
        if name in pools:
            found.append(_Chosen(name, pools[name]))
    if not found:
        raise click.ClickException(f"{config_path} has no pool {name!r} of a loop backend {backend}".rstrip())
    if len(found) > 1:
        raise click.ClickException(f"several loop backends have a pool {name!r}; say which with --backend")
    if found[0].options.layout != "extents":
        raise click.ClickException(f"pool {name} has the layout images; these commands are for layout: extents")
    return found[0]


def _begin(chosen: _Chosen) -> None:
    """Make pool.db, unless it is one with segments already, which a server may have open."""
    from backends.loop.database import PoolDatabase  # noqa: PLC0415
    from backends.loop.extents import preparing  # noqa: PLC0415
    from backends.loop.pool import locked  # noqa: PLC0415
    from backends.loop.records import Records  # noqa: PLC0415

    if not chosen.options.segments:
        raise click.ClickException(f"pools.{chosen.name}.segments: list block devices, or files with a size")
    directory = _directory(chosen)
    if (directory / "pool.db").exists():
        with _database(chosen) as database:
            if Records(database).extent_pool():
                return
    lock = locked(chosen.name, directory)  # not while a server serves it as a pool of images
    try:
        database = PoolDatabase(directory / "pool.db")
        try:
            preparing.begin(database, chosen.options.extent_size)
        finally:
            database.close()
    finally:
        os.close(lock)


def _directory(chosen: _Chosen) -> Path:
    path = chosen.options.path
    if not path.is_dir() or (chosen.options.require_mount and not path.is_mount()):
        lacks = "nothing is mounted there" if path.is_dir() else "no such directory"
        raise click.ClickException(f"pools.{chosen.name}.path {path}: {lacks}; make it or mount its disk beforehand")
    return path


@contextmanager
def _database(chosen: _Chosen) -> Iterator[PoolDatabase]:
    from backends.loop.database import PoolDatabase  # noqa: PLC0415

    path = _directory(chosen) / "pool.db"
    if not path.exists():
        raise click.ClickException(f"there is no {path}: mount its disk, or make the pool with csi-core pool create")
    database = PoolDatabase(path)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def _progress() -> Iterator[Callable[[Path, int, int], None]]:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = ("{task.description}", BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bars:
        tasks: dict[Path, Any] = {}

        def progress(path: Path, done_bytes: int, total_bytes: int) -> None:
            if path not in tasks:
                tasks[path] = bars.add_task(f"zeros to {path}", total=total_bytes)
            bars.update(tasks[path], completed=done_bytes)

        yield progress


def _show_growth(grown: list[Growth], output: str, nothing: str) -> None:
    rows = [{"segment": str(g.path), "number": g.number, "addedBytes": g.added_bytes} for g in grown]
    emit(rows, _GROWTH_COLUMNS, output, nothing)


def _draw(cells: Callable[[int], Any]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from backends.loop.extents.picture import COLOURS, KINDS  # noqa: PLC0415

    console = Console()
    width = min(console.width, 96)
    for segment in cells(width * _TERMINAL_ROWS):
        console.print(Text(segment.title, style="bold"))
        for row in range(0, len(segment.kinds), width):
            line = Text()
            for kind in segment.kinds[row : row + width]:
                line.append(_GLYPHS[kind], style=COLOURS[kind])
            console.print(line)
    legend = Text()
    for kind in KINDS:
        legend.append(f"{_GLYPHS[kind]} {kind}   ", style=COLOURS[kind])
    console.print(legend)
