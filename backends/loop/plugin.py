"""The loop backend: volumes are image files in a pool directory, and loop devices on this node."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Final

from pydantic import ValidationError

from backends.loop import attachments, blocks, diagnosis, snapshots, volumes
from backends.loop.options import LoopOptions, LoopParameters
from backends.loop.pool import Pool
from backends.loop.pools import Pools
from csi_core.errors import ConfigError
from csi_core.health import Finding, HealthProblem
from csi_core.hookspecs import API_VERSION, Host, hookimpl
from csi_core.ledger_metrics import LEDGERS
from csi_core.model import (
    AccessMode,
    AttachRequest,
    BlockMap,
    BlockSource,
    Capacity,
    CapacityQuery,
    Created,
    Description,
    Existing,
    GroupSnapshot,
    GroupSnapshotSpec,
    Outcome,
    Page,
    Reach,
    SizeRange,
    Snapshot,
    SnapshotSpec,
    SourceKind,
    Volume,
    VolumeMode,
    VolumeSpec,
)
from csi_core.parameters import Parameters, explain, keys

__all__ = ["LoopBackend"]

_FILESYSTEMS: Final = ("ext4", "xfs", "btrfs")
_TOOL_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_ACCESS: Final = frozenset(
    {
        AccessMode.SINGLE_NODE_WRITER,
        AccessMode.SINGLE_NODE_READER_ONLY,
        AccessMode.SINGLE_NODE_SINGLE_WRITER,
        AccessMode.SINGLE_NODE_MULTI_WRITER,
        AccessMode.MULTI_NODE_READER_ONLY,
    }
)


class LoopBackend:
    """Every hook of the contract that fits storage of one node; see docs/backends/loop.md."""

    csi_core_api = API_VERSION
    options_model = LoopOptions
    commands: ClassVar = {"pool": "backends.loop.extents.commands:pool"}
    declaration = Description(
        summary="image files in a directory, attached as loop devices",
        reach=Reach.NODE_LOCAL,
        access={VolumeMode.FILESYSTEM: _ACCESS, VolumeMode.BLOCK: _ACCESS},
        filesystems=_FILESYSTEMS,
        sources=frozenset(SourceKind),
        parameters=LoopParameters,
        size_granularity_bytes=volumes.GRANULARITY_BYTES,
        minimum_size_bytes=volumes.MINIMUM_BYTES,
        ephemeral=True,
    )

    def __init__(self, options: Mapping[str, object]) -> None:
        """Check the options; nothing is opened before ``start``.

        Raises:
            ConfigError: an option is wrong.
        """
        try:
            self._options = LoopOptions.model_validate(dict(options))
        except ValidationError as error:
            raise ConfigError(f"options of the loop backend: {explain(error, keys(LoopOptions), 'option')}") from None
        self._pools = Pools(self._options)
        self._name = ""

    # -- life cycle ---------------------------------------------------------------------------------

    @hookimpl
    def start(self, host: Host) -> None:
        """Open all pools, or none."""
        self._pools.open(host)
        self._name = host.backend_name
        for pool in self._pools:
            LEDGERS.announce(self._name, pool.name, pool.ledger)

    @hookimpl
    def stop(self) -> None:
        """Close all pools. Attached volumes stay attached."""
        LEDGERS.withdraw(self._name)
        self._pools.close()

    @hookimpl
    def describe(self) -> Description:
        """What the pools can do together."""
        return replace(
            self.declaration,
            filesystems=tuple(fs for fs in _FILESYSTEMS if shutil.which(f"mkfs.{fs}", path=_TOOL_PATH)),
            facts={f"pool {pool.name}": _facts(pool) for pool in self._pools},
        )

    # -- volumes ------------------------------------------------------------------------------------

    @hookimpl
    def create_volume(self, spec: VolumeSpec) -> Outcome[Volume]:
        """Create it in the pool of its parameters, or of its source."""
        parameters = _parameters(spec.parameters)
        for pool in self._pools:
            if found := volumes.taken(pool, spec.name):
                return Existing(found)
        return Created(volumes.create(self._pools.chosen(parameters.pool, spec.source), spec, parameters))

    @hookimpl
    def delete_volume(self, handle: str, secrets: Parameters) -> None:
        """Delete it; its blocks are freed in the background."""
        located = self._pools.removable(handle, "v")
        if located:
            volumes.delete(*located)

    @hookimpl
    def get_volume(self, handle: str) -> Volume | None:
        """One look-up by key."""
        located = self._pools.locate(handle, "v")
        record = located[0].records.volume(located[1]) if located else None
        return record.public(located[0].name) if located and record and record.state != "creating" else None

    @hookimpl
    def find_volume(self, name: str) -> Volume | None:
        """Look in every pool."""
        return next(filter(None, (volumes.named(pool, name) for pool in self._pools)), None)

    @hookimpl
    def list_volumes(self, cursor: str, limit: int) -> Page[Volume]:
        """By pool, then by key; a cursor is the handle of the last entry."""

        def entries(pool: Pool, after: str, most: int) -> list[Volume]:
            return [record.public(pool.name) for record in pool.records.volumes_after(after, most)]

        return self._pools.page(cursor, limit, "v", entries)

    @hookimpl
    def get_capacity(self, query: CapacityQuery) -> Capacity:
        """From the ledger: no file and no record is looked at."""
        parameters = _parameters(query.parameters)
        pool = self._pools.chosen(parameters.pool)
        thick = parameters.provisioning == "thick"
        available = pool.ledger.available_bytes(thin=not thick)
        return Capacity(
            available_bytes=available,
            maximum_volume_bytes=min(available, pool.layout.largest_free_bytes(thick=thick)) // 4096 * 4096,
            minimum_volume_bytes=volumes.MINIMUM_BYTES,
        )

    @hookimpl
    def expand_volume(self, handle: str, size: SizeRange) -> int:
        """Grow image, record and device, online too."""
        return volumes.expand(*self._pools.present(handle, "v"), size)

    # -- snapshots ----------------------------------------------------------------------------------

    @hookimpl
    def create_snapshot(self, spec: SnapshotSpec) -> Outcome[Snapshot]:
        """Reflink, or copy the data where the filesystem cannot."""
        for pool in self._pools:
            if found := snapshots.taken(pool, spec.name):
                return Existing(found)
        pool, key = self._pools.present(spec.volume_handle, "v")
        return Created(snapshots.create(pool, spec, key))

    @hookimpl
    def delete_snapshot(self, handle: str, secrets: Parameters) -> None:
        """Delete it; nothing depends on it."""
        located = self._pools.removable(handle, "s")
        if located:
            snapshots.delete(*located)

    @hookimpl
    def get_snapshot(self, handle: str) -> Snapshot | None:
        """One look-up by key."""
        located = self._pools.locate(handle, "s")
        record = located[0].records.snapshot(located[1]) if located else None
        return record.public(located[0].name) if located and record and record.state == "ready" else None

    @hookimpl
    def list_snapshots(self, cursor: str, limit: int, volume_handle: str) -> Page[Snapshot]:
        """As ``list_volumes``."""
        only = self._pools.locate(volume_handle, "v") if volume_handle else None
        if volume_handle and only is None:
            return Page(())

        def entries(pool: Pool, after: str, most: int) -> list[Snapshot]:
            if only and only[0] is not pool:
                return []
            found = pool.records.snapshots_after(after, most, only[1] if only else "")
            return [record.public(pool.name) for record in found]

        return self._pools.page(cursor, limit, "s", entries)

    @hookimpl
    def create_group_snapshot(self, spec: GroupSnapshotSpec) -> Outcome[GroupSnapshot]:
        """All members frozen together; they must lie in one pool."""
        for pool in self._pools:
            if found := snapshots.group_taken(pool, spec.name):
                return Existing(found)
        pool, keys = self._pools.together(spec.volume_handles, "v")
        return Created(snapshots.create_group(pool, spec, keys))

    @hookimpl
    def delete_group_snapshot(self, handle: str, secrets: Parameters) -> None:
        """Delete the group and its members in one commit."""
        located = self._pools.removable(handle, "g")
        if located:
            snapshots.delete_group(*located)

    @hookimpl
    def get_group_snapshot(self, handle: str) -> GroupSnapshot | None:
        """One look-up by key."""
        located = self._pools.locate(handle, "g")
        return snapshots.find_group(*located) if located else None

    @hookimpl
    def allocated_blocks(self, snapshot_handle: str, start_offset_bytes: int) -> BlockMap:
        """The image's data ranges."""
        return blocks.allocated(*self._pools.present(snapshot_handle, "s"), start_offset_bytes)

    @hookimpl
    def changed_blocks(self, base_handle: str, target_handle: str, start_offset_bytes: int) -> BlockMap:
        """From the extent maps where blocks are shared, else by comparing data."""
        pool, (base_key, target_key) = self._pools.together((base_handle, target_handle), "s")
        return blocks.changed(pool, base_key, target_key, start_offset_bytes)

    # -- this node ----------------------------------------------------------------------------------

    @hookimpl
    def attach_volume(self, request: AttachRequest) -> BlockSource:
        """Bind it to a loop device."""
        return attachments.attach(*self._pools.present(request.handle, "v"), request)

    @hookimpl
    def detach_volume(self, handle: str) -> None:
        """Unbind it."""
        located = self._pools.removable(handle, "v")
        if located:
            attachments.detach(*located)

    @hookimpl
    def find_source(self, handle: str) -> BlockSource | None:
        """The loop device that shows its image now."""
        located = self._pools.locate(handle, "v")
        return attachments.find(*located) if located else None

    @hookimpl
    def mark_formatted(self, handle: str, fs_type: str) -> None:
        """Record it in pool.db."""
        attachments.mark_formatted(*self._pools.present(handle, "v"), fs_type)

    # -- care ---------------------------------------------------------------------------------------

    @hookimpl
    def volume_health(self, handle: str) -> tuple[HealthProblem, ...]:
        """Look at the image and its device."""
        pool, key = self._pools.present(handle, "v")
        return tuple(diagnosis.volume_health(pool, volumes.existing(pool, key)))

    @hookimpl
    def storage_health(self) -> tuple[HealthProblem, ...]:
        """Look at every pool's filesystem."""
        return tuple(problem for pool in self._pools for problem in diagnosis.pool_health(pool))

    @hookimpl
    def diagnose(self) -> Iterator[Finding]:
        """Every pool in turn."""
        return (finding for pool in self._pools for finding in diagnosis.findings(pool))

    @hookimpl
    def repair(self, finding: Finding) -> bool:
        """Each pool knows its own findings."""
        return any(diagnosis.repair(pool, finding) for pool in self._pools)


def _parameters(parameters: Parameters) -> LoopParameters:
    """The backend's own model; a caller that has none gets the defaults."""
    return parameters if isinstance(parameters, LoopParameters) else LoopParameters()


def _facts(pool: Pool) -> str:
    return ", ".join(pool.layout.facts)
