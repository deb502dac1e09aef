"""Blank disks for tests of block devices, the same in a guest and on a machine that needs none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import guest_features
import pytest
from guest_machine import DISK_BYTES, SCRATCH_DISKS

from csi_core.testing.devices import loop_device, sparse_file

__all__ = ["scratch_disks"]


@pytest.fixture(scope="session")
def scratch_disks() -> Iterator[tuple[Path, ...]]:
    """Six disks of 8 GiB, blank at the start of the tier; a test that writes on one wipes it afterwards."""
    if guest_features.in_guest():
        yield tuple(map(Path, os.environ["CSICORE_SCRATCH_DISKS"].split(":")))
        return
    with ExitStack() as stack:
        images = [stack.enter_context(sparse_file(DISK_BYTES)) for _ in SCRATCH_DISKS]
        yield tuple(stack.enter_context(loop_device(image, 512)) for image in images)
