"""Mode ``export``: the exports of the NFS server on this host, one for each volume."""

from __future__ import annotations

from typing import Any

from backends.nfs.options import NfsOptions

__all__ = ["ExportMode"]


class ExportMode:
    """Under construction."""

    def __init__(self, options: NfsOptions) -> None:
        self._options = options

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(name)
