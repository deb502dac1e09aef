"""Volume groups for the tests of the LVM backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from group_case import SIZE, Open
from volume_group import clear, volume_group

from backends.lvm.plugin import LvmBackend
from csi_core.testing.contract import BackendCase


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


@pytest.fixture
def opened(group: str) -> Iterator[Open]:
    """Opens a backend on the group, with settings of its class and parameters of volumes."""
    cases: list[BackendCase] = []

    def open_case(parameters: dict[str, str] | None = None, **settings: object) -> BackendCase:
        options = {"classes": {"test": {"volumeGroup": group, **settings}}}
        case = BackendCase(lambda: LvmBackend(options), parameters=parameters or {}, size_bytes=SIZE)
        cases.append(case)
        return case

    yield open_case
    for case in cases:
        case.__exit__(None, None, None)
