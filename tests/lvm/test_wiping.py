"""What others left on the disks is in no new volume, and what a volume held is on no disk once it is deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from group_case import BLOCK, Open, snapshot
from volume_group import MIB, lvm

from csi_core.errors import InvalidArgument
from csi_core.node import filesystems

pytestmark = pytest.mark.needs_kernel("device-mapper")


def holds(disk: Path, secret: bytes) -> bool:
    """Whether ``secret`` is anywhere in the first 128 MiB of a disk, past every cache: there is all the test makes."""
    with disk.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return secret in file.read(128 * MIB)


SECRET = b"the tenant's secret, 40 bytes of it ....."


@pytest.mark.parametrize("wipe", ["discard", "zero"])
def test_nothing_of_a_deleted_volume_is_left(opened: Open, scratch_disks: tuple[Path, ...], wipe: str) -> None:
    """Not in the volume's extents, nor in those of its copy-on-write snapshot, nor of copies."""
    case, disk = opened({"wipe": wipe}), scratch_disks[0]
    volume = case.create("data", BLOCK)
    with case.attached(volume, BLOCK) as content, content.path.open("r+b") as device:
        device.write(SECRET * (4 * MIB // len(SECRET)))
        os.fsync(device.fileno())
        taken = snapshot(case, "snap", volume)
        device.seek(0)
        device.write(bytes(4 * MIB))
        os.fsync(device.fileno())
        assert holds(disk, SECRET), "the test looks in the wrong place"
        copy = case.restore("copy", BLOCK, taken)
        before = content.checksum()
        case.backend.delete_snapshot(taken.handle, case.secrets)  # while its volume is attached
    assert case.checksum(volume, BLOCK) == before
    case.delete(copy)
    case.delete(volume)
    assert not holds(disk, SECRET)


def test_wipe_none_is_for_one_tenant(opened: Open) -> None:
    with pytest.raises(InvalidArgument, match="singleTenant"):
        opened({"wipe": "none"}).create("data", BLOCK)
    case = opened({"wipe": "none"}, singleTenant=True)
    volume = case.create("data", BLOCK)
    case.write(volume, BLOCK, "data")
    case.delete(volume)
    assert case.volumes() == []


def test_signatures_of_others_are_no_content(opened: Open, group: str) -> None:
    """A disk that held something before: wherever a signature can be, a new volume on it is empty to mkfs."""
    lvm("lvcreate", "-y", "-Wn", "-n", "old", "-L", "16m", group)
    with Path(f"/dev/{group}/old").open("r+b") as old:
        old.write(b"x" * 16 * MIB)
        os.fsync(old.fileno())
    lvm("lvremove", "-y", f"{group}/old")
    case = opened()
    volume = case.create("data", BLOCK)
    with case.attached(volume, BLOCK) as content, content.path.open("rb") as device:
        assert device.read(4 * MIB) == bytes(4 * MIB)
        device.seek(-2 * MIB, os.SEEK_END)
        assert device.read() == bytes(2 * MIB)
        assert filesystems.probe(content.path) is None
