"""A disk that cannot be read for a while: what it holds is neither taken for nothing nor formatted over."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_core.errors import StorageFailure
from csi_core.node.filesystems import Signature, probe

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_kernel("device-mapper")]

SECTORS = 128 << 11
NAME = "csi-unreadable"


def dmsetup(*arguments: str, table: str = "") -> None:
    environment = {**os.environ, "DM_DISABLE_UDEV": "1"}  # there is none in a guest
    subprocess.run(["dmsetup", *arguments], env=environment, check=True, input=table, text=True, capture_output=True)


@pytest.fixture
def device(scratch_disks: tuple[Path, ...]) -> Iterator[Path]:
    """All of it can be read."""
    dmsetup("create", NAME, table=f"0 {SECTORS} linear {scratch_disks[0]} 0")
    yield Path("/dev/mapper", NAME)
    dmsetup("remove", "--retry", NAME)


def cannot_be_read(disk: Path, first: int, sectors: int) -> None:
    """From the sector ``first`` on."""
    end = first + sectors
    parts = [(0, first, f"linear {disk} 0"), (first, sectors, "error"), (end, SECTORS - end, f"linear {disk} {end}")]
    table = "\n".join(f"{start} {length} {target}" for start, length, target in parts if length)
    dmsetup("suspend", NAME)
    dmsetup("reload", NAME, table=table)
    dmsetup("resume", NAME)


def test_what_cannot_be_read_is_not_nothing(device: Path, scratch_disks: tuple[Path, ...]) -> None:
    disk = scratch_disks[0]
    with device.open("r+b") as raw:
        raw.write(bytes(SECTORS * 512))
    assert probe(device) is None
    cannot_be_read(disk, SECTORS - 8, 8)
    with pytest.raises(StorageFailure, match="cannot be read, and so is not formatted"):
        probe(device)

    cannot_be_read(disk, 0, 0)
    subprocess.run(["mkfs.ext4", "-q", str(device)], check=True)
    cannot_be_read(disk, 0, 8)
    blkid = subprocess.run(["blkid", "-p", str(device)], check=False, capture_output=True)
    assert blkid.returncode == 2, "what blkid says where nothing is"
    with pytest.raises(StorageFailure, match="cannot be read, and so is not formatted"):
        probe(device)
    cannot_be_read(disk, 0, 0)
    assert probe(device) == Signature("ext4", "", "ext4 (filesystem)")
