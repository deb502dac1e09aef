"""The LVM backend keeps the contract: linear volumes all of it, the others where they differ.

To this backend a filesystem volume is a device as any other: raw block stands for both, and the driver's tests mount.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from volume_group import clear, lvm, volume_group

from backends.lvm.plugin import LvmBackend
from csi_core.errors import FailedPrecondition
from csi_core.model import GroupSnapshotSpec, VolumeMode
from csi_core.testing.contract import BackendCase, BackendContract
from csi_core.testing.contract.blocks import BlockTests
from csi_core.testing.contract.capacity import CapacityTests
from csi_core.testing.contract.clones import CloneTests
from csi_core.testing.contract.concurrency import ConcurrencyTests, at_once
from csi_core.testing.contract.expansion import ExpansionTests
from csi_core.testing.contract.groups import GroupTests
from csi_core.testing.contract.snapshots import SnapshotTests

pytestmark = pytest.mark.needs_kernel("device-mapper")
BLOCK = VolumeMode.BLOCK
MANY = 40


class TestLinear(BackendContract):
    """Every hook but those for networks and mutable parameters."""

    plugin = LvmBackend
    volume_modes = (BLOCK,)
    test_description_is_what_is_tested = None
    test_group_outlives_its_volumes = None
    test_create_many = None  # thin volumes have the accounting that this is about

    @pytest.fixture
    def case(self, group: str) -> Iterator[BackendCase]:
        options = {"classes": {"test": {"volumeGroup": group}}}
        with BackendCase(lambda: LvmBackend(options)) as case:
            yield case

    def test_description(self, case: BackendCase) -> None:
        """Both modes are declared, whatever is tested here."""
        assert case.backend.description.access.keys() == set(VolumeMode)

    def test_volumes_of_a_group_stay(self, case: BackendCase) -> None:
        """Copy-on-write snapshots need their volume, so it is refused to be deleted."""
        volumes = [case.create(name, BLOCK) for name in ("one", "two")]
        spec = GroupSnapshotSpec("group", tuple(volume.handle for volume in volumes))
        group = case.backend.create_group_snapshot(spec).value
        with pytest.raises(FailedPrecondition, match="snapshot"):
            case.delete(volumes[0])
        case.backend.delete_group_snapshot(group.handle, case.secrets)
        case.delete(volumes[0])
        assert case.volumes() == [volumes[1]]


class TestThin(ExpansionTests, SnapshotTests, CloneTests, GroupTests, BlockTests, CapacityTests, ConcurrencyTests):
    """From a thin pool: copies share blocks, and the accounting is csi-core's. All else is as with linear volumes."""

    plugin = LvmBackend
    volume_modes = (BLOCK,)
    test_every_snapshot_name = None
    test_list_while_others_come_and_go = None
    test_whole_lives = None

    def test_create_many(self, case: BackendCase) -> None:
        """As of any backend, but not a hundred, each of which is two commands of LVM's."""
        volumes = at_once(lambda number: case.create(f"data-{number}", BLOCK), range(MANY))
        assert len({volume.handle for volume in volumes}) == MANY
        expected = sorted(volumes, key=lambda volume: volume.handle)
        for _ in range(2):
            assert sorted(case.volumes(7), key=lambda volume: volume.handle) == expected
            case.reopen()

    @pytest.fixture(scope="class")
    @classmethod
    def pool_group(cls, scratch_disks) -> Iterator[str]:
        with volume_group(scratch_disks[3:4], "csi-test_thin", 6 << 30) as name:
            lvm("lvcreate", "-y", "--type=thin-pool", "-L", "2g", "--poolmetadatasize=16m", "-n", "pool", name)
            yield name

    @pytest.fixture
    def case(self, pool_group: str) -> Iterator[BackendCase]:
        settings = {"volumeGroup": pool_group, "thinPools": {"pool": {"overcommit": 10}}}
        with BackendCase(
            lambda: LvmBackend({"classes": {"test": settings}}), parameters={"type": "thin", "thinPool": "pool"}
        ) as case:
            yield case
        clear(pool_group, keep=["pool"])


class TestStriped(ExpansionTests):
    """Over two disks; sizes are whole stripes. What else depends on how a volume lies is in test_layouts.py."""

    plugin = LvmBackend
    volume_modes = (BLOCK,)

    @pytest.fixture
    def case(self, group: str) -> Iterator[BackendCase]:
        options = {"classes": {"test": {"volumeGroup": group}}}
        parameters = {"type": "striped", "stripes": "2", "stripeSize": "16Ki"}
        with BackendCase(lambda: LvmBackend(options), parameters=parameters) as case:
            yield case
