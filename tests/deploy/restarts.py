"""Writers that a node plugin's restarts must not disturb."""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from installed import Driver
from kubelet import PodVolume

__all__ = ["published", "run_through_ten_restarts", "withdrawn"]

RESTARTS = 10
BLOCK_BYTES = 64 << 10
BLOCKS = 512
PAUSE_S = 0.01
"""Between two blocks: without it a writer takes half of a guest's one CPU from the driver that starts beside it."""


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
                    time.sleep(PAUSE_S)
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
    volume = driver.sidecars.provision(claim, driver.of_kind("StorageClass")[0])
    if driver.csi_driver["spec"]["attachRequired"]:
        driver.sidecars.attach(volume, driver.node_id)
    return driver.kubelet.mount(volume)


def withdrawn(driver: Driver, used: PodVolume) -> None:
    """Its pod is gone, and so is the volume."""
    driver.kubelet.unmount(used)
    driver.kubelet.unstage(used.volume)
    if driver.csi_driver["spec"]["attachRequired"]:
        driver.sidecars.detach(used.volume, driver.node_id)
    driver.sidecars.delete(used.volume)


def run_through_ten_restarts(driver: Driver, used: Sequence[PodVolume]) -> None:
    """Write to volumes meanwhile: without an error, and everything acknowledged is there, on the storage too.

    Every other restart is a SIGTERM (an upgrade) or a SIGKILL (out of memory); each starts a new container.
    """
    writers = [Writer(volume.path if volume.volume.block else volume.path / "database") for volume in used]
    with ExitStack() as stack:
        for writer in writers:
            writer.start()
            stack.callback(writer.stop)
        _restart_ten_times(driver, used, writers)
    for volume, writer in zip(used, writers, strict=True):
        assert writer.error is None
        writer.verify()
        driver.kubelet.unmount(volume)
        driver.kubelet.unstage(volume.volume)
        # And on the storage itself, not only in the page cache of a mount that was never taken away.
        again = driver.kubelet.mount(volume.volume)
        writer.path = again.path if volume.volume.block else again.path / "database"
        writer.verify()
        withdrawn(driver, again)


def _restart_ten_times(driver: Driver, used: Sequence[PodVolume], writers: Sequence[Writer]) -> None:
    container = driver.node.started["csi-core"]
    socket = driver.node.path("csi-core", "/csi/csi.sock")
    for restart in range(RESTARTS):
        ended = container.kill() if restart % 2 else container.stop()
        assert restart % 2 or ended == 0, container.log()
        # With the driver gone: a pod does not need it to write.
        assert all(writer.progresses() for writer in writers), [writer.error for writer in writers]
        container.start()
        container.wait_for_answer(socket)
        # Kubelet repeats its calls after a restart of its own; they find everything in place.
        for volume in used:
            driver.kubelet.publish(volume, "again")
            assert driver.kubelet.usage_bytes(volume) > 0
        assert all(writer.progresses() for writer in writers), [writer.error for writer in writers]
