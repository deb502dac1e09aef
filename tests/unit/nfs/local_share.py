"""Mode share without a network: the share is a directory here, and attaching answers the directory itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backends.nfs.plugin import NfsBackend
from csi_core.hookspecs import hookimpl
from csi_core.model import AttachRequest, DirectorySource
from csi_core.testing.contract import BackendCase

__all__ = ["LocalShare", "share_case"]

EXPORTED = "/exported"


class LocalShare(NfsBackend):
    """The plugin, on the machine that has the share."""

    @hookimpl
    def attach_volume(self, request: AttachRequest) -> DirectorySource:
        """The directory that a node would mount."""
        share = super().attach_volume(request).remote.partition(":")[2]
        assert self._options.share is not None
        return DirectorySource(self._options.share.root / share.removeprefix(f"{EXPORTED}/"))


def share_case(root: Path, **options: Any) -> BackendCase:
    """The backend on a directory."""
    root.mkdir(exist_ok=True)
    share = {
        "root": str(root),
        "path": EXPORTED,
        "require_mount": False,
        "check_nodes": True,
        "node_addresses": {"node-a": "10.9.1.2", "node-b": "10.9.2.2"},
        **options,
    }
    options = {"mode": "share", "server": "nfs.example", "share": share}
    return BackendCase(lambda: LocalShare(options), mutable=({"onDelete": "retain"}, {"onDelete": "delete"}))
