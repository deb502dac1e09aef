"""csi-sanity against the real server: everything on the simulator, and on loop all that its capabilities call for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import csi_sanity
import pytest
from csi_sanity import Settings
from sanity_case import NOT_ON_ONE_NODE, TOPOLOGY, Case, Record, check

from backends.loop.database import PoolDatabase
from backends.loop.extents import preparing
from backends.loop.options import SegmentOptions
from csi_core._proto import csi_pb2 as pb
from csi_core.testing.devices import leak_check, xfs_filesystem
from csi_core.testing.harness import ServerProcess, create_request

MIB = 1 << 20
GIB = 1 << 30

SIM = Settings(
    access_type="mount",
    size_bytes=64 * MIB,
    expand_to_bytes=128 * MIB,
    parameters={"provisioning": "thick"},
    mutable_parameters={"iops": "3000"},
    snapshot_parameters={"label": "sanity"},
    secrets={"secretKey": "correct horse"},
    attach_limit=True,
)
# 320 MiB: mkfs.xfs takes no less than 300.
LOOP = Settings(access_type="mount", size_bytes=320 * MIB, expand_to_bytes=640 * MIB, left_out=(TOPOLOGY,))

SIM_CASES = (
    Case("sim-mount", SIM),
    Case("sim-block", replace(SIM, access_type="block")),
)
LOOP_CASES = (
    Case("loop-ext4", LOOP, NOT_ON_ONE_NODE, default_filesystem="ext4"),
    Case("loop-xfs", LOOP, NOT_ON_ONE_NODE, default_filesystem="xfs"),
    Case("loop-block", replace(LOOP, access_type="block"), NOT_ON_ONE_NODE),
)
PACKED = replace(LOOP, parameters={"provisioning": "thick"}, size_bytes=64 * MIB, expand_to_bytes=128 * MIB)
PACKED_CASES = (
    Case("packed-ext4", PACKED, NOT_ON_ONE_NODE, default_filesystem="ext4"),
    Case("packed-block", replace(PACKED, access_type="block"), NOT_ON_ONE_NODE),
)


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A host filesystem that has reflinks, as loop's snapshots like it. No image may stay attached, nothing mounted."""
    with xfs_filesystem(8 * GIB) as path, leak_check(path), leak_check(tmp_path_factory.getbasetemp()):
        yield path


@pytest.fixture(scope="session")
def csi_sanity_is_built(pytestconfig: pytest.Config) -> None:
    """Building takes a minute the first time: say so, past pytest's capturing."""
    terminal = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    if terminal and not csi_sanity.is_built():
        terminal.write_line(f"\nbuilding csi-sanity {csi_sanity.VERSION}")
    csi_sanity.build()


@pytest.mark.needs_go
@pytest.mark.usefixtures("csi_sanity_is_built")
@pytest.mark.parametrize("case", SIM_CASES, ids=lambda case: case.name)
def test_the_simulator_passes_every_test(case: Case, tmp_path: Path, record_property: Record) -> None:
    options = {"maxVolumesPerNode": 3, "secretKey": SIM.secrets["secretKey"]}
    config = {
        "driver": {"name": "sim.sanity.csi-core.dev", "nodeId": "sanity-node", "alphaCapabilities": True},
        "node": {"mounts": "simulated"},
        "backends": {"sim": {"options": options}},
    }
    check(case, config, tmp_path, record_property)


@pytest.mark.needs_go
@pytest.mark.usefixtures("csi_sanity_is_built")
@pytest.mark.needs_root
@pytest.mark.needs_filesystem("xfs")
@pytest.mark.parametrize("case", LOOP_CASES, ids=lambda case: case.name)
def test_loop_passes_every_test_it_has_the_capabilities_for(
    case: Case, xfs: Path, tmp_path: Path, record_property: Record
) -> None:
    directory = xfs / case.name
    directory.mkdir()
    check_loop(case, {"path": str(directory), "allowLoopHost": True}, tmp_path, record_property)


@pytest.mark.needs_go
@pytest.mark.usefixtures("csi_sanity_is_built")
@pytest.mark.needs_root
@pytest.mark.needs_filesystem("xfs")
@pytest.mark.parametrize("case", PACKED_CASES, ids=lambda case: case.name)
def test_packed_loop_passes_the_same_tests(case: Case, xfs: Path, tmp_path: Path, record_property: Record) -> None:
    directory = xfs / case.name
    directory.mkdir()
    database = PoolDatabase(directory / "pool.db")
    # The suite keeps up to ten volumes and snapshots, and deletes faster than zeros are written.
    segment = SegmentOptions(path=directory / "segment", size=20 * case.settings.size_bytes)
    preparing.create(database, [segment], MIB, force=False, progress=lambda *_: None)
    database.close()
    pool = {"path": str(directory), "allowLoopHost": True, "layout": "extents"}
    check_loop(case, pool, tmp_path, record_property)
    shutil.rmtree(directory)


def check_loop(case: Case, pool: Mapping[str, object], tmp_path: Path, record_property: Record) -> None:
    """Run the suite against a server with this pool."""
    backend: dict[str, Any] = {"options": {"pools": {"main": pool}}}
    environment = {}
    if case.default_filesystem:
        backend["wrappers"] = [{"type": "default-filesystem", "options": {"fsType": case.default_filesystem}}]
        environment["PYTHONPATH"] = str(Path(__file__).parent / "wrapper")
    config = {
        "driver": {"name": "loop.sanity.csi-core.dev", "nodeId": "sanity-node", "alphaCapabilities": True},
        "backends": {"loop": backend},
    }
    check(case, config, tmp_path, record_property, environment)


def test_snapshots_of_node_local_volumes_name_the_node(tmp_path: Path) -> None:
    config = {
        "driver": {"name": "sim.sanity.csi-core.dev", "nodeId": "sanity-node", "alphaCapabilities": True},
        "node": {"mounts": "simulated"},
        "backends": {"sim": {"options": {"reach": "node-local"}}},
    }
    with ServerProcess(config, tmp_path) as server:
        here = server.node.NodeGetInfo(pb.NodeGetInfoRequest()).accessible_topology
        required = pb.TopologyRequirement(requisite=[here], preferred=[here])
        create = create_request("data", MIB)
        create.accessibility_requirements.CopyFrom(required)
        volume_id = server.controller.CreateVolume(create).volume.volume_id
        request = pb.CreateSnapshotRequest(name="s", source_volume_id=volume_id, accessibility_requirements=required)
        snapshot = server.controller.CreateSnapshot(request).snapshot
    assert dict(here.segments) == {"topology.sim.sanity.csi-core.dev/node": "sanity-node"}
    assert list(snapshot.accessible_topology) == [here]
