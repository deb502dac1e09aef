"""Volumes of the LVM backend on the tests' group, in few words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from volume_group import MIB, lvm

from backends.lvm import names
from csi_core.model import Snapshot, SnapshotSpec, Volume, VolumeMode
from csi_core.parameters import parse_parameters
from csi_core.testing.contract import BackendCase

BLOCK = VolumeMode.BLOCK
SIZE = 16 * MIB

Open = Callable[..., BackendCase]


def lv_of(volume: Volume) -> str:
    """Its LV's name."""
    return names.lv_name(volume.handle.partition(":")[2])


def snapshot(case: BackendCase, name: str, volume: Volume, **parameters: str) -> Snapshot:
    """A snapshot with parameters of its own."""
    model = case.backend.description.snapshot_parameters
    return case.backend.create_snapshot(
        SnapshotSpec(name, volume.handle, parse_parameters(model, parameters, "parameter"))
    ).value


@contextmanager
def thin_pool(group: str, size_mib: int, *more: str) -> Iterator[dict[str, object]]:
    """A thin pool; the settings of a class that has it."""
    lvm("lvcreate", "-y", "--type=thin-pool", "-L", f"{size_mib}m", "-n", "pool", *more, group)
    yield {"thinPools": {"pool": {"overcommit": 4}}}
