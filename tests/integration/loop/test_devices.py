"""Loop devices change hands: what one user leaves on a device must not reach the next, nor a late call either."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from backends.loop import loopdev
from backends.loop.loopdev import LoopDevice
from csi_core.errors import Busy

from .cluster import MIB, Cluster, command, write_block

BLKROSET = 0x125D
AUTOCLEAR = 4


def queue(node: Path, attribute: str) -> int:
    return int((Path("/sys/block") / node.name / "queue" / attribute).read_text())


def bound(cluster: Cluster, node: Path) -> LoopDevice:
    return next(device for device in loopdev.attached() if device.node == node)


def test_discard_is_forbidden_on_a_thick_volumes_device_that_a_killed_process_has_left(xfs: Cluster) -> None:
    volume = xfs.create("a", provisioning="thick")
    xfs.attach(volume)
    xfs.detach(volume)
    with xfs.image(volume).open("r+b") as image:  # killed between binding and forbidding
        left = loopdev.attach(image.fileno(), read_only=False, direct_io=True)
    assert queue(left.node, "discard_max_bytes")
    assert xfs.attach(volume).device == left.node
    assert queue(left.node, "discard_max_bytes") == 0


def test_a_thin_volume_can_discard_on_a_device_that_was_a_thick_ones(xfs: Cluster) -> None:
    thick, thin = xfs.create("thick", provisioning="thick"), xfs.create("thin")
    with xfs.image(thick).open("r+b") as image:
        left = loopdev.attach(image.fileno(), read_only=False, direct_io=True)
    loopdev.tune_discard(left, 0)
    command("losetup", "--detach", str(left.node))  # not by us, who would have mended it
    device = xfs.attach(thin).device
    assert queue(device, "discard_max_bytes") == 64 * MIB
    write_block(device, 0, bytes(range(256)) * 4 * 4096)
    assert xfs.image(thin).stat().st_blocks
    command("blkdiscard", str(device))
    assert xfs.image(thin).stat().st_blocks == 0
    xfs.detach(thin)
    node = xfs.attach(thick).device
    assert queue(node, "discard_max_bytes") == 0
    xfs.detach(thick)
    assert not node.exists() or queue(node, "discard_max_bytes")


def test_a_read_only_mark_ends_with_the_attachment(xfs: Cluster) -> None:
    volume = xfs.create("a")
    device = xfs.attach(volume).device
    descriptor = os.open(device, os.O_RDONLY)
    fcntl.ioctl(descriptor, BLKROSET, struct.pack("=i", 1))
    os.close(descriptor)
    xfs.detach(volume)
    assert (Path("/sys/block") / device.name / "ro").read_text() == "0\n"


def test_a_device_that_changed_hands_is_not_touched(xfs: Cluster) -> None:
    other = xfs.attach(xfs.create("other")).device
    present = bound(xfs, other)
    # as another call saw it a moment ago: bound to its own volume, and about to be let go
    elsewhere = replace(present.backing, inode=present.backing.inode + 1)
    stale = replace(present, backing=elsewhere, flags=present.flags | AUTOCLEAR)
    with pytest.raises(Busy):
        loopdev.keep(stale)
    with pytest.raises(Busy):
        loopdev.limit_size(stale, MIB)
    loopdev.detach(stale)
    assert bound(xfs, other) == present


def test_a_strangers_device_that_is_being_torn_down_is_passed_over(
    xfs: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.11 opening a device while it is unbound fails."""
    stranger = xfs.attach(xfs.create("stranger")).device
    volume = xfs.create("a")
    device = xfs.attach(volume).device
    opened = loopdev.opened

    @contextmanager
    def torn_down(number: int, mode: int = os.O_RDONLY) -> Iterator[int]:
        if stranger == Path(f"/dev/loop{number}"):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        with opened(number, mode) as descriptor:
            yield descriptor

    monkeypatch.setattr(loopdev, "opened", torn_down)
    assert xfs.attach(volume).device == device
    assert stranger not in {found.node for found in loopdev.attached()}
