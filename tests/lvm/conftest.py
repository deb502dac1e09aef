"""Volume groups for the tests of the LVM backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from group_case import SIZE, Open
from volume_group import clear, volume_group

from backends.lvm.commands import Lvm
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
    """Opens a backend on the group, with settings of its class and parameters of volumes; the one before is closed."""
    cases: list[BackendCase] = []

    def close() -> None:
        while cases:
            cases.pop().__exit__(None, None, None)

    def open_case(parameters: dict[str, str] | None = None, **settings: object) -> BackendCase:
        close()
        options = {"classes": {"test": {"volumeGroup": group, **settings}}}
        case = BackendCase(lambda: LvmBackend(options), parameters=parameters or {}, size_bytes=SIZE)
        cases.append(case)
        return case

    yield open_case
    close()


@pytest.fixture
def no_resync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mirrors that count as in sync from the start, for tests of something else.

    The guests' kernel (6.1.176) has panicked in md's thread, and hung in its barrier, where a mirror was suspended or
    taken away in the middle of its first resync. LVM does so itself, within lvcreate, to add checksums.
    """
    change = Lvm.change

    def without(lvm: Lvm, command: str, *arguments: str) -> None:
        mirror = command == "lvcreate" and "--type=raid1" in arguments
        change(lvm, command, *(["--nosync"] if mirror else []), *arguments)

    monkeypatch.setattr(Lvm, "change", without)
