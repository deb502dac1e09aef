"""``csi-core serve``: the driver itself."""

from __future__ import annotations

import sys
from pathlib import Path

import click

__all__ = ["config_option", "serve"]

config_option = click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Configuration file (YAML).",
)


@click.command()
@config_option
def serve(config_path: Path) -> None:
    """Run the CSI driver until SIGTERM or SIGINT.

    Calls under way are waited for; what is mounted stays mounted.
    """
    from csi_core import log  # noqa: PLC0415 - --help must not import the server
    from csi_core.config_check import load_checked_config  # noqa: PLC0415
    from csi_core.server.app import serve as serve_until_stopped  # noqa: PLC0415

    config = load_checked_config(config_path)
    log.configure(config.log.format, config.log.level)
    sys.exit(serve_until_stopped(config))
