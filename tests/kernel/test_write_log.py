"""The log of writes itself: a test that failed must not take those after it along."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .write_log import FLUSH, dmsetup, entries, logged

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_kernel("device-mapper")]

MIB = 1 << 20
DISK_BYTES = 16 * MIB
DEVICE = "csi-write-log"


@pytest.fixture
def disks(scratch_disks: tuple[Path, ...]) -> Iterator[tuple[Path, Path]]:
    """A disk and its log."""
    disk, log = scratch_disks[:2]
    yield disk, log
    for used in (disk, log):
        with used.open("rb+", buffering=0) as file:
            file.write(bytes(MIB))


def test_a_log_is_right_whatever_a_failed_test_has_left_open(disks: tuple[Path, Path]) -> None:
    disk, log = disks
    with log.open("rb") as replayed:
        replayed.read(MIB)  # as a replay that was never closed: the cache has what was in the log then
        with pytest.raises(subprocess.CalledProcessError), logged(disk, log, DISK_BYTES, DEVICE) as device:
            busy = device.open("rb+", buffering=0)
        with busy:
            with logged(disk, log, DISK_BYTES, DEVICE) as device, device.open("rb+", buffering=0) as file:
                file.write(b"x" * MIB)
                os.fsync(file.fileno())
            shown = list(entries(log))
            with pytest.raises(OSError, match="Input/output error"):
                busy.write(bytes(MIB))
                os.fsync(busy.fileno())
    assert sum(entry.length_bytes for entry in shown if not entry.flags & FLUSH) == MIB
    assert DEVICE not in dmsetup("ls")
