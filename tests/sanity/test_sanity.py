"""csi-sanity against the real server: everything on the simulator, and on loop all that its capabilities call for.

The numbers are pinned: a test that is no longer run is as much of a loss as one that fails.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import csi_sanity
import pytest
from csi_sanity import Settings

from backends.loop.database import PoolDatabase
from backends.loop.extents import preparing
from backends.loop.options import SegmentOptions
from csi_core._proto import csi_pb2 as pb
from csi_core.testing.devices import leak_check, xfs_filesystem
from csi_core.testing.harness import ServerProcess, create_request

MIB = 1 << 20
GIB = 1 << 30

TESTS = 102
"""How many tests csi_sanity.VERSION has."""

NOT_ON_LOOP = {
    "ControllerExpandVolume not supported": 3,
    "ControllerPublishVolume not supported": 7,
    "Controller Publish, UnpublishVolume not supported": 2,
    "ControllerUnpublishVolume not supported": 1,
    "ControllerModifyVolume not supported": 6,
    "Modify volume not supported": 1,
    "Modify Volume not supported": 1,
}
"""Tests, by the reason the suite gives, of what a node-local backend without mutable parameters does not serve."""

TOPOLOGY = "should succeed when creating a snapshot with accessibility requirements"
"""Compares protobuf messages with their private size caches, and so fails every driver that answers with a topology.
What it means to test is tested below."""

GROWTH = "should work if node-expand is called after node-publish"
"""Growing ext4 while it is mounted takes CAP_SYS_RESOURCE, which some containers keep from their root."""


@dataclass(frozen=True)
class Case:
    """One run of the suite: what is configured, what the suite is told, and the tests it must leave out."""

    name: str
    settings: Settings
    not_served: Mapping[str, int] = field(default_factory=dict)
    default_filesystem: str = ""


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
    Case("loop-ext4", LOOP, NOT_ON_LOOP, default_filesystem="ext4"),
    Case("loop-xfs", LOOP, NOT_ON_LOOP, default_filesystem="xfs"),
    Case("loop-block", replace(LOOP, access_type="block"), NOT_ON_LOOP),
)
PACKED = replace(LOOP, parameters={"provisioning": "thick"})
PACKED_CASES = (
    Case("packed-xfs", PACKED, NOT_ON_LOOP, default_filesystem="xfs"),
    Case(
        "packed-block",
        replace(PACKED, access_type="block", size_bytes=64 * MIB, expand_to_bytes=128 * MIB),
        NOT_ON_LOOP,
    ),
)
CAP_SYS_RESOURCE = 1 << 24

Record = Callable[[str, object], None]


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
    # The suite keeps up to five volumes and a snapshot of each.
    segment = SegmentOptions(path=directory / "segment", size=14 * case.settings.size_bytes)
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


def may_grow_mounted_ext4() -> bool:
    """Whether this machine lets its root do it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) & CAP_SYS_RESOURCE)


def check(
    case: Case,
    config: Mapping[str, object],
    directory: Path,
    record_property: Record,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run the suite against a server with this configuration; it runs and passes what ``case`` says."""
    settings = case.settings
    if case.default_filesystem == "ext4" and not may_grow_mounted_ext4():
        settings = replace(settings, left_out=(*settings.left_out, GROWTH))
    with ServerProcess(config, directory / "server", env=environment) as server:
        result = csi_sanity.run(server.endpoint, settings, directory)
        log = server.log_text()
    record_property("detail", f"{case.name} {result}")
    assert not result.failed, (
        "\n\n".join(f"{name}\n{message}" for name, message in result.failed.items()) + f"\n\n{log}"
    )
    left_out = {csi_sanity.LEFT_OUT: len(settings.left_out)} if settings.left_out else {}
    assert result.skipped == {**case.not_served, **left_out}
    assert result.passed == TESTS - sum(result.skipped.values())
