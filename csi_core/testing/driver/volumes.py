"""Names that come again, sizes, sources and listings over gRPC."""

from __future__ import annotations

import pytest

from csi_core._proto import csi_pb2 as pb
from csi_core.model import SourceKind, VolumeMode
from csi_core.testing.contract.selection import Selection, needs
from csi_core.testing.contract.volumes import NAMES
from csi_core.testing.driver.case import Code, DriverCase, refused
from csi_core.testing.harness import from_snapshot, from_volume

__all__ = ["CallTests"]

_COUNT = 5


class CallTests(Selection):
    """The rules of the Controller service that the core keeps for every backend."""

    def test_create_again(self, driver: DriverCase, mode: VolumeMode) -> None:
        """The same request gives the same volume; another size, parameter or source is ALREADY_EXISTS."""
        request = driver.request("data", mode)
        volume = driver.send(request)
        assert driver.send(request) == volume
        assert volume.capacity_bytes == driver.size_bytes
        assert volume.volume_id.startswith(f"{driver.backend}/")
        larger = driver.request("data", mode, 2 * driver.size_bytes)
        smaller = driver.request("data", mode)
        smaller.capacity_range.CopyFrom(
            pb.CapacityRange(required_bytes=driver.size_bytes // 2, limit_bytes=driver.size_bytes // 2)
        )
        for other in (larger, smaller):
            with refused(Code.ALREADY_EXISTS):
                driver.send(other)
        fits = driver.request("data", mode, 1)
        assert driver.send(fits) == volume
        assert driver.volume_ids() == [volume.volume_id]

    def test_every_name(self, driver: DriverCase) -> None:
        """Names of any script, case and form."""
        volumes = {name: driver.create(name, self.volume_modes[0]).volume_id for name in NAMES}
        assert len(set(volumes.values())) == len(NAMES)
        assert set(driver.volume_ids()) == set(volumes.values())
        assert all(len(volume_id.encode()) <= 128 for volume_id in volumes.values())

    def test_out_of_range(self, driver: DriverCase, mode: VolumeMode) -> None:
        """A limit below what rounding gives cannot be met, and neither can a size beyond everything."""
        request = driver.request("data", mode, 0)
        request.capacity_range.CopyFrom(pb.CapacityRange(limit_bytes=1))
        with refused(Code.OUT_OF_RANGE):
            driver.send(request)
        with refused(Code.OUT_OF_RANGE, Code.RESOURCE_EXHAUSTED):
            driver.create("data", mode, 1 << 61)
        assert driver.volume_ids() == []

    @pytest.mark.parametrize("page", [1, 2, _COUNT, _COUNT + 1])
    def test_pages(self, driver: DriverCase, page: int) -> None:
        """Every volume once; a token without a maximum leads through all the rest."""
        made = {driver.create(f"data-{number}", self.volume_modes[0]).volume_id for number in range(_COUNT)}
        listed, token = [], ""
        while True:
            answer = driver.listed(page, token)
            assert len(answer.entries) <= page
            listed += [entry.volume.volume_id for entry in answer.entries]
            token = answer.next_token
            if not token:
                break
        assert len(listed) == _COUNT
        assert set(listed) == made
        first = driver.listed(1)
        assert len(driver.listed(0, first.next_token).entries) == _COUNT - 1

    @pytest.mark.parametrize("token", ["no-token-of-mine", "{backend}/no token", "elsewhere/x", "ä"])
    def test_bad_token(self, driver: DriverCase, token: str) -> None:
        """ABORTED: the CO starts anew."""
        driver.create("data", self.volume_modes[0])
        with refused(Code.ABORTED):
            driver.listed(1, token.format(backend=driver.backend))

    @needs("get_capacity")
    def test_capacity(self, driver: DriverCase) -> None:
        """Room for the tests' class, and none for a class of a backend that this driver has not."""
        request = pb.GetCapacityRequest(
            parameters={"backend": driver.backend, **driver.parameters},
            volume_capabilities=[driver.capability(self.volume_modes[0])],
        )
        answer = driver.call(driver.server.controller.GetCapacity, request)
        assert answer.available_capacity > 0
        request.parameters["backend"] = "elsewhere"
        assert driver.call(driver.server.controller.GetCapacity, request).available_capacity == 0

    @needs("create_snapshot")
    def test_snapshot_again(self, driver: DriverCase) -> None:
        """The same request gives the same snapshot; one of another volume is ALREADY_EXISTS."""
        one, two = (driver.create(name, self.volume_modes[0]).volume_id for name in ("one", "two"))
        snapshot = driver.snapshot("snap", one)
        assert driver.snapshot("snap", one) == snapshot
        assert (snapshot.source_volume_id, snapshot.size_bytes) == (one, driver.size_bytes)
        with refused(Code.ALREADY_EXISTS):
            driver.snapshot("snap", two)

    @needs("list_snapshots")
    def test_list_snapshots(self, driver: DriverCase) -> None:
        """By id, by volume, all; what is not there is an empty list and no error."""
        one, two = (driver.create(name, self.volume_modes[0]).volume_id for name in ("one", "two"))
        first, second = driver.snapshot("first", one), driver.snapshot("second", two)

        def listed(snapshot_id: str = "", source_volume_id: str = "") -> list[pb.Snapshot]:
            request = pb.ListSnapshotsRequest(
                secrets=driver.secrets, snapshot_id=snapshot_id, source_volume_id=source_volume_id
            )
            answer = driver.call(driver.server.controller.ListSnapshots, request)
            return [entry.snapshot for entry in answer.entries]

        assert len(listed()) == 2
        assert listed(snapshot_id=first.snapshot_id) == [first]
        assert listed(source_volume_id=two) == [second]
        assert listed(source_volume_id=two, snapshot_id=first.snapshot_id) == []
        for unknown in (f"{driver.backend}/no-such-handle", "no-such-id"):
            assert listed(snapshot_id=unknown) == []
            assert listed(source_volume_id=unknown) == []

    @needs("create_snapshot", source=SourceKind.SNAPSHOT)
    def test_from_snapshot(self, driver: DriverCase, mode: VolumeMode) -> None:
        """The source is echoed; it must exist, fit, and be the same when the name comes again."""
        snapshot = driver.snapshot("snap", driver.create("data", mode).volume_id)
        source = from_snapshot(snapshot.snapshot_id)
        restored = driver.create("restored", mode, source=source)
        assert restored.content_source == source
        assert driver.create("restored", mode, source=source) == restored
        with refused(Code.ALREADY_EXISTS):
            driver.create("restored", mode)
        with refused(Code.ALREADY_EXISTS):
            driver.create("data", mode, source=source)
        with refused(Code.OUT_OF_RANGE):
            driver.create("small", mode, driver.size_bytes // 2, source)
        with refused(Code.NOT_FOUND):
            driver.create("orphan", mode, source=from_snapshot(f"{driver.backend}/no-such-handle"))

    @needs(source=SourceKind.VOLUME)
    def test_from_volume(self, driver: DriverCase, mode: VolumeMode) -> None:
        """As from a snapshot."""
        source = from_volume(driver.create("data", mode).volume_id)
        clone = driver.create("clone", mode, source=source)
        assert clone.content_source == source
        with refused(Code.ALREADY_EXISTS):
            driver.create("clone", mode)
        with refused(Code.OUT_OF_RANGE):
            driver.create("small", mode, driver.size_bytes // 2, source)
        with refused(Code.NOT_FOUND):
            driver.create("orphan", mode, source=from_volume(f"{driver.backend}/no-such-handle"))

    @needs("create_group_snapshot")
    def test_group(self, driver: DriverCase) -> None:
        """Members go with their group only, and the list of them must be right."""
        volume_ids = [driver.create(f"data-{number}", self.volume_modes[0]).volume_id for number in range(2)]
        group = driver.group("group", *volume_ids)
        assert driver.group("group", *reversed(volume_ids)) == group
        member = group.snapshots[0].snapshot_id
        with refused(Code.INVALID_ARGUMENT):
            driver.delete_snapshot(member)
        with refused(Code.ALREADY_EXISTS):
            driver.group("group", volume_ids[0])
        delete = pb.DeleteVolumeGroupSnapshotRequest(
            group_snapshot_id=group.group_snapshot_id, snapshot_ids=[member], secrets=driver.secrets
        )
        with refused(Code.INVALID_ARGUMENT):
            driver.call(driver.server.group.DeleteVolumeGroupSnapshot, delete)
        delete.snapshot_ids[:] = [snapshot.snapshot_id for snapshot in group.snapshots]
        for _ in range(2):
            driver.call(driver.server.group.DeleteVolumeGroupSnapshot, delete)
        assert driver.snapshots() == []

    @needs("modify_volume")
    def test_modify(self, driver: DriverCase) -> None:
        """Absent keys keep their values; an unknown key is INVALID_ARGUMENT and nothing is applied."""
        first, second = driver.mutable
        request = driver.request("data", self.volume_modes[0])
        request.mutable_parameters.update(first)
        volume = driver.send(request)
        modify = pb.ControllerModifyVolumeRequest(
            volume_id=volume.volume_id, mutable_parameters=second, secrets=driver.secrets
        )
        for _ in range(2):
            driver.call(driver.server.controller.ControllerModifyVolume, modify)
        nothing = pb.ControllerModifyVolumeRequest(
            volume_id=f"{driver.backend}/no-such-handle", mutable_parameters=second, secrets=driver.secrets
        )
        with refused(Code.NOT_FOUND):
            driver.call(driver.server.controller.ControllerModifyVolume, nothing)
        request.mutable_parameters.update(second)
        assert driver.send(request) == volume
        modify.mutable_parameters.update({**first, "noSuchKey": "1"})
        with refused(Code.INVALID_ARGUMENT):
            driver.call(driver.server.controller.ControllerModifyVolume, modify)
        assert driver.send(request) == volume

    @needs("publish_volume")
    def test_controller_publish(self, driver: DriverCase, mode: VolumeMode) -> None:
        """Other readonly is ALREADY_EXISTS, an unknown node NOT_FOUND, no node at all is every node."""
        if "PUBLISH_UNPUBLISH_VOLUME" not in driver.capabilities:
            return  # node-local
        volume = driver.create("data", mode)
        context = driver.publish(volume.volume_id, mode)
        assert driver.publish(volume.volume_id, mode) == context
        with refused(Code.ALREADY_EXISTS):
            driver.publish(volume.volume_id, mode, read_only=True)
        with refused(Code.NOT_FOUND):
            driver.publish(volume.volume_id, mode, "no-such-node")
        [entry] = driver.listed().entries
        assert list(entry.status.published_node_ids) == [driver.node_id]
        for _ in range(2):
            driver.unpublish(volume.volume_id)
        [entry] = driver.listed().entries
        assert list(entry.status.published_node_ids) == []
