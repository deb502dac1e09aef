"""LVM behind a real server, with the kernel's mounts: ext4 on linear volumes, XFS on thin ones; raw block on both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from volume_group import clear, lvm, volume_group

from backends.lvm.plugin import LvmBackend
from csi_core.testing.devices import unmount_below
from csi_core.testing.driver import DriverCase, DriverContract
from csi_core.testing.driver.pods import PodTests
from csi_core.testing.driver.rush import RushTests
from csi_core.testing.driver.volumes import CallTests
from csi_core.testing.harness import ServerProcess

pytestmark = pytest.mark.needs_kernel("device-mapper")
MIB = 1 << 20


class _Served:
    """A server with one device class."""

    driver = DriverContract.driver
    settings: ClassVar[dict[str, Any]] = {}
    parameters: ClassVar[dict[str, str]] = {}
    fs_type: ClassVar = "ext4"
    size_bytes: ClassVar = 32 * MIB

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, scratch_disks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
        directory = tmp_path_factory.mktemp("server")
        with volume_group(scratch_disks[4:5], "csi-driver", 7 << 30) as group:
            cls.prepare(group)
            options = {"classes": {"test": {"volumeGroup": group, **cls.settings}}}
            with ServerProcess({"backends": {"lvm": {"options": options}}}, directory) as server:
                yield server
            unmount_below(tmp_path_factory.getbasetemp())
            clear(group)

    @classmethod
    def prepare(cls, group: str) -> None:
        """What the volume group needs beforehand."""

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
    """Snapshots are copy-on-write, copies are full ones."""

    plugin = LvmBackend


class TestThinXfs(_Served, CallTests, PodTests, RushTests):
    """Snapshots and copies share blocks. Requests are judged, and servers restarted, as for linear volumes."""

    plugin = LvmBackend
    settings: ClassVar = {"thinPools": {"pool": {"overcommit": 20}}}
    parameters: ClassVar = {"type": "thin"}
    fs_type: ClassVar = "xfs"
    size_bytes: ClassVar = 320 * MIB

    @classmethod
    def prepare(cls, group: str) -> None:
        lvm("lvcreate", "-y", "--type=thin-pool", "-L", "3g", "--poolmetadatasize=32m", "-n", "pool", group)
