"""The LVM backend: volumes are LVs of volume groups on this node."""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from pydantic import ValidationError

from backends.lvm import attachments, blocks, diagnosis, extents, groups, names, removal, snapshots, volumes
from backends.lvm.classes import DeviceClasses
from backends.lvm.deviceclass import DeviceClass, visible_snapshot
from backends.lvm.options import LvmOptions, LvmParameters, LvmSnapshotParameters
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

__all__ = ["LvmBackend"]

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


class LvmBackend:
    """Every hook of the contract that fits storage of one node; see docs/backends/lvm.md."""

    csi_core_api = API_VERSION
    options_model = LvmOptions
    declaration = Description(
        summary="logical volumes of LVM: linear, striped, mirrored and thin",
        reach=Reach.NODE_LOCAL,
        access={VolumeMode.FILESYSTEM: _ACCESS, VolumeMode.BLOCK: _ACCESS},
        filesystems=_FILESYSTEMS,
        sources=frozenset(SourceKind),
        parameters=LvmParameters,
        snapshot_parameters=LvmSnapshotParameters,
        ephemeral=True,
    )

    def __init__(self, options: Mapping[str, object]) -> None:
        """Check the options; nothing is opened before ``start``.

        Raises:
            ConfigError: an option is wrong.
        """
        try:
            self._options = LvmOptions.model_validate(dict(options))
        except ValidationError as error:
            raise ConfigError(f"options of the LVM backend: {explain(error, keys(LvmOptions), 'option')}") from None
        self._classes = DeviceClasses(self._options)
        self._name = ""

    # -- life cycle ---------------------------------------------------------------------------------

    @hookimpl
    def start(self, host: Host) -> None:
        """Look at the volume groups, and go on with what was half done."""
        self._classes.open()
        self._name = host.backend_name
        for cls in self._classes:
            for pool in cls.pools.values():
                LEDGERS.announce(self._name, f"{cls.name}/{pool.name}", pool.ledger)

    @hookimpl
    def stop(self) -> None:
        """Stop copies and wiping; the next start goes on. Attached volumes stay attached."""
        LEDGERS.withdraw(self._name)
        self._classes.close()

    @hookimpl
    def describe(self) -> Description:
        """What the volume groups can do together."""
        granularity_bytes = self._classes.granularity_bytes()
        return replace(
            self.declaration,
            filesystems=tuple(fs for fs in _FILESYSTEMS if shutil.which(f"mkfs.{fs}", path=_TOOL_PATH)),
            size_granularity_bytes=granularity_bytes,
            minimum_size_bytes=granularity_bytes,
            facts={f"class {cls.name}": _facts(cls) for cls in self._classes},
        )

    # -- volumes ------------------------------------------------------------------------------------

    @hookimpl
    def create_volume(self, spec: VolumeSpec) -> Outcome[Volume]:
        """Create it in the class of its parameters, or of its source."""
        parameters = _parameters(spec.parameters)
        chosen = self._classes.chosen(parameters.device_class, spec.source)
        for cls in self._classes.reachable(but=chosen):
            if found := volumes.named(cls, spec.name):
                return Existing(found)
        return volumes.create(chosen, spec, parameters)

    @hookimpl
    def delete_volume(self, handle: str, secrets: Parameters) -> None:
        """Delete it, once its data has been wiped."""
        located = self._classes.removable(handle, "v")
        if located:
            removal.remove(*located)

    @hookimpl
    def get_volume(self, handle: str) -> Volume | None:
        """From the report."""
        located = self._classes.locate(handle, "v")
        record = located[0].reports.current().ready(located[1]) if located else None
        return record.volume(located[0].name) if located and record else None

    @hookimpl
    def find_volume(self, name: str) -> Volume | None:
        """Look in every class."""
        return next(filter(None, (volumes.named(cls, name) for cls in self._classes.reachable())), None)

    @hookimpl
    def list_volumes(self, cursor: str, limit: int) -> Page[Volume]:
        """By class, then by key; a cursor is the handle of the last entry."""

        def entries(cls: DeviceClass, after_key: str, most: int) -> Sequence[Volume]:
            listed = cls.volumes()
            after = names.join(cls.name, after_key)
            first = bisect_right(listed, after, key=lambda volume: volume.handle)
            return listed[first : first + most]

        return self._classes.page(cursor, limit, "v", entries)

    @hookimpl
    def get_capacity(self, query: CapacityQuery) -> Capacity:
        """From the report for thick volumes, from the ledger for thin ones."""
        parameters = _parameters(query.parameters)
        cls = self._classes.chosen(parameters.device_class)
        report = cls.reports.current()
        if not parameters.thin:
            return extents.available(report, parameters, cls.options.spare, cls.options.allocation)
        available_bytes = cls.pool(parameters).available_bytes() if report.takes_more else 0
        return extents.available_thin(report, available_bytes)

    @hookimpl
    def expand_volume(self, handle: str, size: SizeRange) -> int:
        """Grow LV and device, online too."""
        return volumes.expand(*self._classes.present(handle, "v"), size)

    # -- snapshots ----------------------------------------------------------------------------------

    @hookimpl
    def create_snapshot(self, spec: SnapshotSpec) -> Outcome[Snapshot]:
        """Thin, copy-on-write or a full copy, by the volume's type and the parameters."""
        key = names.make_key("s", spec.name)
        for cls in self._classes.reachable():
            if found := snapshots.taken(cls, key, spec.name, cls.reports.current()):
                return Existing(found)
        return snapshots.create(*self._classes.present(spec.volume_handle, "v"), spec)

    @hookimpl
    def delete_snapshot(self, handle: str, secrets: Parameters) -> None:
        """Delete it, once what it held has been wiped."""
        located = self._classes.removable(handle, "s")
        if located:
            removal.remove(*located)

    @hookimpl
    def get_snapshot(self, handle: str) -> Snapshot | None:
        """From the report."""
        located = self._classes.locate(handle, "s")
        record = visible_snapshot(located[0].reports.current(), located[1]) if located else None
        return snapshots.public(located[0], record) if located and record else None

    @hookimpl
    def list_snapshots(self, cursor: str, limit: int, volume_handle: str) -> Page[Snapshot]:
        """As ``list_volumes``."""
        only = self._classes.locate(volume_handle, "v") if volume_handle else None
        if volume_handle and only is None:
            return Page(())

        def entries(cls: DeviceClass, after_key: str, most: int) -> Iterator[Snapshot]:
            if only and only[0] is not cls:
                return iter(())
            listed = snapshots.listed(cls.reports.current(), only[1] if only else "")
            following = (record for record in listed if record.key > after_key)
            return (snapshots.public(cls, record) for record in islice(following, most))

        return self._classes.page(cursor, limit, "s", entries)

    @hookimpl
    def create_group_snapshot(self, spec: GroupSnapshotSpec) -> Outcome[GroupSnapshot]:
        """All members held together; they must lie in one class."""
        key = names.make_key("g", spec.name)
        for cls in self._classes.reachable():
            if found := groups.taken(cls, key, spec.name):
                return Existing(found)
        cls, keys = self._classes.together(spec.volume_handles, "v")
        return groups.create(cls, spec, keys)

    @hookimpl
    def delete_group_snapshot(self, handle: str, secrets: Parameters) -> None:
        """Delete the group and its members."""
        located = self._classes.removable(handle, "g")
        if located:
            groups.delete(*located)

    @hookimpl
    def get_group_snapshot(self, handle: str) -> GroupSnapshot | None:
        """From the report."""
        located = self._classes.locate(handle, "g")
        return groups.find(*located) if located else None

    @hookimpl
    def allocated_blocks(self, snapshot_handle: str, start_offset_bytes: int) -> BlockMap:
        """From the thin pool's mappings, or by reading."""
        return blocks.allocated(*self._classes.present(snapshot_handle, "s"), start_offset_bytes)

    @hookimpl
    def changed_blocks(self, base_handle: str, target_handle: str, start_offset_bytes: int) -> BlockMap:
        """From the thin pool's mappings, or by comparing data."""
        cls, (base_key, target_key) = self._classes.together((base_handle, target_handle), "s")
        return blocks.changed(cls, base_key, target_key, start_offset_bytes)

    # -- this node ----------------------------------------------------------------------------------

    @hookimpl
    def attach_volume(self, request: AttachRequest) -> BlockSource:
        """Activate it."""
        return attachments.attach(*self._classes.present(request.handle, "v"))

    @hookimpl
    def detach_volume(self, handle: str) -> None:
        """Deactivate it."""
        located = self._classes.removable(handle, "v")
        if located:
            attachments.detach(*located)

    @hookimpl
    def find_source(self, handle: str) -> BlockSource | None:
        """Its device, as it is active now."""
        located = self._classes.locate(handle, "v")
        return attachments.find(*located) if located else None

    @hookimpl
    def mark_formatted(self, handle: str, fs_type: str) -> None:
        """Record it in a tag."""
        attachments.mark_formatted(*self._classes.present(handle, "v"), fs_type)

    # -- care ---------------------------------------------------------------------------------------

    @hookimpl
    def volume_health(self, handle: str) -> tuple[HealthProblem, ...]:
        """Its disks, its mirror, its pool, its copy-on-write snapshots."""
        return tuple(diagnosis.volume_health(*self._classes.present(handle, "v")))

    @hookimpl
    def storage_health(self) -> tuple[HealthProblem, ...]:
        """Every volume group and thin pool."""
        return tuple(problem for cls in self._classes for problem in diagnosis.group_health(cls))

    @hookimpl
    def diagnose(self) -> Iterator[Finding]:
        """Every class in turn."""
        return (finding for cls in self._classes for finding in diagnosis.findings(cls))

    @hookimpl
    def repair(self, finding: Finding) -> bool:
        """Each class knows its own findings."""
        return any(diagnosis.repair(cls, finding) for cls in self._classes)


def _parameters(parameters: Parameters) -> LvmParameters:
    """The backend's own model; a caller that has none gets the defaults."""
    return parameters if isinstance(parameters, LvmParameters) else LvmParameters()


def _facts(cls: DeviceClass) -> str:
    pools = ", ".join(cls.pools) or "none"
    return f"volume group {cls.options.volume_group}, thin pools: {pools}"
