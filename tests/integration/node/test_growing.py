"""Filesystems that grow while they are mounted."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csi_core.errors import Busy
from csi_core.model import SizeRange
from csi_core.node import growth
from csi_core.run import spawned

from .capabilities import filesystem
from .conftest import TIMEOUT_S, Node, losetup

pytestmark = pytest.mark.needs_root

GIB = 1 << 30
XFS_LOG_BYTES = 64 << 20
"""What statvfs leaves out of the size of an XFS; ext4 leaves out its inode tables, which are smaller."""


class Grown:
    """A published volume whose device is made longer beneath it."""

    def __init__(self, node: Node, fs_type: str) -> None:
        node.images.make("v", size_bytes=GIB)
        node.stage(filesystem(fs_type))
        self.target = node.publish(filesystem(fs_type))
        self.image = node.images.image("v")
        self.fs_type = fs_type
        device = node.images.device("v")
        assert device is not None
        self.device = device

    def lengthen(self, size_bytes: int) -> None:
        os.truncate(self.image, size_bytes)
        losetup("--set-capacity", str(self.device))

    def grow(self) -> None:
        root = os.open(self.target, os.O_RDONLY)
        try:
            growth.grow(root, self.fs_type, self.device)
        finally:
            os.close(root)

    @property
    def size_bytes(self) -> int:
        status = os.statvfs(self.target)
        return status.f_blocks * status.f_frsize


def wait_for(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.002)


def test_growth_of_what_is_published(node: Node) -> None:
    for fs_type in ("xfs", "btrfs"):
        node.images.make(fs_type)
        node.stage(filesystem(fs_type), fs_type)
        target = node.publish(filesystem(fs_type), fs_type, handle=fs_type)
        reader = node.publish(filesystem(fs_type), f"{fs_type}-reader", read_only=True, handle=fs_type)
        for path in (target, reader):  # a reader's path will do: the filesystem is grown through a writable mount
            wanted = node.images.image(fs_type).stat().st_size + (64 << 20)
            for _ in range(2):
                assert node.volumes.expand(node.backend, fs_type, path, SizeRange(wanted), None) == wanted
            status = os.statvfs(target)
            assert status.f_blocks * status.f_frsize >= wanted - XFS_LOG_BYTES


def test_an_ext4_that_grew_when_it_was_staged_has_nothing_left_to_grow(node: Node) -> None:
    """Kubelet asks for a growth after each stage until one succeeds, of a driver without CAP_SYS_RESOURCE, too."""
    node.stage(filesystem())
    node.unstage()
    wanted = 2 * node.images.image("v").stat().st_size
    os.truncate(node.images.image("v"), wanted)
    node.stage(filesystem())
    target = node.publish(filesystem())
    assert node.volumes.expand(node.backend, "v", target, SizeRange(wanted), None) == wanted
    status = os.statvfs(target)
    assert status.f_blocks * status.f_frsize > wanted * 0.8


def test_an_ext4_that_cannot_use_the_last_of_its_device_has_nothing_left_to_grow(node: Node) -> None:
    """A block group that would have no room for files is left out; it is not looked for at each stage."""
    node.images.make("v", size_bytes=GIB)
    node.stage(filesystem())
    target = node.publish(filesystem())
    os.truncate(node.images.image("v"), GIB + (1 << 20))
    for _ in range(2):
        assert node.volumes.expand(node.backend, "v", target, SizeRange(GIB + (1 << 20)), None) == GIB + (1 << 20)
    node.unpublish()
    node.unstage()
    checks = spawned().get("e2fsck", 0)
    node.stage(filesystem())
    assert spawned().get("e2fsck", 0) == checks


@pytest.mark.parametrize("fs_type", ["xfs", "btrfs"])  # ext4 in a guest, see tests/kernel
def test_two_growths_of_one_filesystem_wait_for_each_other(node: Node, fs_type: str) -> None:
    """An elastic volume grows on its own, also beside a call; the kernel refuses the second of two at once."""
    volume = Grown(node, fs_type)
    with ThreadPoolExecutor(4) as growers:
        for size_gib in range(2, 40):
            volume.lengthen(size_gib * GIB)
            for grown in [growers.submit(volume.grow) for _ in range(4)]:
                grown.result()
    assert volume.size_bytes > 0.95 * size_gib * GIB


def test_btrfs_that_is_balanced_does_not_pretend_to_have_grown(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ioctl then answers with a number that is no error's; and a balance takes as long as it takes."""
    monkeypatch.setattr(growth, "_UNDER_WAY_S", 0.0)
    volume = Grown(node, "btrfs")
    (volume.target / "data").write_bytes(os.urandom(1 << 20) * 400)
    os.sync()
    volume.lengthen(2 * GIB)
    (known,) = Path("/sys/fs/btrfs").glob(f"*/devices/{volume.device.name}")
    doing = known.parents[1] / "exclusive_operation"
    with subprocess.Popen(["btrfs", "balance", "start", "-d", volume.target]) as balance:
        wait_for(lambda: doing.read_text() == "balance\n")
        with pytest.raises(Busy, match="a balance of it is under way"):
            volume.grow()
        assert volume.size_bytes == GIB
    assert balance.returncode == 0
    volume.grow()
    assert volume.size_bytes == 2 * GIB
