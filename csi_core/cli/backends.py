"""``csi-core backends``: what is installed or configured, what each declares, and what its keys mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from csi_core.cli.output import Fact, emit, emit_facts, output_option

if TYPE_CHECKING:
    from csi_core.cli.catalogue import Entry

__all__ = ["backends"]

_KEY_COLUMNS = {"KEY": "key", "VALUE": "type", "ALLOWED": "allowed", "DEFAULT": "default", "": "description"}

_config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Show the backends of this configuration instead of the installed ones.",
)


@click.group(invoke_without_command=True)
@_config_option
@output_option
@click.pass_context
def backends(context: click.Context, config_path: Path | None, output: str) -> None:
    """Show the backends, what each declares and the CSI capabilities that follow.

    With --config, each backend is opened for a moment to ask it, unless its server is running.
    """
    if context.invoked_subcommand is None:
        entries = _entries(config_path)
        if output == "json":
            emit([entry.as_json() for entry in entries], {}, output, "")
        else:
            emit_facts([(entry.heading, _facts(entry)) for entry in entries], "No backends are installed.")


@backends.command(short_help="Explain every key of one backend.")
@click.argument("name")
@_config_option
@click.option(
    "--output",
    "-o",
    type=click.Choice(["table", "json", "markdown"]),
    default="table",
    help="For people, for programs, or for documentation.",
)
def show(name: str, config_path: Path | None, output: str) -> None:
    """Explain every key of one backend: its options, StorageClass parameters, secrets and the rest."""
    entries = _entries(config_path)
    entry = next((entry for entry in entries if entry.name == name), None)
    if entry is None:
        from csi_core.contract import nearest  # noqa: PLC0415 - the start-up time of --help

        names = [entry.name for entry in entries]
        where = f"configured in {config_path}" if config_path else "installed"
        raise click.ClickException(
            f"no backend {name!r} is {where}{nearest(name, names) or '; there are: ' + (', '.join(names) or 'none')}"
        )
    if output == "markdown":
        click.echo(entry.as_markdown(), nl=False)
    elif output == "json":
        emit([entry.as_json()], {}, output, "")
    else:
        _show(entry)


def _entries(config_path: Path | None) -> Sequence[Entry]:
    from csi_core.cli.catalogue import configured, installed  # noqa: PLC0415 - imports the backends

    return installed() if config_path is None else configured(config_path)


def _show(entry: Entry) -> None:
    emit_facts([(entry.heading, _facts(entry))], "")
    for title, docs in entry.keys().items():
        click.echo(title)
        rows = [{**doc, "default": "required" if doc["default"] is None else doc["default"]} for doc in docs]
        emit(rows, _KEY_COLUMNS, "table", "  none")
        click.echo()


def _facts(entry: Entry) -> list[Fact]:
    facts = [("package", entry.package)]
    if entry.note:
        facts.append(("note", entry.note))
    description, capabilities = entry.description, entry.capabilities
    if description is None or capabilities is None:
        return facts
    facts += [
        ("about", description.summary),
        ("reach", description.reach.value),
        *((f"{mode.value} volumes", ", ".join(modes)) for mode, modes in entry.access_modes().items()),
        ("filesystems", ", ".join(description.filesystems) or "none to make: volumes are directories or shares"),
        (
            "content from",
            ", ".join(sorted(kind.value for kind in description.sources)) or "nothing: volumes begin empty",
        ),
        ("parameters", ", ".join(entry.parameter_keys()) or "none"),
        ("ephemeral volumes", "yes" if description.ephemeral else "no"),
        *description.facts.items(),
        *((f"{service} capabilities", ", ".join(names)) for service, names in entry.capability_names().items()),
    ]
    return facts
