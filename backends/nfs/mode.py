"""What the two ways of serving NFS volumes have in common: the hooks, by their names, and what a volume tells a node.

:class:`backends.nfs.plugin.NfsBackend` is the plugin; each of its hooks asks the mode that the options name.
A controller and its nodes are different processes on different machines. So all that a node needs to mount a volume is
in the volume's context, :data:`SERVER` and :data:`SHARE`: no node looks at a record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from csi_core.health import Finding, HealthProblem
from csi_core.hookspecs import Host
from csi_core.model import (
    Capacity,
    CapacityQuery,
    Description,
    GroupSnapshot,
    GroupSnapshotSpec,
    Outcome,
    Page,
    PublishRequest,
    SizeRange,
    Snapshot,
    SnapshotSpec,
    Volume,
    VolumeSpec,
)
from csi_core.parameters import Parameters

__all__ = ["SERVER", "SHARE", "Mode"]

SERVER: Final = "server"
"""Key of the volume context: the address that nodes mount from."""

SHARE: Final = "share"
"""Key of the volume context: the path on that server, the volume's own directory."""


class Mode(Protocol):
    """How volumes come into being on a server. Every method is the hook of its name in :mod:`csi_core.hookspecs`."""

    def start(self, host: Host) -> None:
        """Open the storage."""

    def stop(self) -> None:
        """Close it."""

    def describe(self) -> Description:
        """What it serves."""

    def create_volume(self, spec: VolumeSpec) -> Outcome[Volume]:
        """Create, or answer what has the name."""

    def delete_volume(self, handle: str) -> None:
        """Delete."""

    def get_volume(self, handle: str) -> Volume | None:
        """Find by handle."""

    def find_volume(self, name: str) -> Volume | None:
        """Find by name."""

    def list_volumes(self, cursor: str, limit: int) -> Page[Volume]:
        """One page."""

    def get_capacity(self, query: CapacityQuery) -> Capacity:
        """Room."""

    def expand_volume(self, handle: str, size: SizeRange) -> int:
        """Grow; the new size in bytes."""

    def modify_volume(self, handle: str, mutable: Parameters, recorded_mutable: Mapping[str, str]) -> None:
        """Put mutable parameters in force."""

    def publish_volume(self, request: PublishRequest) -> dict[str, str]:
        """Let a node in."""

    def unpublish_volume(self, handle: str, node_id: str) -> None:
        """Take it away."""

    def create_snapshot(self, spec: SnapshotSpec) -> Outcome[Snapshot]:
        """Snapshot, or answer what has the name."""

    def delete_snapshot(self, handle: str) -> None:
        """Delete."""

    def get_snapshot(self, handle: str) -> Snapshot | None:
        """Find by handle."""

    def list_snapshots(self, cursor: str, limit: int, volume_handle: str) -> Page[Snapshot]:
        """One page."""

    def create_group_snapshot(self, spec: GroupSnapshotSpec) -> Outcome[GroupSnapshot]:
        """Snapshot all members at one moment, or answer what has the name."""

    def delete_group_snapshot(self, handle: str) -> None:
        """Delete it and its members."""

    def get_group_snapshot(self, handle: str) -> GroupSnapshot | None:
        """Find by handle."""

    def volume_health(self, handle: str) -> tuple[HealthProblem, ...]:
        """What is wrong with a volume."""

    def storage_health(self) -> tuple[HealthProblem, ...]:
        """What is wrong with the server."""

    def diagnose(self) -> Iterator[Finding]:
        """Records against what is there."""

    def repair(self, finding: Finding) -> bool:
        """Mend one finding where that is safe."""
