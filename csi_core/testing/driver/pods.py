"""Volumes on the node: staging, publishing, growing, and the data in them."""

from __future__ import annotations

import os
import stat

import pytest

from csi_core._proto import csi_pb2 as pb
from csi_core.model import SourceKind, VolumeMode
from csi_core.testing.contract.selection import Selection, needs
from csi_core.testing.driver.case import Code, DriverCase, Pod, refused
from csi_core.testing.harness import AccessMode, from_snapshot

__all__ = ["PodTests"]

_CONTENT = bytes(range(256)) * 4096


class PodTests(Selection):
    """The rules of the Node service. ``kernel_mounts`` is False where mounts are simulated and cannot refuse writes."""

    kernel_mounts = True

    def test_life(self, driver: DriverCase, mode: VolumeMode) -> None:
        """Stage, publish, write, take down, bring up, read; every call twice."""
        pod = Pod(driver, driver.create("data", mode).volume_id, mode)
        for number in range(2):
            for step in (pod.stage, pod.stage, pod.publish, pod.publish):
                step()
            if number == 0:
                pod.write(_CONTENT)
            assert pod.read(len(_CONTENT)) == _CONTENT
            for step in (pod.unpublish, pod.unpublish, pod.unstage, pod.unstage):
                step()
            assert not pod.target_path.exists()
            assert not pod.target_path.is_symlink()

    def test_publish_needs_staging(self, driver: DriverCase, mode: VolumeMode) -> None:
        """FAILED_PRECONDITION without a staging path, or before staging."""
        pod = Pod(driver, driver.create("data", mode).volume_id, mode)
        with refused(Code.FAILED_PRECONDITION):
            pod.publish()
        pod.stage()
        request = pb.NodePublishVolumeRequest(
            volume_id=pod.volume_id, target_path=str(pod.target_path), volume_capability=driver.capability(mode)
        )
        with refused(Code.FAILED_PRECONDITION):
            driver.call(driver.server.node.NodePublishVolume, request)

    def test_second_target(self, driver: DriverCase, mode: VolumeMode) -> None:
        """A second pod's path: FAILED_PRECONDITION for a single writer, OK where several may write."""
        volume = driver.create("data", mode)
        pod = Pod(driver, volume.volume_id, mode)
        pod.stage()
        second = pod.target_path.with_name("mount-2")
        pod.publish()
        with refused(Code.FAILED_PRECONDITION):
            pod.publish(target_path=second)
        pod.unpublish()
        pod.publish(access_mode=AccessMode.SINGLE_NODE_MULTI_WRITER)
        pod.publish(access_mode=AccessMode.SINGLE_NODE_MULTI_WRITER, target_path=second)
        pod.write(_CONTENT)
        pod.unpublish()
        other = second / "data" if mode is VolumeMode.FILESYSTEM else second
        with other.open("rb") as file:
            assert file.read(len(_CONTENT)) == _CONTENT
        pod.unpublish(second)

    def test_published_otherwise(self, driver: DriverCase, mode: VolumeMode) -> None:
        """The same path with other arguments is ALREADY_EXISTS, and what is there stays."""
        pod = Pod(driver, driver.create("data", mode).volume_id, mode)
        pod.start()
        pod.write(_CONTENT)
        with refused(Code.ALREADY_EXISTS):
            pod.publish(read_only=True)
        assert pod.read(len(_CONTENT)) == _CONTENT

    def test_read_only(self, driver: DriverCase, mode: VolumeMode) -> None:
        """Data can be read, and really not be written."""
        pod = Pod(driver, driver.create("data", mode).volume_id, mode)
        pod.start()
        pod.write(_CONTENT)
        pod.unpublish()
        pod.publish(read_only=True)
        assert pod.read(len(_CONTENT)) == _CONTENT
        if self.kernel_mounts:
            with pytest.raises(OSError, match=r"Read-only|not permitted|Permission"):
                pod.write(b"changed")
            assert pod.read(len(_CONTENT)) == _CONTENT

    def test_raw_block_is_a_device(self, driver: DriverCase, mode: VolumeMode) -> None:
        """A directory for mounts; a device node for raw block, in the kernel's hands."""
        pod = Pod(driver, driver.create("data", mode).volume_id, mode)
        pod.start()
        if mode is VolumeMode.FILESYSTEM:
            assert pod.target_path.is_dir()
        elif self.kernel_mounts:
            kind = pod.target_path.stat().st_mode
            assert stat.S_ISBLK(kind) or stat.S_ISREG(kind)
        else:
            assert pod.target_path.is_file() or pod.target_path.is_block_device()

    def test_stats(self, driver: DriverCase, mode: VolumeMode) -> None:
        """Bytes, and inodes where there is a filesystem; NOT_FOUND for a path where the volume is not."""
        pod = Pod(driver, driver.create("data", mode).volume_id, mode)
        pod.start()
        request = pb.NodeGetVolumeStatsRequest(volume_id=pod.volume_id, volume_path=str(pod.target_path))
        usage = {u.unit: u for u in driver.call(driver.server.node.NodeGetVolumeStats, request).usage}
        assert usage[pb.VolumeUsage.BYTES].total > 0
        if mode is VolumeMode.BLOCK:
            assert usage[pb.VolumeUsage.BYTES].total == driver.size_bytes
        else:
            inodes = os.statvfs(pod.target_path).f_files  # 0 where they are made as they are needed, as on btrfs
            assert not inodes or usage[pb.VolumeUsage.INODES].total > 0
        for path in (str(pod.target_path) + "-elsewhere", "relative/path"):
            request.volume_path = path
            with refused(Code.NOT_FOUND):
                driver.call(driver.server.node.NodeGetVolumeStats, request)

    @needs("find_source")  # without it nobody knows what is mounted, and the path is believed
    def test_stats_of_something_else(self, driver: DriverCase) -> None:
        """NOT_FOUND for a path where something is mounted that is not this volume."""
        mode = self.volume_modes[0]
        pods = [Pod(driver, driver.create(name, mode).volume_id, mode) for name in ("one", "two")]
        for pod in pods:
            pod.start()
        for path in ("/", str(pods[1].target_path)):
            request = pb.NodeGetVolumeStatsRequest(volume_id=pods[0].volume_id, volume_path=path)
            with refused(Code.NOT_FOUND):
                driver.call(driver.server.node.NodeGetVolumeStats, request)

    @needs("expand_volume")
    def test_grow(self, driver: DriverCase, mode: VolumeMode) -> None:
        """Online, to the requested size, with the filesystem really grown and the data in place."""
        pod = Pod(driver, driver.create("data", mode).volume_id, mode)
        pod.start()
        pod.write(_CONTENT)
        before = os.statvfs(pod.target_path)
        wanted = 2 * driver.size_bytes
        for _ in range(2):
            driver.grow(pod, wanted)
        assert pod.read(len(_CONTENT)) == _CONTENT
        if mode is VolumeMode.BLOCK:
            with pod.target_path.open("rb") as device:
                assert device.seek(0, os.SEEK_END) == wanted
        elif driver.fs_type:
            after = os.statvfs(pod.target_path)
            assert after.f_blocks * after.f_frsize > 1.5 * before.f_blocks * before.f_frsize
        if driver.online_growth:
            assert driver.expand(pod.volume_id, driver.size_bytes, mode, pod.target_path) == wanted
        [entry] = driver.listed().entries
        assert entry.volume.capacity_bytes == wanted

    @needs("create_snapshot", source=SourceKind.SNAPSHOT)
    def test_restored_and_grown(self, driver: DriverCase, mode: VolumeMode) -> None:
        """A volume restored larger has its data, and room to the new size by the time it is published."""
        pod = Pod(driver, driver.create("data", mode).volume_id, mode)
        pod.start()
        pod.write(_CONTENT)
        snapshot = driver.snapshot("snap", pod.volume_id)
        pod.write(b"changed" * 1000)
        wanted = 2 * driver.size_bytes
        restored = driver.create("restored", mode, wanted, from_snapshot(snapshot.snapshot_id))
        copy = Pod(driver, restored.volume_id, mode)
        copy.start()
        assert copy.read(len(_CONTENT)) == _CONTENT
        if mode is VolumeMode.FILESYSTEM and driver.fs_type:
            there = os.statvfs(copy.target_path)
            assert there.f_blocks * there.f_frsize > 1.5 * driver.size_bytes

    def test_in_use_is_not_lost(self, driver: DriverCase, mode: VolumeMode) -> None:
        """A volume on the node is not deleted from under its pod, or the pod does not notice."""
        pod = Pod(driver, driver.create("data", mode).volume_id, mode)
        pod.start()
        pod.write(_CONTENT)
        with refused(Code.FAILED_PRECONDITION):
            driver.delete(pod.volume_id)
        assert pod.read(len(_CONTENT)) == _CONTENT
