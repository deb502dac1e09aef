"""csi-sanity on real logical volumes: mounted and raw, linear, mirrored and thin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from csi_sanity import Settings
from sanity_case import NOT_ON_ONE_NODE, TOPOLOGY, Case, Record, check
from volume_group import clear, lvm, volume_group

from csi_core.testing.devices import leak_check

pytestmark = [pytest.mark.needs_kernel("device-mapper"), pytest.mark.needs_go]

MIB = 1 << 20
GROUP = "csi-sanity"
POOL = "pool"

MOUNT = Settings(access_type="mount", size_bytes=32 * MIB, expand_to_bytes=64 * MIB, left_out=(TOPOLOGY,))
CASES = tuple(
    Case(f"lvm-{kind}-{access}", replace(MOUNT, access_type=access, parameters={"type": kind}), NOT_ON_ONE_NODE)
    for kind in ("linear", "raid1", "thin")
    for access in ("mount", "block")
)


@pytest.fixture(scope="module")
def group(scratch_disks: tuple[Path, ...]) -> Iterator[str]:
    """A volume group on two disks, with a thin pool."""
    with volume_group(scratch_disks[4:6], GROUP, 2 << 30) as name:
        lvm("lvcreate", "-y", "--type=thin-pool", "-L", "1g", "--poolmetadatasize=16m", "-n", POOL, name)
        yield name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_test_that_the_capabilities_call_for_passes(
    case: Case, group: str, tmp_path: Path, record_property: Record
) -> None:
    options = {"classes": {"main": {"volumeGroup": group, "thinPools": {POOL: {"overcommit": 4}}}}}
    config = {
        "driver": {"name": "lvm.sanity.csi-core.dev", "nodeId": "sanity-node", "alphaCapabilities": True},
        "backends": {"lvm": {"options": options}},
    }
    with leak_check(tmp_path):
        check(case, config, tmp_path, record_property)
    clear(group, keep=[POOL])
