"""Elastic volumes where root may grow a mounted ext4, on a loop device and over device-mapper; and XFS over that."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from backends.loop.extents import dm, growth
from backends.loop.options import SegmentOptions
from csi_core.model import Volume
from csi_core.testing.devices import scratch_directory

from .packed import EXT4, MIB, Packed, holes

pytestmark = pytest.mark.needs_root

MKFS = {"ext4": ("mkfs.ext4", "-q", "-F", "-E", "nodiscard"), "xfs": ("mkfs.xfs", "-q", "-f", "-K")}
CHECK = {"ext4": ("e2fsck", "-f", "-n"), "xfs": ("xfs_repair", "-n")}


@dataclass(frozen=True)
class Sizes:
    """Of a pool, and of what is in it; XFS is never smaller than 300 MiB."""

    pool_bytes: int
    claimed_bytes: int
    initial_bytes: int
    written_bytes: int
    hole_bytes: int


SIZES = {
    "ext4": Sizes(401 * MIB, 200 * MIB, 40 * MIB, 160 * MIB, 50 * MIB),
    "xfs": Sizes(1201 * MIB, 540 * MIB, 304 * MIB, 440 * MIB, 150 * MIB),
}


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "_LEAST_SLACK_BYTES", 32 * MIB)
    monkeypatch.setattr(growth, "_AHEAD_S", 0.0)


@contextmanager
def disk(whole: Path, size_bytes: int) -> Iterator[Path]:
    """A piece of a disk, as a block device of its own."""
    pieces = [dm.Piece(whole.stat().st_rdev, 0, size_bytes)]
    device = dm.create("elastic-disk", "test-elastic-disk", pieces, read_only=False)
    try:
        yield device.node
    finally:
        dm.remove("test-elastic-disk")


@contextmanager
def mounted(packed: Packed, volume: Volume) -> Iterator[Path]:
    device = packed.attach(volume, EXT4)
    with scratch_directory() as path:
        subprocess.run(["mount", str(device), str(path)], check=True)
        yield path
    packed.backend.detach_volume(volume.handle)


def grows_ahead_of_its_writer(packed: Packed, volume: Volume, fs_type: str) -> None:
    """A writer crosses several growths, sees none of them, and what it wrote is there after a new mount."""
    subprocess.run([*MKFS[fs_type], str(packed.attach(volume, EXT4))], check=True)
    written, sizes = hashlib.sha256(), set()
    with mounted(packed, volume) as path, (path / "data").open("wb", buffering=0) as file:
        for number in range(SIZES[fs_type].written_bytes // MIB):
            block = os.urandom(MIB)
            taken_bytes = file.write(block)
            assert taken_bytes == MIB, f"megabyte {number} was not taken whole"
            written.update(block)
            if number % 4 == 3:  # this kernel may not be able to hold a writer to its disk
                os.fsync(file.fileno())
            sizes.add(os.statvfs(path).f_blocks)
    assert len(sizes) > 3, "it grew several times while it was written to"
    assert not list(packed.backend.diagnose())
    checked = subprocess.run([*CHECK[fs_type], str(packed.attach(volume, EXT4))], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with mounted(packed, volume) as path:
        assert hashlib.sha256((path / "data").read_bytes()).digest() == written.digest()


@pytest.mark.needs_kernel("ext4-growth")
def test_ext4_on_a_loop_device(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dm, "available", lambda: False)
    sizes = SIZES["ext4"]
    packed = Packed(host, [SegmentOptions(path=host / "segment", size=sizes.pool_bytes)])
    try:
        volume = packed.create_elastic("db", sizes.claimed_bytes, sizes.initial_bytes)
        assert packed.attach(volume, EXT4).name.startswith("loop")
        grows_ahead_of_its_writer(packed, volume, "ext4")
        assert packed.runs(volume) == 1
    finally:
        packed.close()


@pytest.mark.needs_kernel("device-mapper")
@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_over_pieces_of_a_block_device(host: Path, scratch_disks: tuple[Path, ...], fs_type: str) -> None:
    sizes = SIZES[fs_type]
    with disk(scratch_disks[0], sizes.pool_bytes) as segment:
        packed = Packed(host, [SegmentOptions(path=segment)])
        try:
            holes(packed, sizes.hole_bytes)
            volume = packed.create_elastic("db", sizes.claimed_bytes, sizes.initial_bytes)
            assert packed.attach(volume, EXT4).name.startswith("dm-")
            grows_ahead_of_its_writer(packed, volume, fs_type)
            assert packed.runs(volume) > 3, "it took every hole"
        finally:
            packed.close()
