"""``csi-core doctor`` and ``csi-core gc``: what is inconsistent, and the safe part of mending it.

They open the storage themselves, so the server of the configuration must be stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from csi_core.cli.output import emit, output_option
from csi_core.cli.serve import config_option

if TYPE_CHECKING:
    from csi_core.config import Config
    from csi_core.facade import Backend
    from csi_core.health import Finding

__all__ = ["doctor", "gc", "opened", "server_answers"]

_COLUMNS = {"BACKEND": "backend", "WHAT": "subject", "PROBLEM": "problem", "DO": "advice", "REPAIRABLE": "repairable"}


@click.command()
@config_option
@output_option
def doctor(config_path: Path, output: str) -> None:
    """Compare what is recorded with what is there. Changes nothing; exits with 1 where something is wrong.

    The server of this configuration must be stopped.
    """
    with opened(config_path) as backends:
        found = [(backend, finding) for backend in backends for finding in _findings(backend)]
    emit([_row(backend, finding) for backend, finding in found], _COLUMNS, output, "Nothing is wrong.")
    sys.exit(1 if found else 0)


@click.command()
@config_option
@click.option("--apply", is_flag=True, help="Repair; without, only show what would be repaired.")
@output_option
def gc(config_path: Path, apply: bool, output: str) -> None:
    """Repair what doctor found, where it is proved that nothing is lost.

    The server of this configuration must be stopped.
    """
    rows = []
    with opened(config_path) as backends:
        for backend in backends:
            # All are found before one is repaired: a repair may change what a generator under way would answer.
            for finding in tuple(_findings(backend)):
                row = _row(backend, finding)
                if row["repairable"]:
                    rows.append({**row, "repaired": apply and backend.repair(finding)})
    emit(rows, {**_COLUMNS, "REPAIRED": "repaired"}, output, "There is nothing to repair.")
    if rows and not apply and output == "table":
        click.echo("Nothing was changed. Repair with --apply.")
    sys.exit(1 if apply and not all(row["repaired"] for row in rows) else 0)


@contextmanager
def opened(config_path: Path) -> Iterator[tuple[Backend, ...]]:
    """The started backends of a configuration whose server does not run."""
    from csi_core import log  # noqa: PLC0415 - the start-up time of --help
    from csi_core.config_check import load_checked_config  # noqa: PLC0415
    from csi_core.runtime import build  # noqa: PLC0415

    config = load_checked_config(config_path)
    if server_answers(config):
        raise click.ClickException(
            f"a server runs at {config.driver.socket_path} and holds the storage open; stop it first"
        )
    log.configure("console", "error")
    runtime = build(config)
    try:
        runtime.capabilities  # noqa: B018 - raises where a backend could not be started
        yield runtime.router.all
    finally:
        runtime.stop()


def server_answers(config: Config) -> bool:
    """Whether somebody listens on the socket of the configuration."""
    import socket  # noqa: PLC0415

    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(config.driver.socket_path))
        except OSError:
            return False
    return True


def _findings(backend: Backend) -> Iterator[Finding]:
    return backend.diagnose() if "diagnose" in backend.hooks else iter(())


def _row(backend: Backend, finding: Finding) -> dict[str, Any]:
    return {
        "backend": backend.name,
        "subject": finding.subject,
        "problem": finding.problem,
        "advice": finding.advice,
        "repairable": finding.repairable and "repair" in backend.hooks,
    }
