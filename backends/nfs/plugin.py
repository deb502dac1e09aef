"""The NFS backend: volumes are directories of an NFS server; nodes mount them. See docs/backends/nfs.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from pydantic import ValidationError

from backends.nfs.attaching import share_source
from backends.nfs.declaration import DECLARATION
from backends.nfs.mode import Mode
from backends.nfs.modes import chosen
from backends.nfs.options import NfsOptions
from backends.nfs.static import is_static, static_volume
from csi_core.errors import ConfigError, FailedPrecondition, NotFound
from csi_core.health import Finding, HealthProblem
from csi_core.hookspecs import API_VERSION, Host, hookimpl
from csi_core.model import (
    MAX_HANDLE_BYTES,
    AttachRequest,
    Capacity,
    CapacityQuery,
    Description,
    GroupSnapshot,
    GroupSnapshotSpec,
    Outcome,
    Page,
    PublishRequest,
    ShareSource,
    SizeRange,
    Snapshot,
    SnapshotSpec,
    Volume,
    VolumeSpec,
)
from csi_core.parameters import Parameters, explain, keys

__all__ = ["NfsBackend"]

_HANDLE: Final = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_HANDLE_BYTES}}}")


class NfsBackend:
    """Every hook that fits network directories. The mode does the work; static volumes are the same in both."""

    csi_core_api = API_VERSION
    options_model = NfsOptions
    declaration = DECLARATION

    def __init__(self, options: Mapping[str, object]) -> None:
        """Check the options; nothing is opened before ``start``.

        Raises:
            ConfigError: an option is wrong.
        """
        try:
            self._options = NfsOptions.model_validate(dict(options))
        except ValidationError as error:
            raise ConfigError(f"options of the nfs backend: {explain(error, keys(NfsOptions), 'option')}") from None
        self._mode: Mode | None = None if self._options.role == "node" else chosen(self._options)

    # -- life cycle ---------------------------------------------------------------------------------

    @hookimpl
    def start(self, host: Host) -> None:
        """Open the mode's storage."""
        if self._mode:
            self._mode.start(host)

    @hookimpl
    def stop(self) -> None:
        """Close it. What is exported and mounted stays so."""
        if self._mode:
            self._mode.stop()

    @hookimpl
    def describe(self) -> Description:
        """What the mode serves."""
        description = self._mode.describe() if self._mode else self.declaration
        return replace(description, max_volumes_per_node=self._options.max_volumes_per_node)

    # -- volumes ------------------------------------------------------------------------------------

    @hookimpl
    def create_volume(self, spec: VolumeSpec) -> Outcome[Volume]:
        """A directory with a record, of an enforced size where the mode can."""
        return self._controller.create_volume(spec)

    @hookimpl
    def delete_volume(self, handle: str, secrets: Parameters) -> None:
        """Only what this driver made."""
        if is_static(handle):
            raise FailedPrecondition(
                f"volume {handle} is an export that this driver did not make; set its reclaim policy to Retain"
            )
        self._controller.delete_volume(handle)

    @hookimpl
    def get_volume(self, handle: str) -> Volume | None:
        """One look-up. A node takes the CO at its word: it names no volume that the controller has not made."""
        if is_static(handle):
            return static_volume(handle)
        if self._mode:
            return self._mode.get_volume(handle)
        return Volume(handle, handle, 0) if _HANDLE.fullmatch(handle) else None

    @hookimpl
    def find_volume(self, name: str) -> Volume | None:
        """From memory; a node knows no names."""
        return self._mode.find_volume(name) if self._mode else None

    @hookimpl
    def list_volumes(self, cursor: str, limit: int) -> Page[Volume]:
        """By handle; static ones are nobody's to list."""
        return self._controller.list_volumes(cursor, limit)

    @hookimpl
    def get_capacity(self, query: CapacityQuery) -> Capacity:
        """What the mode knows of the server's disk."""
        return self._controller.get_capacity(query)

    @hookimpl
    def expand_volume(self, handle: str, size: SizeRange) -> int:
        """Raise the size; nothing stops meanwhile."""
        if is_static(handle):
            raise FailedPrecondition(f"volume {handle} is an export that this driver did not make; enlarge it there")
        return self._controller.expand_volume(handle, size)

    @hookimpl
    def modify_volume(self, handle: str, mutable: Parameters, recorded_mutable: dict[str, str]) -> None:
        """Change how it is exported, or what becomes of its directory; no pod stops."""
        if is_static(handle):
            raise FailedPrecondition(f"volume {handle} is an export that this driver did not make; change it there")
        self._controller.modify_volume(handle, mutable, recorded_mutable)

    @hookimpl
    def publish_volume(self, request: PublishRequest) -> dict[str, str]:
        """Let one node in. Who may mount a static export is its administrator's affair."""
        return {} if is_static(request.handle) else self._controller.publish_volume(request)

    @hookimpl
    def unpublish_volume(self, handle: str, node_id: str, secrets: Parameters) -> None:
        """Take it away again."""
        if not is_static(handle):
            self._controller.unpublish_volume(handle, node_id)

    # -- snapshots ----------------------------------------------------------------------------------

    @hookimpl
    def create_snapshot(self, spec: SnapshotSpec) -> Outcome[Snapshot]:
        """A copy of the directory, sharing its blocks where the server's filesystem can."""
        if is_static(spec.volume_handle):
            raise FailedPrecondition(f"volume {spec.volume_handle} is an export that this driver did not make")
        return self._controller.create_snapshot(spec)

    @hookimpl
    def delete_snapshot(self, handle: str, secrets: Parameters) -> None:
        """Delete it; nothing depends on it."""
        self._controller.delete_snapshot(handle)

    @hookimpl
    def get_snapshot(self, handle: str) -> Snapshot | None:
        """One look-up."""
        return self._mode.get_snapshot(handle) if self._mode else None

    @hookimpl
    def list_snapshots(self, cursor: str, limit: int, volume_handle: str) -> Page[Snapshot]:
        """As ``list_volumes``."""
        return self._controller.list_snapshots(cursor, limit, volume_handle)

    @hookimpl
    def create_group_snapshot(self, spec: GroupSnapshotSpec) -> Outcome[GroupSnapshot]:
        """Copies of several directories, if nobody writes meanwhile."""
        for handle in spec.volume_handles:
            if is_static(handle):
                raise FailedPrecondition(f"volume {handle} is an export that this driver did not make")
        return self._controller.create_group_snapshot(spec)

    @hookimpl
    def delete_group_snapshot(self, handle: str, secrets: Parameters) -> None:
        """Delete it and its members."""
        self._controller.delete_group_snapshot(handle)

    @hookimpl
    def get_group_snapshot(self, handle: str) -> GroupSnapshot | None:
        """One look-up."""
        return self._mode.get_group_snapshot(handle) if self._mode else None

    # -- this node ----------------------------------------------------------------------------------

    @hookimpl
    def attach_volume(self, request: AttachRequest) -> ShareSource:
        """Answer the share; mounting it is the core's work."""
        if self.get_volume(request.handle) is None:
            raise NotFound(f"there is no volume {request.handle}")
        return share_source(request, self._options.mount_options)

    @hookimpl
    def detach_volume(self, handle: str) -> None:
        """Nothing is held on a node but the mount."""

    # -- care ---------------------------------------------------------------------------------------

    @hookimpl
    def volume_health(self, handle: str) -> tuple[HealthProblem, ...]:
        """What the mode can see."""
        if self.get_volume(handle) is None:
            raise NotFound(f"there is no volume {handle}")
        return self._mode.volume_health(handle) if self._mode and not is_static(handle) else ()

    @hookimpl
    def storage_health(self) -> tuple[HealthProblem, ...]:
        """What the mode can see."""
        return self._mode.storage_health() if self._mode else ()

    @hookimpl
    def diagnose(self) -> Iterator[Finding]:
        """Records against directories."""
        return self._mode.diagnose() if self._mode else iter(())

    @hookimpl
    def repair(self, finding: Finding) -> bool:
        """The mode knows its own findings."""
        return self._mode is not None and self._mode.repair(finding)

    @property
    def _controller(self) -> Mode:
        if self._mode is None:
            raise FailedPrecondition("this process has the role node, which only mounts; ask the controller")
        return self._mode
