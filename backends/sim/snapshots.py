"""Hooks for snapshots, groups of them, and what changed between two."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from backends.sim.content import BLOCK_BYTES
from backends.sim.injection import Injection, simulated
from backends.sim.records import SnapshotRecord
from backends.sim.storage import SimStorage, handle_of, page_of
from csi_core.errors import FailedPrecondition, InvalidArgument, NotFound
from csi_core.faults import fault
from csi_core.model import (
    BlockMap,
    Created,
    Existing,
    GroupSnapshot,
    GroupSnapshotSpec,
    Outcome,
    Page,
    Snapshot,
    SnapshotSpec,
    VolumeMode,
)
from csi_core.parameters import Parameters

__all__ = ["SnapshotHooks"]


class SnapshotHooks:
    """Take, delete, look up and compare snapshots. They live on when their volume is deleted."""

    storage: SimStorage
    injection: Injection

    @simulated
    def create_snapshot(self, spec: SnapshotSpec) -> Outcome[Snapshot]:
        """Copy the content, record. Snapshots live on when their volume is deleted."""
        self.storage.authenticate(spec.secrets)
        handle = handle_of("snapshot", spec.name)
        with self.storage.alone("create_snapshot", handle):
            if existing := self.storage.records.snapshots.get(handle):
                return Existing(existing.snapshot)
            record = self._snapshot(handle, spec.name, spec.volume_handle, spec.recorded)
            fault("sim.snapshot.before_record")
            with self.storage.records.change():
                self.storage.records.snapshots[handle] = record
            return Created(record.snapshot)

    @simulated
    def delete_snapshot(self, handle: str, secrets: Parameters) -> None:
        """Forget the snapshot, then remove its content."""
        self.storage.authenticate(secrets)
        with self.storage.alone("delete_snapshot", handle):
            with self.storage.records.change():
                self.storage.records.snapshots.pop(handle, None)
            fault("sim.delete_snapshot.after_record")
            self.storage.remove_content(handle)

    @simulated
    def get_snapshot(self, handle: str) -> Snapshot | None:
        """Look it up."""
        record = self.storage.records.snapshots.get(handle)
        return record.snapshot if record else None

    @simulated
    def list_snapshots(self, cursor: str, limit: int, volume_handle: str) -> Page[Snapshot]:
        """By handle, of one volume or of all."""
        snapshots = (record.snapshot for record in self.storage.records.all_snapshots())
        return page_of((s for s in snapshots if volume_handle in ("", s.volume_handle)), cursor, limit)

    @simulated
    def create_group_snapshot(self, spec: GroupSnapshotSpec) -> Outcome[GroupSnapshot]:
        """Copy every member's content, then record them all at once: a group is there whole or not at all."""
        self.storage.authenticate(spec.secrets)
        handle = handle_of("group", spec.name)
        if existing := self.storage.records.groups.get(handle):
            return Existing(existing)
        members = []
        for volume_handle in spec.volume_handles:
            name = f"{handle}/{volume_handle}"
            members.append(self._snapshot(handle_of("snapshot", name), name, volume_handle, spec.recorded, handle))
            fault("sim.group.between_members")
        snapshots = tuple(member.snapshot for member in members)
        group = GroupSnapshot(handle, spec.name, snapshots, datetime.now(UTC), recorded=dict(spec.recorded))
        with self.storage.records.change():
            self.storage.records.snapshots.update({member.snapshot.handle: member for member in members})
            self.storage.records.groups[handle] = group
        return Created(group)

    @simulated
    def delete_group_snapshot(self, handle: str, secrets: Parameters) -> None:
        """Forget the members, remove their content, forget the group: it alone knows whose content may be left."""
        self.storage.authenticate(secrets)
        group = self.storage.records.groups.get(handle)
        if group is None:
            return
        with self.storage.records.change():
            for snapshot in group.snapshots:
                self.storage.records.snapshots.pop(snapshot.handle, None)
        fault("sim.delete_group.after_members")
        for snapshot in group.snapshots:
            self.storage.content.remove(snapshot.handle)
        with self.storage.records.change():
            del self.storage.records.groups[handle]

    @simulated
    def get_group_snapshot(self, handle: str) -> GroupSnapshot | None:
        """Look it up."""
        return self.storage.records.groups.get(handle)

    @simulated
    def allocated_blocks(self, snapshot_handle: str, start_offset_bytes: int) -> BlockMap:
        """Every block that is not all zero."""
        snapshot = self._block_snapshot(snapshot_handle)
        ranges = self.storage.content.allocated(snapshot_handle, start_offset_bytes)
        return BlockMap(snapshot.size_bytes, ranges, BLOCK_BYTES)

    @simulated
    def changed_blocks(self, base_handle: str, target_handle: str, start_offset_bytes: int) -> BlockMap:
        """Every block that is not the same in both."""
        base, target = self._block_snapshot(base_handle), self._block_snapshot(target_handle)
        if base.volume_handle != target.volume_handle:
            raise InvalidArgument(f"snapshots {base_handle} and {target_handle} are not of one volume")
        ranges = self.storage.content.changed(base_handle, target_handle, start_offset_bytes)
        return BlockMap(target.size_bytes, ranges, BLOCK_BYTES)

    def _snapshot(
        self, handle: str, name: str, volume_handle: str, recorded: Mapping[str, str], group_handle: str = ""
    ) -> SnapshotRecord:
        record = self.storage.volume(volume_handle)
        self.storage.content.copy(volume_handle, handle)
        snapshot = Snapshot(
            handle,
            name,
            volume_handle,
            record.volume.size_bytes,
            created_at=datetime.now(UTC),
            recorded=dict(recorded),
            group_handle=group_handle,
        )
        return SnapshotRecord(snapshot, record.mode)

    def _block_snapshot(self, handle: str) -> Snapshot:
        record = self.storage.records.snapshots.get(handle)
        if record is None:
            raise NotFound(f"there is no snapshot {handle!r}")
        if record.mode is not VolumeMode.BLOCK:
            raise FailedPrecondition(f"snapshot {handle} is of a directory, which has no blocks; take one of raw block")
        return record.snapshot
