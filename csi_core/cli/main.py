"""The program ``csi-core``. Each command's module is imported when that command runs, and not before."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import click

__all__ = ["main"]


class _Command(NamedTuple):
    where: str
    about: str


_COMMANDS = {
    "serve": _Command("csi_core.cli.serve:serve", "Run the CSI driver."),
    "demo": _Command("csi_core.cli.demo.command:demo", "Walk real volumes through their life, and show it."),
    "config": _Command("csi_core.cli.config:config", "Check a configuration; print its JSON Schema."),
    "backends": _Command("csi_core.cli.backends:backends", "Show the backends, what they can do and their parameters."),
    "volumes": _Command("csi_core.cli.volumes:volumes", "List, create, delete and expand volumes of a running server."),
    "snapshots": _Command("csi_core.cli.snapshots:snapshots", "List, take and delete snapshots of a running server."),
    "capacity": _Command("csi_core.cli.capacity:capacity", "Show the room that a running server has for new volumes."),
    "doctor": _Command("csi_core.cli.care:doctor", "Compare what is recorded with what is there."),
    "gc": _Command("csi_core.cli.care:gc", "Repair what doctor found and can be repaired without loss."),
}


class _Main(click.Group):
    """Knows its commands by name, and prints the project's own errors as sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            from csi_core.cli.plugin_commands import find_command  # noqa: PLC0415 - imports the backends

            return find_command(cmd_name)
        module, _, attribute = _COMMANDS[cmd_name].where.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.about) for name, command in _COMMANDS.items()])
        formatter.write_paragraph()
        formatter.write_text("Backends bring commands of their own, as loop does with csi-core pool.")

    def invoke(self, ctx: click.Context) -> Any:
        from csi_core.errors import CsiCoreError  # noqa: PLC0415 - the start-up time of --help

        try:
            return super().invoke(ctx)
        except CsiCoreError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="csi-core", prog_name="csi-core", message="%(prog)s %(version)s")
def main() -> None:
    """Run CSI drivers made of csi-core backends, and look after their volumes."""


if __name__ == "__main__":
    main(prog_name="csi-core")
