"""Packed volumes where the kernel has device-mapper: block devices without a loop device, and several runs joined."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from backends.loop import loopdev
from backends.loop.extents import dm
from backends.loop.extents.layout import ExtentsLayout
from backends.loop.options import SegmentOptions
from csi_core.errors import Busy, NoSpace
from csi_core.model import SizeRange
from csi_core.testing.devices import loop_device

from .packed import MIB, Packed, holes

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_kernel("device-mapper")]


@pytest.fixture
def small_disk(scratch_disks: tuple[Path, ...]) -> Iterator[Path]:
    """65 MiB of a disk, as a block device of its own."""
    pieces = [dm.Piece(scratch_disks[0].stat().st_rdev, 0, 65 * MIB)]
    device = dm.create("small-disk", "test-small-disk", pieces, read_only=False)
    yield device.node
    dm.remove("test-small-disk")


@pytest.fixture(params=["device", "file"])
def packed(request: pytest.FixtureRequest, host: Path) -> Iterator[Packed]:
    """A pool of 64 MiB on a block device, and one in a file."""
    with ExitStack() as stack:
        if request.param == "device":
            segment = SegmentOptions(path=request.getfixturevalue("small_disk"))
        else:
            segment = SegmentOptions(path=host / "segment", size=65 * MIB)
        packed = Packed(host, [segment])
        stack.callback(packed.close)
        yield packed


def write(device: Path, offset_bytes: int, content: bytes) -> None:
    descriptor = os.open(device, os.O_WRONLY)
    try:
        os.pwrite(descriptor, content, offset_bytes)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(device: Path, offset_bytes: int, length: int) -> bytes:
    descriptor = os.open(device, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(descriptor, length, offset_bytes)
    finally:
        os.close(descriptor)


def test_a_volume_in_several_pieces_is_one_device(packed: Packed) -> None:
    neighbours = holes(packed)
    for number, volume in enumerate(neighbours):
        write(packed.attach(volume), 0, bytes([number + 1]) * (8 * MIB))
    large = packed.create("large", 32 * MIB)
    assert packed.runs(large) == 4
    device = packed.attach(large)
    assert device.name.startswith("dm-")
    assert read(device, 0, 32 * MIB) == bytes(32 * MIB)
    content = os.urandom(32 * MIB)
    write(device, 0, content)
    packed.backend.stop()
    packed.start()
    assert packed.attach(large) == device, "it is found again"
    assert read(device, 0, 32 * MIB) == content
    for number, volume in enumerate(neighbours):
        assert set(read(packed.attach(volume), 0, 8 * MIB)) == {number + 1}
    with pytest.raises(NoSpace):
        packed.create("more", 2 * MIB)
    packed.delete(large)
    assert packed.pool.trash.emptied(20)
    again = packed.create("again", 32 * MIB)
    assert read(packed.attach(again), 0, 32 * MIB) == bytes(32 * MIB)


def test_an_expansion_in_use_takes_further_pieces(packed: Packed) -> None:
    neighbours = holes(packed)
    large = packed.create("large", 16 * MIB)
    device = packed.attach(large)
    content = os.urandom(16 * MIB)
    write(device, 0, content)
    assert packed.backend.expand_volume(large.handle, SizeRange(30 * MIB)) == 30 * MIB
    assert packed.attach(large) == device
    assert int((Path("/sys/block") / device.name / "size").read_text()) * 512 == 30 * MIB
    assert read(device, 0, 16 * MIB) == content
    assert read(device, 16 * MIB, 14 * MIB) == bytes(14 * MIB)
    assert neighbours


def test_a_block_device_needs_no_loop_device(host: Path, small_disk: Path) -> None:
    packed = Packed(host, [SegmentOptions(path=small_disk)])
    try:
        device = packed.attach(packed.create("a", 8 * MIB))
        assert device.name.startswith("dm-")
        assert (Path("/sys/block") / device.name / "queue/discard_max_bytes").read_text() == "0\n"
        assert not [found for found in loopdev.attached() if str(small_disk) in found.backing_path]
    finally:
        packed.close()


@pytest.mark.parametrize("kind", ["device", "file"])
def test_a_segment_becomes_longer_while_a_volume_in_pieces_is_in_use(
    host: Path, small_disk: Path, scratch_disks: tuple[Path, ...], kind: str
) -> None:
    path = small_disk if kind == "device" else host / "segment"
    packed = Packed(host, [SegmentOptions(path=path, size=65 * MIB)])
    try:
        holes(packed)
        large = packed.create("large", 32 * MIB)
        device = packed.attach(large)
        write(device, 0, b"x" * (32 * MIB))
        if kind == "device":
            dm.reload("test-small-disk", [dm.Piece(scratch_disks[0].stat().st_rdev, 0, 97 * MIB)], read_only=False)
        packed.grow([SegmentOptions(path=path, size=97 * MIB)])
        give_up_at = time.monotonic() + 20
        while packed.pool.ledger.snapshot().capacity_bytes < 96 * MIB:
            assert time.monotonic() < give_up_at, "the pool has not noticed"
            time.sleep(0.02)
        assert packed.backend.expand_volume(large.handle, SizeRange(60 * MIB)) == 60 * MIB
        content = os.urandom(28 * MIB)
        write(device, 32 * MIB, content)
        assert read(device, 32 * MIB, 28 * MIB) == content
        assert set(read(device, 0, 32 * MIB)) == {ord("x")}
    finally:
        packed.close()


def test_no_discard_gets_through_after_a_growth_either(host: Path) -> None:
    """The kernel sets a device's limits anew with each table."""
    image = host / "image"
    with image.open("wb") as file:
        file.truncate(65 * MIB)
    with loop_device(image) as disk:
        assert queue(disk, "discard_max_bytes") > 0
        packed = Packed(host, [SegmentOptions(path=disk)])
        try:
            volume = packed.create("a", 8 * MIB)
            device = packed.attach(volume)
            packed.backend.expand_volume(volume.handle, SizeRange(16 * MIB))
            assert int((Path("/sys/block") / device.name / "size").read_text()) * 512 == 16 * MIB
            assert queue(device, "discard_max_bytes") == 0
            with suppress(OSError):  # newer kernels let nobody raise it again
                (Path("/sys/block") / device.name / "queue/discard_max_bytes").write_text(str(MIB))
            assert packed.attach(volume) == device
            assert queue(device, "discard_max_bytes") == 0, "as after a kill just before it was set"
        finally:
            packed.close()


