"""LVM behind a real server, with the kernel's mounts: ext4 on linear volumes, XFS on thin ones; raw block on both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from volume_group import clear, forget_devices, lvm, volume_group

from backends.lvm.plugin import LvmBackend
from csi_core.model import VolumeMode
from csi_core.testing.devices import unmount_below
from csi_core.testing.driver import DriverCase, DriverContract, Pod
from csi_core.testing.driver.pods import PodTests
from csi_core.testing.driver.rush import at_once
from csi_core.testing.driver.volumes import CallTests
from csi_core.testing.harness import ServerProcess

pytestmark = pytest.mark.needs_kernel("device-mapper")
MIB = 1 << 20
AT_ONCE = 40
GROUP = "csi-driver"
CONTENT = b"written before the power went" * 10_000


class _Served:
    """A server with one device class."""

    driver = DriverContract.driver
    settings: ClassVar[dict[str, Any]] = {}
    parameters: ClassVar[dict[str, str]] = {}
    fs_type: ClassVar = "ext4"
    size_bytes: ClassVar = 32 * MIB
    mode: ClassVar = VolumeMode.BLOCK
    """Of the life with a reboot in it."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, scratch_disks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
        directory = tmp_path_factory.mktemp("server")
        with volume_group(scratch_disks[4:5], GROUP, 7 << 30) as group:
            cls.prepare(group)
            options = {"classes": {"test": {"volumeGroup": group, **cls.settings}}}
            with ServerProcess({"backends": {"lvm": {"options": options}}}, directory) as server:
                yield server
            unmount_below(tmp_path_factory.getbasetemp())
            clear(group)

    @classmethod
    def prepare(cls, group: str) -> None:
        """What the volume group needs beforehand."""

    def test_after_a_reboot(self, driver: DriverCase, server: ServerProcess) -> None:
        """Nothing is mounted, no device is there, LVM's own state in /run is gone: the volume comes back with its data.

        What a boot activates is left out: the driver must not need it.
        """
        pod = Pod(driver, driver.create("data", self.mode).volume_id, self.mode)
        pod.start()
        pod.write(CONTENT)
        server.kill()
        unmount_below(driver.directory)
        forget_devices(GROUP)
        server.restart()
        driver.create("another", self.mode)
        pod.start()
        assert pod.read(len(CONTENT)) == CONTENT
        assert len(driver.volume_ids()) == 2

    @pytest.fixture
    def case(self, server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> DriverCase:
        # Short paths: the kernel's mount table shows them, and so does a failure.
        directory = tmp_path_factory.mktemp("kubelet").resolve()
        return DriverCase(
            server,
            directory,
            backend="lvm",
            parameters=self.parameters,
            fs_type=self.fs_type,
            size_bytes=self.size_bytes,
        )


class TestLinearExt4(_Served, DriverContract):
    """Snapshots are copy-on-write, copies are full ones. A life is restarted in one mode, and killed in the other."""

    plugin = LvmBackend

    def test_create_many(self, driver: DriverCase) -> None:
        """More at once than a server has workers; not a hundred, each of which is two commands of LVM's."""
        volumes = at_once(AT_ONCE, lambda number: driver.create(f"data-{number}", self.volume_modes[0]).volume_id)
        assert len(set(volumes)) == AT_ONCE
        assert set(driver.volume_ids()) == set(volumes)
        at_once(AT_ONCE, lambda number: driver.delete(volumes[number]))
        assert driver.volume_ids() == []

    def test_restarted_after_every_step(self, driver: DriverCase) -> None:
        super().test_restarted_after_every_step(driver, VolumeMode.BLOCK)

    def test_killed_after_every_step(self, driver: DriverCase) -> None:
        super().test_killed_after_every_step(driver, VolumeMode.FILESYSTEM)


class TestThinXfs(_Served, CallTests, PodTests):
    """Snapshots and copies share blocks. Requests, names, lists, targets and restarts are as for linear volumes.

    How a pool bears many calls at once is tested without a server.
    """

    plugin = LvmBackend
    test_create_again = test_every_name = test_out_of_range = test_pages = test_bad_token = None
    test_publish_needs_staging = test_second_target = test_published_otherwise = test_stats_of_something_else = None
    settings: ClassVar = {"thinPools": {"pool": {"overcommit": 20}}}
    parameters: ClassVar = {"type": "thin"}
    fs_type: ClassVar = "xfs"
    size_bytes: ClassVar = 320 * MIB
    mode: ClassVar = VolumeMode.FILESYSTEM

    @classmethod
    def prepare(cls, group: str) -> None:
        lvm("lvcreate", "-y", "--type=thin-pool", "-L", "3g", "--poolmetadatasize=32m", "-n", "pool", group)
