"""A mounted, published ext4 grows while a pod writes to it, where root may do that (CAP_SYS_RESOURCE)."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from driver import MIB, VOLUME_BYTES, Cluster, Pod
from killing import killed_at_every_step
from loop_world import LoopWorld
from scenario import Scenario

from csi_core.node import growth
from csi_core.testing.devices import scratch_directory

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_kernel("ext4-growth")]

SMALL_BYTES = 48 * MIB
LARGE_BYTES = 3 << 30
KILLED_AFTER_S = (0.0, 0.005, 0.01, 0.02, 0.04)


@pytest.fixture(scope="module")
def world(scratch_disks: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopWorld]:
    """A pool on XFS on a disk."""
    disk = scratch_disks[0]
    subprocess.run(["mkfs.xfs", "-q", "-f", "-K", str(disk)], check=True)
    with scratch_directory() as storage:
        subprocess.run(["mount", str(disk), str(storage)], check=True)
        yield LoopWorld(tmp_path_factory.mktemp("server"), storage)
    subprocess.run(["wipefs", "--quiet", "--all", str(disk)], check=True)


class GrowExt4(Scenario):
    """NodeExpandVolume of a published ext4."""

    name = "grow-ext4"

    def prepare(self, cluster: Cluster) -> None:
        self.volume_id = cluster.create("claim", fs_type="ext4", size_bytes=SMALL_BYTES).volume_id
        cluster.run_pod(self.volume_id, "ext4").write("data")

    def act(self, cluster: Cluster) -> Any:
        return cluster.expand(self.volume_id, 2 * SMALL_BYTES, "ext4")

    def survives(self, cluster: Cluster) -> None:
        cluster.pod(self.volume_id).verify()
        cluster.pod(self.volume_id).write("while-dead")

    def verify(self, cluster: Cluster, answer: Any) -> None:
        assert answer == 2 * SMALL_BYTES
        pod = cluster.pod(self.volume_id)
        pod.verify()
        pod.write("after", size_bytes=SMALL_BYTES)  # more than was free before
        pod.verify()

    def clean(self, cluster: Cluster) -> None:
        cluster.stop_pod(self.volume_id)
        cluster.delete(self.volume_id)


def test_killed_at_every_step_of_growing(world: LoopWorld, tmp_path: Path) -> None:
    points = killed_at_every_step(world, GrowExt4, tmp_path)
    assert {"node.expand.before_grow", "node.expand.after_grow"} <= set(points), "it grows while mounted"


class Writer:
    """A pod that writes file after file, each durably, until it is told to stop."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        number = 0
        while not self._stop.is_set():
            self._pod.write(f"file-{number % 20}", MIB)
            number += 1

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self._pod.checksums, "it wrote something"


def test_a_pod_writes_on_while_its_filesystem_grows(world: LoopWorld, tmp_path: Path) -> None:
    with world.server() as server:
        cluster = Cluster(server, tmp_path / "kubelet")
        volume_id = cluster.create("busy", fs_type="ext4").volume_id
        pod = cluster.run_pod(volume_id, "ext4")
        sizes = [shutil.disk_usage(pod.target).total]
        with Writer(pod):
            for step in range(1, 5):
                assert cluster.expand(volume_id, VOLUME_BYTES + step * 256 * MIB, "ext4")
                sizes.append(shutil.disk_usage(pod.target).total)
        assert sizes == sorted(set(sizes)), "each step is seen at once, without a new mount"
        end_of(cluster, world, pod)


@pytest.mark.parametrize("killed_after_s", KILLED_AFTER_S)
def test_killed_in_the_middle_of_growing(world: LoopWorld, tmp_path: Path, killed_after_s: float) -> None:
    """Growth by gigabytes takes the kernel a moment; the server may die in any part of it."""
    with world.server() as server:
        cluster = Cluster(server, tmp_path / "kubelet")
        volume_id = cluster.create("killed", fs_type="ext4").volume_id
        pod = cluster.run_pod(volume_id, "ext4")
        pod.write("before")
        killer = threading.Thread(target=lambda: (time.sleep(killed_after_s), server.kill()))
        killer.start()
        try:
            cluster.expand(volume_id, LARGE_BYTES, "ext4")
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error.details()
        killer.join()
        pod.write("while-dead")
        server.restart()
        assert cluster.expand(volume_id, LARGE_BYTES, "ext4") == LARGE_BYTES
        assert shutil.disk_usage(pod.target).total > LARGE_BYTES * 0.9
        end_of(cluster, world, pod)


def test_growths_at_once_wait_for_each_other(world: LoopWorld, scratch_disks: tuple[Path, ...]) -> None:
    """The kernel refuses the second; other filesystems: tests/integration/node."""
    disk = scratch_disks[1]
    with scratch_directory() as directory:
        subprocess.run(["mkfs.ext4", "-q", "-F", disk, "64M"], check=True)
        subprocess.run(["mount", disk, directory], check=True)
        root = os.open(directory, os.O_RDONLY)
        try:
            with ThreadPoolExecutor(4) as growers:
                for grown in [growers.submit(growth.grow, root, "ext4", disk) for _ in range(4)]:
                    grown.result()
        finally:
            os.close(root)
        assert shutil.disk_usage(directory).total > 0.9 * growth.device_size_bytes(disk)
        subprocess.run(["umount", directory], check=True)
    subprocess.run(["wipefs", "--quiet", "--all", disk], check=True)


def end_of(cluster: Cluster, world: LoopWorld, pod: Pod) -> None:
    """The data is there, before and after a new mount, and the filesystem is clean."""
    pod.verify()
    cluster.stop_pod(pod.volume_id)
    (image,) = world.left()
    check = subprocess.run(["e2fsck", "-f", "-n", image], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout
    cluster.run_pod(pod.volume_id, "ext4").verify(pod.checksums)
    cluster.stop_pod(pod.volume_id)
    cluster.delete(pod.volume_id)