def queue(device: Path, name: str) -> int:
    return int((Path("/sys/block") / device.name / "queue" / name).read_text())


def test_a_file_of_one_piece_is_a_loop_device_and_the_shared_one_goes_with_its_last_user(host: Path) -> None:
    packed = Packed(host, [SegmentOptions(path=host / "segment", size=65 * MIB)])
    try:
        neighbours = holes(packed)
        assert packed.attach(neighbours[0]).name.startswith("loop")
        large = packed.create("large", 32 * MIB)
        packed.attach(large)
        whole = isinstance(packed.pool.layout, ExtentsLayout) and packed.pool.layout._segments[0].whole
        assert whole
        assert loopdev.find(whole)
        packed.delete(large)
        assert loopdev.find(whole) is None
    finally:
        packed.close()


def test_a_device_in_use_is_not_taken_away(packed: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dm, "_REMOVE_WAIT_S", 0.2)
    holes(packed)
    large = packed.create("large", 32 * MIB)
    device = packed.attach(large)
    with device.open("rb"), pytest.raises(Busy, match="held open"):
        packed.backend.detach_volume(large.handle)
    packed.backend.detach_volume(large.handle)
    assert packed.backend.find_source(large.handle) is None


@pytest.mark.parametrize("act", ["attach", "detach", "expand"])
def test_killed_at_each_step_of_joining(packed: Packed, act: str) -> None:
    """Forked and killed; the next call makes it whole."""
    from csi_core import faults

    holes(packed)
    large = packed.create("large", 16 * MIB)
    acts = {
        "attach": lambda: packed.attach(large),
        "detach": lambda: packed.backend.detach_volume(large.handle),
        "expand": lambda: packed.backend.expand_volume(large.handle, SizeRange(24 * MIB)),
    }
    points = {
        "attach": ("extents.join.before_create", "extents.join.after_create"),
        "detach": ("extents.join.before_remove", "extents.join.after_remove"),
        "expand": ("extents.join.before_reload", "extents.join.after_reload"),
    }
    for number, point in enumerate(points[act]):
        if act != "attach":
            write(packed.attach(large), 0, b"x" * MIB)
        packed.backend.stop()
        child = os.fork()
        if child == 0:
            faults._armed, faults._name, faults._left = True, point, 1  # type: ignore[misc]
            with suppress(BaseException):
                packed.start()
                if act == "expand":
                    packed.backend.expand_volume(large.handle, SizeRange((20 + 8 * number) * MIB))
                else:
                    acts[act]()
            os._exit(1)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), f"{point} was not reached"
        packed.start()
        acts[act]()
        if act != "detach":
            assert read(packed.attach(large), 0, MIB) == (b"x" * MIB if act == "expand" else bytes(MIB))
            if act == "attach":
                packed.backend.detach_volume(large.handle)
        else:
            assert packed.backend.find_source(large.handle) is None
