"""Volume groups for the tests of the LVM backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from volume_group import clear, volume_group


@pytest.fixture(scope="session")
def shared_group(scratch_disks: tuple[Path, ...]) -> Iterator[str]:
    """A volume group on three disks that all tests use, one after the other."""
    with volume_group(scratch_disks[:3], "csi-test_vg") as name:
        yield name


@pytest.fixture
def group(shared_group: str) -> Iterator[str]:
    """The same, empty; what a test leaves there is taken away."""
    yield shared_group
    clear(shared_group)
