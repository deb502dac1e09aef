"""What capacity promises, LVM makes: a volume of just that size, on disks that are uneven and in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from group_case import BLOCK
from volume_group import MIB, lvm, volume_group

from backends.lvm.plugin import LvmBackend
from csi_core.model import CapacityQuery
from csi_core.testing.contract import BackendCase

pytestmark = pytest.mark.needs_kernel("device-mapper")


@pytest.fixture(scope="module")
def uneven(scratch_disks: tuple[Path, ...]) -> Iterator[str]:
    """A group of disks of 64, 128 and 200 MiB in small extents; in the midst of each lies an LV of somebody's."""
    disks = scratch_disks[3:6]
    with volume_group(disks, "csi-uneven", 200 * MIB) as name:
        lvm("vgchange", "--physicalextentsize", "1m", name)
        for disk, size in zip(disks, ("64m", "128m", "200m"), strict=True):
            lvm("pvresize", "-y", "--setphysicalvolumesize", size, str(disk))
            lvm("lvcreate", "-y", "-an", "-Zn", "-Wn", "-n", "first", "-L", "16m", name, str(disk))
            lvm("lvcreate", "-y", "-an", "-Zn", "-Wn", "-n", f"used-{disk.name}", "-L", "8m", name, str(disk))
            lvm("lvremove", "-y", f"{name}/first")
        yield name


LINEAR: dict[str, str] = {}
STRIPED = {"type": "striped", "stripes": "3"}
MIRRORED = {"type": "raid1"}
CHECKED = {"type": "raid1", "integrity": "true"}


@pytest.mark.usefixtures("no_resync")
@pytest.mark.parametrize(
    ("allocation", "parameters"),
    [
        *(("normal", each) for each in (LINEAR, STRIPED, MIRRORED, CHECKED)),
        *((policy, each) for policy in ("cling", "contiguous") for each in (LINEAR, STRIPED, MIRRORED)),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value.values()) or "linear",
)
def test_the_largest_volume_is_made(uneven: str, allocation: str, parameters: dict[str, str]) -> None:
    options = {"classes": {"main": {"volumeGroup": uneven, "createOptions": [f"--alloc={allocation}"]}}}
    with BackendCase(lambda: LvmBackend(options), parameters=parameters, size_bytes=16 * MIB) as case:
        query = CapacityQuery(case.spec("any", BLOCK).parameters, (case.capability(BLOCK),))
        promised = case.backend.get_capacity(query).maximum_volume_bytes
        assert promised
        volume = case.create("data", BLOCK, promised)
        assert volume.size_bytes == promised
        case.delete(volume)
