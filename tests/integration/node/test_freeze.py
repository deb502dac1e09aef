"""Freezes hold, end, and never outlive their time."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_core.errors import FailedPrecondition, StorageFailure, TimedOut
from csi_core.node import freeze

from .capabilities import FILESYSTEMS, block, filesystem
from .conftest import Node

pytestmark = pytest.mark.needs_root


class Writer:
    """Writes and fsyncs a file in a thread; a freeze makes it hang."""

    def __init__(self, directory: Path) -> None:
        self.done = threading.Event()
        self._file = directory / "written"
        threading.Thread(target=self._write, daemon=True).start()

    def _write(self) -> None:
        with self._file.open("w") as file:
            file.write("x")
            file.flush()
            os.fsync(file.fileno())
        self.done.set()

    def hangs(self) -> bool:
        return not self.done.wait(0.2)

    def ends(self) -> bool:
        return self.done.wait(10)


@pytest.fixture
def targets(node: Node) -> Iterator[list[tuple[Path, Path]]]:
    """Devices with where they are published."""
    made = []
    for fs_type in FILESYSTEMS:
        node.images.make(fs_type)
        node.stage(filesystem(fs_type), fs_type)
        target = node.publish(filesystem(fs_type), fs_type, handle=fs_type)
        device = node.images.device(fs_type)
        assert device is not None
        made.append((device, target))
    yield made
    node.volumes.thaw_left_frozen()


Targets = list[tuple[Path, Path]]


def test_all_are_frozen_together_and_thawed(node: Node, targets: Targets) -> None:
    with node.volumes.frozen(tuple(device for device, _ in targets), 30.0):
        writers = [Writer(target) for _, target in targets]
        assert all(writer.hangs() for writer in writers)
    assert all(writer.ends() for writer in writers)
    assert not list(node.directory.rglob("*csi-core-frozen"))


def test_the_watchdog_thaws_and_the_work_is_thrown_away(node: Node, targets: Targets) -> None:
    began = time.monotonic()
    with (
        pytest.raises(TimedOut, match=r"0\.5 s"),
        node.volumes.frozen(tuple(device for device, _ in targets), 0.5),
    ):
        writers = [Writer(target) for _, target in targets]
        assert all(writer.ends() for writer in writers), "thawed while the work still goes on"
    assert time.monotonic() - began < 5
    assert not list(node.directory.rglob("*csi-core-frozen"))


def test_an_error_under_a_freeze_thaws(node: Node, targets: Targets) -> None:
    device, target = targets[0]
    with pytest.raises(ZeroDivisionError), node.volumes.frozen((device,), 30.0):
        _ = 1 / 0
    assert Writer(target).ends()


def test_what_a_killed_process_left_frozen_is_thawed_at_the_next_start(node: Node, targets: Targets) -> None:
    devices = tuple(device for device, _ in targets)
    ready, told = os.pipe()
    driver = os.fork()
    if driver == 0:
        with node.volumes.frozen(devices, 60.0):
            os.write(told, b"frozen")
            signal.pause()
        os._exit(0)
    assert os.read(ready, 6) == b"frozen"
    os.kill(driver, signal.SIGKILL)
    os.waitpid(driver, 0)
    writers = [Writer(target) for _, target in targets]
    records = [target.parent / f".{target.name}.csi-core-frozen" for _, target in targets]
    for writer, record in zip(writers, records, strict=True):
        assert writer.hangs() or not record.exists(), "frozen, unless another driver's start has thawed it already"
    node.volumes.thaw_left_frozen()
    assert all(writer.ends() for writer in writers)
    ends_at = time.monotonic() + 10
    while list(node.directory.rglob("*csi-core-frozen")):  # another driver's start may be at it
        assert time.monotonic() < ends_at
        node.volumes.thaw_left_frozen()


def test_a_freeze_of_somebody_else_is_left_alone(node: Node, targets: Targets) -> None:
    device, target = targets[0]
    subprocess.run(["fsfreeze", "--freeze", str(target)], check=True)
    try:
        with pytest.raises(FailedPrecondition, match="somebody else"), node.volumes.frozen((device,), 30.0):
            pass
        node.volumes.thaw_left_frozen()
        writer = Writer(target)
        assert writer.hangs()
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(target)], check=True)
    assert writer.ends()


def test_one_that_cannot_be_frozen_thaws_the_others(node: Node, targets: Targets) -> None:
    (first, first_target), (second, second_target), _ = targets
    subprocess.run(["fsfreeze", "--freeze", str(second_target)], check=True)
    try:
        with pytest.raises(FailedPrecondition), node.volumes.frozen((first, second), 30.0):
            pass
        assert Writer(first_target).ends()
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(second_target)], check=True)


def test_one_whose_record_cannot_be_made_is_not_held_open(node: Node) -> None:
    """Where the kubelet's disk is full, say: it could not be unmounted before the driver ended."""
    staging = node.stage(filesystem())
    device = node.images.device("v")
    assert device is not None
    record = freeze._record_path(staging)
    record.mkdir()
    with pytest.raises(StorageFailure, match="Is a directory"), node.volumes.frozen((device,), 60):
        pass
    record.rmdir()
    node.unstage()


def test_one_that_cannot_be_thawed_leaves_no_other_frozen(
    node: Node, targets: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    ioctl, failures = fcntl.ioctl, [errno.EIO]

    def fail_once(descriptor: int, request: int, argument: int = 0) -> int:
        if request == freeze._FITHAW and failures:
            raise OSError(failures.pop(), "failing disk")
        return ioctl(descriptor, request, argument)

    devices = tuple(device for device, _ in targets)
    with monkeypatch.context() as patched:
        patched.setattr(freeze.fcntl, "ioctl", fail_once)
        with pytest.raises(StorageFailure, match="failing disk"), node.volumes.frozen(devices, 30.0):
            pass
    writers = [Writer(target) for _, target in targets]
    frozen = [writer.hangs() for writer in writers].count(True)
    assert frozen <= 1, "the one whose thaw failed, unless another driver's start has thawed it already"
    node.volumes.thaw_left_frozen()
    assert all(writer.ends() for writer in writers)


def test_raw_block_is_flushed(node: Node) -> None:
    node.stage(block())
    target = node.publish(block())
    with target.open("r+b", buffering=0) as raw:
        raw.write(b"\x5a" * 4096)
        with node.volumes.frozen((node.images.device("v"),), 30.0):  # type: ignore[arg-type]
            assert node.images.image("v").read_bytes()[:4096] == b"\x5a" * 4096
