"""Which mode the options name."""

from __future__ import annotations

from backends.nfs.export import ExportMode
from backends.nfs.mode import Mode
from backends.nfs.options import NfsOptions
from csi_core.errors import ConfigError

__all__ = ["chosen"]


def chosen(options: NfsOptions) -> Mode:
    """The controller's mode; nothing is opened yet.

    Raises:
        ConfigError: it cannot be served.
    """
    if options.mode == "share":
        raise ConfigError("mode: share cannot be served yet")
    return ExportMode(options)
