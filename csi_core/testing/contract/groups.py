"""Snapshots of several volumes at once."""

from __future__ import annotations

import pytest

from csi_core.errors import NotFound
from csi_core.model import Created, Existing, GroupSnapshotSpec, SourceKind, Volume, VolumeMode
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.selection import Selection, needs

__all__ = ["GroupTests"]


class GroupTests(Selection):
    """Group snapshots (CSI "CreateVolumeGroupSnapshot", "DeleteVolumeGroupSnapshot", "GetVolumeGroupSnapshot")."""

    def group_spec(self, case: BackendCase, name: str, *handles: str) -> GroupSnapshotSpec:
        """What the core would hand over for a VolumeGroupSnapshot."""
        parameters = case.backend.description.snapshot_parameters()
        return GroupSnapshotSpec(name, handles, parameters, secrets=case.secrets)

    def volumes_with_data(self, case: BackendCase) -> dict[str, tuple[Volume, VolumeMode, str]]:
        """Volumes of every mode, with their checksums, by handle."""
        found = {}
        for number, mode in enumerate((*self.volume_modes, self.volume_modes[0])):
            volume = case.create(f"data-{number}", mode)
            found[volume.handle] = (volume, mode, case.write(volume, mode, f"before-{number}"))
        return found

    @needs("create_group_snapshot")
    def test_group(self, case: BackendCase) -> None:
        """One snapshot of each member; the same name gives the same group, also after a restart."""
        members = self.volumes_with_data(case)
        spec = self.group_spec(case, "group", *members)
        outcome = case.backend.create_group_snapshot(spec)
        assert isinstance(outcome, Created)
        group = outcome.value
        assert group.name == "group"
        assert group.ready
        assert {snapshot.volume_handle for snapshot in group.snapshots} == members.keys()
        assert len({snapshot.handle for snapshot in group.snapshots}) == len(members)
        for _ in range(2):
            assert case.backend.create_group_snapshot(spec) == Existing(group)
            assert case.backend.get_group_snapshot(group.handle) == group
            for snapshot in group.snapshots:
                assert snapshot.group_handle == group.handle
                assert case.backend.get_snapshot(snapshot.handle) == snapshot
            case.reopen()

    @needs("create_group_snapshot", source=SourceKind.SNAPSHOT)
    def test_restore_every_member(self, case: BackendCase) -> None:
        """Each member has the data of the moment, whatever was written afterwards."""
        members = self.volumes_with_data(case)
        group = case.backend.create_group_snapshot(self.group_spec(case, "group", *members)).value
        for volume, mode, _ in members.values():
            case.write(volume, mode, "after")
        for snapshot in group.snapshots:
            _, mode, before = members[snapshot.volume_handle]
            assert case.checksum(case.restore(f"restored-{snapshot.handle}", mode, snapshot), mode) == before

    @needs("create_group_snapshot")
    def test_all_or_none(self, case: BackendCase) -> None:
        """One member that is not there, and there is no group and no snapshot."""
        members = list(self.volumes_with_data(case))
        for handles in (["no-such-handle", *members], [*members, "no-such-handle"]):
            with pytest.raises(NotFound):
                case.backend.create_group_snapshot(self.group_spec(case, "group", *handles))
            if "list_snapshots" in case.backend.hooks:
                assert case.snapshots() == []
            case.reopen()
        assert isinstance(case.backend.create_group_snapshot(self.group_spec(case, "group", *members)), Created)

    @needs("create_group_snapshot")
    def test_delete_group(self, case: BackendCase) -> None:
        """The group and its snapshots go, repeatedly; other snapshots and the volumes stay."""
        members = self.volumes_with_data(case)
        kept = case.snapshot("kept", next(iter(members.values()))[0])
        group = case.backend.create_group_snapshot(self.group_spec(case, "group", *members)).value
        for _ in range(2):
            case.backend.delete_group_snapshot(group.handle, case.secrets)
            case.backend.delete_group_snapshot(group.handle, case.secrets)
            assert case.backend.get_group_snapshot(group.handle) is None
            assert all(case.backend.get_snapshot(snapshot.handle) is None for snapshot in group.snapshots)
            assert case.backend.get_snapshot(kept.handle) == kept
            case.reopen()
        for volume, mode, before in members.values():
            assert case.checksum(volume, mode) == before

    @needs("create_group_snapshot")
    def test_group_outlives_its_volumes(self, case: BackendCase) -> None:
        """A group whose volumes are gone is still found, and still goes as a whole."""
        members = self.volumes_with_data(case)
        group = case.backend.create_group_snapshot(self.group_spec(case, "group", *members)).value
        for volume, _, _ in members.values():
            case.delete(volume)
        case.reopen()
        assert case.backend.get_group_snapshot(group.handle) == group
        case.backend.delete_group_snapshot(group.handle, case.secrets)
        assert all(case.backend.get_snapshot(snapshot.handle) is None for snapshot in group.snapshots)

    @needs("create_group_snapshot")
    def test_unknown_group(self, case: BackendCase) -> None:
        """What is no handle is not there, and is deleted without harm; a snapshot's handle is no group's."""
        members = self.volumes_with_data(case)
        group = case.backend.create_group_snapshot(self.group_spec(case, "group", *members)).value
        for handle in ("", "..", "no-such-handle", "\0", group.snapshots[0].handle, next(iter(members))):
            assert case.backend.get_group_snapshot(handle) is None
            case.backend.delete_group_snapshot(handle, case.secrets)
        assert case.backend.get_group_snapshot(group.handle) == group
        assert case.backend.get_snapshot(group.snapshots[0].handle) == group.snapshots[0]
