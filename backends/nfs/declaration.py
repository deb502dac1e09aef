"""What NFS volumes can do, whatever makes them."""

from __future__ import annotations

from typing import Final

from backends.nfs.mutable import ExportMutable
from backends.nfs.options import NfsParameters, NfsSnapshotParameters
from csi_core.model import AccessMode, Description, Reach, SourceKind, VolumeMode

__all__ = ["DECLARATION"]

DECLARATION: Final = Description(
    summary="directories of an NFS server, each with its own export and size",
    reach=Reach.NETWORK,
    access={VolumeMode.FILESYSTEM: frozenset(AccessMode)},
    sources=frozenset(SourceKind),
    parameters=NfsParameters,
    mutable=ExportMutable,
    snapshot_parameters=NfsSnapshotParameters,
    size_granularity_bytes=4096,
    minimum_size_bytes=1 << 20,
)
"""Of mode ``export``. MULTI_NODE_SINGLE_WRITER too: the one writer is the server's to know, as for all single ones."""
