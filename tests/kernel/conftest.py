"""Fixtures for tests in a kernel that has what this machine's may lack."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_core.testing.devices import scratch_directory


@pytest.fixture
def host(scratch_disks: tuple[Path, ...]) -> Iterator[Path]:
    """An XFS on a disk, for pool.db and for segments in files."""
    disk = scratch_disks[1]
    subprocess.run(["mkfs.xfs", "-q", "-f", "-K", str(disk)], check=True)
    with scratch_directory() as path:
        subprocess.run(["mount", str(disk), str(path)], check=True)
        yield path
    subprocess.run(["wipefs", "--quiet", "--all", str(disk)], check=True)
