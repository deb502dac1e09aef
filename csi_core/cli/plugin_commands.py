"""Commands that backends bring along: the attribute ``commands`` of a plugin's class, see :mod:`csi_core.hookspecs`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

import click

from csi_core import registry
from csi_core.errors import PluginError

__all__ = ["commands_of", "find_command"]


def find_command(name: str) -> click.Command | None:
    """The command ``name`` of an installed backend, or None. Imports the backends, and the command's own module.

    Raises:
        PluginError: two backends bring one of that name, or what is named is no command.
    """
    found = {where: backend for backend, commands in _installed() for n, where in commands.items() if n == name}
    if not found:
        return None
    if len(found) > 1:
        owners = " and ".join(sorted(found.values()))
        raise PluginError(f"the backends {owners} both bring a command {name!r}; uninstall one of them")
    (where,) = found
    module, _, attribute = where.partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"the command {name!r} of backend {found[where]} ({where}) cannot be loaded: {error}"
        ) from error
    if not isinstance(command, click.Command):
        raise PluginError(f"the command {name!r} of backend {found[where]} ({where}) is no click.Command")
    return command


def commands_of(factory: object) -> Mapping[str, str]:
    """The commands that a plugin's class brings along: by name, ``module:attribute`` of each."""
    commands = getattr(factory, "commands", None)
    return commands if isinstance(commands, Mapping) else {}


def _installed() -> Iterator[tuple[str, Mapping[str, str]]]:
    for backend in registry.installed():
        try:
            yield backend.name, commands_of(registry.load_factory(backend.name))
        except PluginError:  # one that is broken is named where it is used; other commands go on
            continue
