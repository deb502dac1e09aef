"""Snapshots, and volumes made from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from csi_core.errors import FailedPrecondition, NotFound
from csi_core.model import ContentSource, Created, Existing, SizeRange, SnapshotSpec, SourceKind, VolumeMode
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.selection import Selection, needs
from csi_core.testing.contract.volumes import BAD_HANDLES, HANDLE, NAMES

__all__ = ["SnapshotTests"]


class SnapshotTests(Selection):
    """Snapshots (CSI "CreateSnapshot", "DeleteSnapshot", "CreateVolume" from one)."""

    @needs("create_snapshot")
    def test_snapshot(self, case: BackendCase, mode: VolumeMode) -> None:
        """A snapshot tells what it is of, and the same name gives the same one, also after a restart."""
        volume = case.create("data", mode)
        outcome = case.backend.create_snapshot(case.snapshot_spec("snap", volume))
        assert isinstance(outcome, Created)
        snapshot = outcome.value
        assert HANDLE.fullmatch(snapshot.handle)
        assert (snapshot.name, snapshot.volume_handle, snapshot.group_handle) == ("snap", volume.handle, "")
        assert snapshot.size_bytes == volume.size_bytes
        assert abs(datetime.now(UTC) - snapshot.created_at) < timedelta(minutes=1)
        assert snapshot.ready
        for _ in range(2):
            assert case.backend.create_snapshot(case.snapshot_spec("snap", volume)) == Existing(snapshot)
            assert case.backend.get_snapshot(snapshot.handle) == snapshot
            case.reopen()

    @needs("create_snapshot")
    def test_what_is_recorded_of_a_snapshot(self, case: BackendCase) -> None:
        """The strings that the core compares are stored exactly."""
        volume = case.create("data", self.volume_modes[0])
        recorded = {"plain": "value", "empty": "", "ключ": "значение ✓"}
        snapshot = case.backend.create_snapshot(replace(case.snapshot_spec("snap", volume), recorded=recorded)).value
        assert dict(snapshot.recorded) == recorded
        case.reopen()
        assert case.backend.get_snapshot(snapshot.handle) == snapshot

    @needs("create_snapshot", "expand_volume")
    def test_snapshot_keeps_its_size(self, case: BackendCase, mode: VolumeMode) -> None:
        """A volume that grows does so alone: its snapshots are as large as they were, and restored at that size."""
        volume = case.create("data", mode)
        before = case.write(volume, mode, "before")
        snapshot = case.snapshot("snap", volume)
        case.backend.expand_volume(volume.handle, SizeRange(2 * case.size_bytes))
        assert case.backend.get_snapshot(snapshot.handle) == snapshot
        if SourceKind.SNAPSHOT in self.sources:
            assert case.checksum(case.restore("restored", mode, snapshot), mode) == before

    @needs("create_snapshot")
    def test_every_snapshot_name(self, case: BackendCase) -> None:
        """Names of any script, case and form are different snapshots; a volume's names are apart from them."""
        volume = case.create("data", self.volume_modes[0])
        for name in NAMES:
            case.create(name, self.volume_modes[0])
        snapshots = {name: case.snapshot(name, volume) for name in NAMES}
        assert len({snapshot.handle for snapshot in snapshots.values()}) == len(NAMES)
        case.reopen()
        for name, snapshot in snapshots.items():
            assert case.backend.create_snapshot(case.snapshot_spec(name, volume)) == Existing(snapshot)

    @needs("create_snapshot")
    def test_snapshot_name_of_another_volume(self, case: BackendCase) -> None:
        """The same name for another volume answers what is there: the core tells the CO that it differs."""
        one, two = (case.create(name, self.volume_modes[0]) for name in ("one", "two"))
        snapshot = case.snapshot("snap", one)
        assert case.backend.create_snapshot(case.snapshot_spec("snap", two)) == Existing(snapshot)

    @needs("create_snapshot")
    def test_snapshot_of_nothing(self, case: BackendCase) -> None:
        """No volume, no snapshot."""
        volume = case.create("data", self.volume_modes[0])
        case.delete(volume)
        for handle in (volume.handle, "no-such-handle"):
            with pytest.raises(NotFound):
                case.backend.create_snapshot(
                    SnapshotSpec("snap", handle, case.snapshot_spec("", volume).parameters, secrets=case.secrets)
                )

    @needs("create_snapshot")
    def test_delete_snapshot(self, case: BackendCase, mode: VolumeMode) -> None:
        """What is deleted is gone, repeatedly and after a restart; its name is free; the volume stays."""
        volume = case.create("data", mode)
        before = case.write(volume, mode, "data")
        snapshot = case.snapshot("snap", volume)
        for _ in range(2):
            case.backend.delete_snapshot(snapshot.handle, case.secrets)
            case.backend.delete_snapshot(snapshot.handle, case.secrets)
            assert case.backend.get_snapshot(snapshot.handle) is None
            case.reopen()
        assert isinstance(case.backend.create_snapshot(case.snapshot_spec("snap", volume)), Created)
        assert case.checksum(volume, mode) == before

    @needs("create_snapshot")
    def test_unknown_snapshot_handles(self, case: BackendCase) -> None:
        """What is no handle is not there, and is deleted without harm; a volume's handle is no snapshot's."""
        volume = case.create("data", self.volume_modes[0])
        snapshot = case.snapshot("snap", volume)
        for handle in (*BAD_HANDLES, volume.handle):
            assert case.backend.get_snapshot(handle) is None, handle
            case.backend.delete_snapshot(handle, case.secrets)
            assert case.backend.get_snapshot(snapshot.handle) == snapshot, handle
        assert case.backend.get_volume(snapshot.handle) is None
        case.backend.delete_volume(snapshot.handle, case.secrets)
        assert case.backend.get_snapshot(snapshot.handle) == snapshot
        assert case.backend.get_volume(volume.handle) == volume

    @needs("create_snapshot", source=SourceKind.SNAPSHOT)
    def test_restore(self, case: BackendCase, mode: VolumeMode) -> None:
        """The restored volume has what was there at the moment of the snapshot, and names its source."""
        volume = case.create("data", mode)
        before = case.write(volume, mode, "before")
        snapshot = case.snapshot("snap", volume)
        after = case.write(volume, mode, "after")
        restored = case.restore("restored", mode, snapshot)
        assert restored.source == ContentSource(SourceKind.SNAPSHOT, snapshot.handle)
        assert case.restore("restored", mode, snapshot) == restored
        assert case.checksum(restored, mode) == before
        case.reopen()
        assert case.backend.get_volume(restored.handle) == restored
        assert case.checksum(restored, mode) == before
        assert case.checksum(volume, mode) == after

    @needs("create_snapshot", source=SourceKind.SNAPSHOT)
    def test_snapshot_while_attached(self, case: BackendCase, mode: VolumeMode) -> None:
        """What a pod had synced when the snapshot was taken is in it."""
        volume = case.create("data", mode)
        with case.attached(volume, mode) as content:
            content.write("before")
            before = content.checksum()
            snapshot = case.snapshot("snap", volume)
            content.write("after")
        assert case.checksum(case.restore("restored", mode, snapshot), mode) == before

    @needs("create_snapshot", source=SourceKind.SNAPSHOT)
    def test_restored_volumes_are_apart(self, case: BackendCase, mode: VolumeMode) -> None:
        """Writing to a restored volume changes neither the snapshot nor its volume nor another restored one."""
        volume = case.create("data", mode)
        before = case.write(volume, mode, "before")
        snapshot = case.snapshot("snap", volume)
        one, two = (case.restore(name, mode, snapshot) for name in ("one", "two"))
        changed = case.write(one, mode, "changed")
        assert changed != before
        for other in (volume, two, case.restore("three", mode, snapshot)):
            assert case.checksum(other, mode) == before
        assert case.checksum(one, mode) == changed

    @needs("create_snapshot", source=SourceKind.SNAPSHOT)
    def test_restore_larger(self, case: BackendCase, mode: VolumeMode) -> None:
        """A restored volume may be larger than its snapshot (CSI "CreateVolume")."""
        volume = case.create("data", mode)
        before = case.write(volume, mode, "data")
        restored = case.restore("restored", mode, case.snapshot("snap", volume), 2 * case.size_bytes)
        assert restored.size_bytes == 2 * case.size_bytes
        assert case.checksum(restored, mode, case.size_bytes) == before

    @needs("create_snapshot", source=SourceKind.SNAPSHOT)
    def test_source_deleted_first(self, case: BackendCase, mode: VolumeMode) -> None:
        """Snapshots outlive their volume, or the volume is refused to be deleted, with nothing changed."""
        volume = case.create("data", mode)
        before = case.write(volume, mode, "data")
        snapshot = case.snapshot("snap", volume)
        try:
            case.delete(volume)
        except FailedPrecondition:
            assert case.backend.get_volume(volume.handle) == volume
            assert case.checksum(volume, mode) == before
        else:
            assert case.backend.get_volume(volume.handle) is None
        case.reopen()
        assert case.backend.get_snapshot(snapshot.handle) == snapshot
        assert case.checksum(case.restore("restored", mode, snapshot), mode) == before

    @needs("create_snapshot", source=SourceKind.SNAPSHOT)
    def test_snapshot_deleted_first(self, case: BackendCase, mode: VolumeMode) -> None:
        """A restored volume outlives its snapshot, or the snapshot is refused to be deleted."""
        volume = case.create("data", mode)
        before = case.write(volume, mode, "data")
        snapshot = case.snapshot("snap", volume)
        restored = case.restore("restored", mode, snapshot)
        try:
            case.backend.delete_snapshot(snapshot.handle, case.secrets)
        except FailedPrecondition:
            assert case.backend.get_snapshot(snapshot.handle) == snapshot
        case.reopen()
        assert case.checksum(restored, mode) == before

    @needs("create_snapshot", source=SourceKind.SNAPSHOT)
    def test_restore_of_nothing(self, case: BackendCase, mode: VolumeMode) -> None:
        """The source must be there at the moment of creation; nothing is left of what was refused."""
        volume = case.create("data", mode)
        snapshot = case.snapshot("snap", volume)
        case.backend.delete_snapshot(snapshot.handle, case.secrets)
        for handle in (snapshot.handle, "no-such-handle", "../../etc", volume.handle):
            with pytest.raises(NotFound):
                case.create("restored", mode, source=ContentSource(SourceKind.SNAPSHOT, handle))
        assert case.volumes() == [volume]

    @needs("create_snapshot", source=SourceKind.SNAPSHOT)
    def test_chain(self, case: BackendCase, mode: VolumeMode) -> None:
        """Snapshots of restored volumes, four generations, each with its own data; then the ancestors go."""
        checksums, volume = {}, case.create("generation-0", mode)
        for number in range(1, 5):
            checksum = case.write(volume, mode, f"generation-{number}")
            snapshot = case.snapshot(f"snap-{number}", volume)
            checksums[snapshot.handle] = checksum
            volume = case.restore(f"generation-{number}", mode, snapshot)
        for handle, checksum in checksums.items():
            found = case.backend.get_snapshot(handle)
            assert found is not None
            assert case.checksum(case.restore(f"check-{found.name}", mode, found), mode) == checksum
