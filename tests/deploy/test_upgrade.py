"""Restarts and upgrades of the node plugin never disturb a volume that a pod uses."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import helm
import pytest
from image import Image
from installed import Driver, installed
from kubelet import PodVolume
from machine import machine

from csi_core._proto import csi_pb2 as pb

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_tool("mmdebstrap"), pytest.mark.needs_go]

RESTARTS = 10
BLOCK_BYTES = 64 << 10
BLOCKS = 512
LOOP = helm.CHART / "drivers" / "loop.yaml"


@pytest.fixture
def loop(image: Image) -> Iterator[Driver]:
    with machine() as host, installed(LOOP, host, image) as driver:
        yield driver


class Writer(threading.Thread):
    """A pod that writes numbered blocks round a file or a device, each one durable before the next.

    ``acknowledged`` is how many were; an error ends it and stays in ``error``.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.acknowledged = 0
        self.error: OSError | None = None
        self._stopping = threading.Event()

    def run(self) -> None:
        try:
            # Open all the time, as a database has its files.
            with self.path.open("r+b" if self.path.exists() else "w+b", buffering=0) as file:
                while not self._stopping.is_set():
                    file.seek(self.acknowledged % BLOCKS * BLOCK_BYTES)
                    file.write(block(self.acknowledged))
                    os.fsync(file.fileno())
                    self.acknowledged += 1
        except OSError as error:
            self.error = error

    def progresses(self, blocks: int = 3) -> bool:
        """Whether it gets on by some blocks within a time that no healthy disk needs."""
        goal, ends_at = self.acknowledged + blocks, time.monotonic() + 20
        while self.acknowledged < goal and time.monotonic() < ends_at and self.error is None:
            time.sleep(0.005)
        return self.acknowledged >= goal

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def verify(self) -> None:
        """Every acknowledged block is there, the newest that was written at its place."""
        with self.path.open("rb") as file:
            for number in range(max(0, self.acknowledged - BLOCKS), self.acknowledged):
                file.seek(number % BLOCKS * BLOCK_BYTES)
                assert file.read(BLOCK_BYTES) == block(number), f"block {number} of {self.path} is not what was written"


def block(number: int) -> bytes:
    """Content that no other number has."""
    seed = hashlib.sha256(struct.pack("<Q", number)).digest()
    return seed * (BLOCK_BYTES // len(seed))


def published(driver: Driver, volume_mode: str) -> PodVolume:
    """A volume of 256 MiB that a pod uses."""
    claim = {
        "metadata": {"name": volume_mode.lower(), "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": volume_mode,
            "resources": {"requests": {"storage": "256Mi"}},
        },
    }
    return driver.kubelet.mount(driver.sidecars.provision(claim, driver.of_kind("StorageClass")[0]))


def test_writers_with_fsync_run_through_ten_restarts_without_an_error(loop: Driver) -> None:
    """Every other restart is a SIGTERM (an upgrade) or a SIGKILL (out of memory); each starts a new container."""
    used = [published(loop, mode) for mode in ("Filesystem", "Block")]
    writers = [Writer(used[0].path / "database"), Writer(used[1].path)]
    with ExitStack() as stack:
        for writer in writers:
            writer.start()
            stack.callback(writer.stop)
        restart_ten_times(loop, used, writers)
    for volume, writer in zip(used, writers, strict=True):
        assert writer.error is None
        writer.verify()
        loop.kubelet.unmount(volume)
        loop.kubelet.unstage(volume.volume)
        # And on the storage itself, not only in the page cache of a mount that was never taken away.
        again = loop.kubelet.mount(volume.volume)
        writer.path = again.path if volume.volume.block else again.path / "database"
        writer.verify()
        loop.kubelet.unmount(again)
        loop.kubelet.unstage(volume.volume)
        loop.sidecars.delete(volume.volume)


def restart_ten_times(loop: Driver, used: Sequence[PodVolume], writers: Sequence[Writer]) -> None:
    container = loop.node.started["csi-core"]
    socket = loop.node.path("csi-core", "/csi/csi.sock")
    for restart in range(RESTARTS):
        ended = container.kill() if restart % 2 else container.stop()
        assert restart % 2 or ended == 0, container.log()
        # With the driver gone: a pod does not need it to write.
        assert all(writer.progresses() for writer in writers), [writer.error for writer in writers]
        container.start()
        container.wait_for_answer(socket)
        # Kubelet repeats its calls after a restart of its own; they find everything in place.
        for volume in used:
            loop.kubelet.publish(volume, "again")
            assert loop.kubelet.usage_bytes(volume) > 0
        assert all(writer.progresses() for writer in writers), [writer.error for writer in writers]


def test_what_an_uninstalled_driver_has_made_is_there_when_it_is_installed_again(image: Image) -> None:
    with machine() as host:
        with installed(LOOP, host, image) as before:
            used = published(before, "Filesystem")
            written = used.write()
            before.kubelet.unmount(used)
            before.kubelet.unstage(used.volume)
        # What is kept on the node between the two is the pool; kubelet's directory is emptied, too.
        shutil.rmtree(host.host_path("/var/lib/kubelet"))
        with installed(LOOP, host, image) as after:
            again = after.kubelet.mount(used.volume)
            assert again.read() == written
            after.kubelet.unmount(again)
            after.kubelet.unstage(used.volume)
            after.sidecars.delete(used.volume)


def test_a_new_container_knows_what_a_killed_one_has_made(loop: Driver) -> None:
    claim = {
        "metadata": {"name": "cut"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}},
    }
    volume = loop.sidecars.provision(claim, loop.of_kind("StorageClass")[0])
    container = loop.node.started["csi-core"]
    container.kill()
    container.start()
    container.wait_for_answer(loop.node.path("csi-core", "/csi/csi.sock"))
    listed = loop.kubelet.driver.controller.ListVolumes(pb.ListVolumesRequest(), timeout=10).entries
    assert [entry.volume.volume_id for entry in listed] == [volume.handle]
    used = loop.kubelet.mount(volume)
    assert used.write() == used.read()
    loop.kubelet.unmount(used)
    loop.kubelet.unstage(volume)
    loop.sidecars.delete(volume)
