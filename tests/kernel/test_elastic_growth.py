"""Elastic volumes where root may grow a mounted ext4, on a loop device and over device-mapper."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends.loop.extents import dm, growth
from backends.loop.options import SegmentOptions
from csi_core.model import Volume
from csi_core.testing.devices import scratch_directory

from .packed import EXT4, MIB, Packed, holes

pytestmark = pytest.mark.needs_root

POOL_BYTES = 401 * MIB
CLAIMED_BYTES = 200 * MIB
INITIAL_BYTES = 40 * MIB
WRITTEN_BYTES = 160 * MIB


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "_LEAST_SLACK_BYTES", 32 * MIB)
    monkeypatch.setattr(growth, "_AHEAD_S", 0.0)


@pytest.fixture
def disk(scratch_disks: tuple[Path, ...]) -> Iterator[Path]:
    """A piece of a disk, as a block device of its own."""
    pieces = [dm.Piece(scratch_disks[0].stat().st_rdev, 0, POOL_BYTES)]
    device = dm.create("elastic-disk", "test-elastic-disk", pieces, read_only=False)
    yield device.node
    dm.remove("test-elastic-disk")


@contextmanager
def mounted(packed: Packed, volume: Volume) -> Iterator[Path]:
    device = packed.attach(volume, EXT4)
    with scratch_directory() as path:
        subprocess.run(["mount", str(device), str(path)], check=True)
        yield path
    packed.backend.detach_volume(volume.handle)


def grows_ahead_of_its_writer(packed: Packed, volume: Volume) -> None:
    """A writer crosses several growths, sees none of them, and what it wrote is there after a new mount."""
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "nodiscard", str(packed.attach(volume, EXT4))], check=True)
    written, sizes = hashlib.sha256(), set()
    with mounted(packed, volume) as path, (path / "data").open("wb", buffering=0) as file:
        for number in range(WRITTEN_BYTES // MIB):
            block = os.urandom(MIB)
            taken_bytes = file.write(block)
            assert taken_bytes == MIB, f"megabyte {number} was not taken whole"
            written.update(block)
            if number % 4 == 3:  # this kernel may not be able to hold a writer to its disk
                os.fsync(file.fileno())
            sizes.add(os.statvfs(path).f_blocks)
    assert len(sizes) > 3, "it grew several times while it was written to"
    assert not list(packed.backend.diagnose())
    checked = subprocess.run(["e2fsck", "-f", "-n", str(packed.attach(volume, EXT4))], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout
    with mounted(packed, volume) as path:
        assert hashlib.sha256((path / "data").read_bytes()).digest() == written.digest()


@pytest.mark.needs_kernel("ext4-growth")
def test_ext4_on_a_loop_device(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dm, "available", lambda: False)
    packed = Packed(host, [SegmentOptions(path=host / "segment", size=POOL_BYTES)])
    try:
        volume = packed.create_elastic("db", CLAIMED_BYTES, INITIAL_BYTES)
        assert packed.attach(volume, EXT4).name.startswith("loop")
        grows_ahead_of_its_writer(packed, volume)
        assert packed.runs(volume) == 1
    finally:
        packed.close()


@pytest.mark.needs_kernel("device-mapper")
def test_ext4_over_pieces_of_a_block_device(host: Path, disk: Path) -> None:
    packed = Packed(host, [SegmentOptions(path=disk)])
    try:
        holes(packed, 50 * MIB)
        volume = packed.create_elastic("db", CLAIMED_BYTES, INITIAL_BYTES)
        assert packed.attach(volume, EXT4).name.startswith("dm-")
        grows_ahead_of_its_writer(packed, volume)
        assert packed.runs(volume) > 3, "it took every hole"
    finally:
        packed.close()
