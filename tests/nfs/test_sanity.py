"""csi-sanity on NFS volumes, with controller publish, in both modes: everything but raw block is served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from csi_sanity import Settings
from export_server import Disks, local_server
from nfs_world import MODES, NODE, options_of
from sanity_case import Case, Record, check

pytestmark = [pytest.mark.needs_kernel("nfs"), pytest.mark.needs_go]

MIB = 1 << 20
SETTINGS = Settings(access_type="mount", size_bytes=16 * MIB, expand_to_bytes=32 * MIB)
NOT_SERVED = {
    "ControllerModifyVolume not supported": 6,
    "Modify volume not supported": 1,
    "Modify Volume not supported": 1,
    "GroupControllerService not supported": 6,
    "testnodevolumeattachlimit not enabled": 1,
}
"""NFS volumes have no mutable parameters, no snapshots of groups and no limit for a node."""


@pytest.fixture(scope="module")
def disks(scratch_disks: tuple[Path, ...]) -> Iterator[Disks]:
    with local_server({"xfs": scratch_disks[5]}) as disks:
        yield disks


@pytest.mark.parametrize("mode", MODES)
def test_every_test_that_the_capabilities_call_for_passes(
    mode: str, disks: Disks, tmp_path: Path, record_property: Record
) -> None:
    with options_of(mode, disks, tmp_path) as (options, _):
        config = {
            "driver": {"name": "nfs.sanity.csi-core.dev", "nodeId": NODE, "alphaCapabilities": True},
            "backends": {"nfs": {"options": options}},
        }
        check(Case(f"nfs-{mode}", SETTINGS, NOT_SERVED), config, tmp_path, record_property)
