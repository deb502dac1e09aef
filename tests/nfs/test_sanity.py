"""csi-sanity on NFS volumes, with controller publish, in both modes: everything but raw block is served."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from csi_sanity import Settings
from export_server import Disks, local_server
from nfs_world import MODES, NODE, options_of
from sanity_case import Case, Record, check

pytestmark = [pytest.mark.needs_kernel("nfs"), pytest.mark.needs_go]

MIB = 1 << 20
SETTINGS = Settings(access_type="mount", size_bytes=16 * MIB, expand_to_bytes=32 * MIB, attach_limit=True)
MUTABLE = {"export": {"squash": "root"}, "share": {"onDelete": "delete"}}
VOLUMES_PER_NODE = 3


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
            "backends": {"nfs": {"options": {**options, "maxVolumesPerNode": VOLUMES_PER_NODE}}},
        }
        settings = replace(SETTINGS, mutable_parameters=MUTABLE[mode])
        check(Case(f"nfs-{mode}", settings), config, tmp_path, record_property)
