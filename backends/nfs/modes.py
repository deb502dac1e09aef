"""Which mode the options name."""

from __future__ import annotations

from backends.nfs.export import ExportMode
from backends.nfs.mode import Mode
from backends.nfs.options import NfsOptions
from backends.nfs.share import ShareMode

__all__ = ["chosen"]


def chosen(options: NfsOptions) -> Mode:
    """The controller's mode; nothing is opened yet.

    Raises:
        ConfigError: it cannot be served.
    """
    return ShareMode(options) if options.mode == "share" else ExportMode(options)
