"""``csi-core config``: check a configuration file, print its JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import click

from csi_core.cli.serve import config_option

__all__ = ["config"]


@click.group()
def config() -> None:
    """Check a configuration; print its JSON Schema."""


@config.command(short_help="Print the JSON Schema, with every backend's options.")
def schema() -> None:
    """Print the JSON Schema, with the options of every installed backend."""
    from csi_core.config_check import json_schema  # noqa: PLC0415 - imports the backends

    click.echo(json.dumps(json_schema(), indent=2))


@config.command(short_help="Check a configuration; no storage is touched.")
@config_option
def check(config_path: Path) -> None:
    """Check a configuration and load its backends, without touching any storage."""
    from csi_core.config_check import load_checked_config  # noqa: PLC0415
    from csi_core.runtime import load_backend  # noqa: PLC0415

    checked = load_checked_config(config_path)
    for name, section in checked.backends.items():
        load_backend(name, section)
    names = ", ".join(checked.backends)
    click.echo(f"{config_path} is right: driver {checked.driver.name} with the backends {names}.")
