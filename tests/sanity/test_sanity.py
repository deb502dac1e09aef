"""csi-sanity against the real server: everything on the simulator, and on loop all that its capabilities call for.

The numbers are pinned: a test that is no longer run is as much of a loss as one that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import csi_sanity
import pytest
from csi_sanity import Settings

from csi_core.testing.devices import leak_check, xfs_filesystem
from csi_core.testing.harness import ServerProcess

MIB = 1 << 20
GIB = 1 << 30

TESTS = 102
"""How many tests csi_sanity.VERSION has."""

NOT_ON_LOOP = {
    "ControllerPublishVolume not supported": 7,
    "Controller Publish, UnpublishVolume not supported": 2,
    "ControllerUnpublishVolume not supported": 1,
}
"""Tests, by the reason the suite gives, of what a node-local backend without mutable parameters does not serve."""


@dataclass(frozen=True)
class Case:
    """One run of the suite: what is configured, what the suite is told, and the tests it must leave out."""

    name: str
    settings: Settings
    skipped: Mapping[str, int]
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
LOOP = Settings(access_type="mount", size_bytes=320 * MIB, expand_to_bytes=640 * MIB)

SIM_CASES = (
    Case("sim-mount", SIM, {}),
    Case("sim-block", replace(SIM, access_type="block"), {}),
)
LOOP_CASES = (
    Case("loop-ext4", LOOP, NOT_ON_LOOP, default_filesystem="ext4"),
    Case("loop-xfs", LOOP, NOT_ON_LOOP, default_filesystem="xfs"),
    Case("loop-block", replace(LOOP, access_type="block"), NOT_ON_LOOP),
)

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def xfs() -> Iterator[Path]:
    """A host filesystem that has reflinks, as loop's snapshots like it."""
    with leak_check(), xfs_filesystem(8 * GIB) as path:
        yield path


@pytest.fixture(scope="session", autouse=True)
def csi_sanity_is_built(pytestconfig: pytest.Config) -> None:
    """Building takes a minute the first time: say so, past pytest's capturing."""
    terminal = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    if terminal and not csi_sanity.is_built():
        terminal.write_line(f"\nbuilding csi-sanity {csi_sanity.VERSION}")
    csi_sanity.build()


@pytest.mark.needs_go
@pytest.mark.parametrize("case", SIM_CASES, ids=lambda case: case.name)
def test_the_simulator_passes_every_test(case: Case, tmp_path: Path, record_property: Record) -> None:
    options = {
        "reach": "node-local",
        "maxVolumesPerNode": 3,
        "secretKey": SIM.secrets["secretKey"],
    }
    config = {
        "driver": {"name": "sim.sanity.csi-core.dev", "nodeId": "sanity-node", "alphaCapabilities": True},
        "node": {"mounts": "simulated"},
        "backends": {"sim": {"options": options}},
    }
    check(case, config, tmp_path, record_property)


@pytest.mark.needs_go
@pytest.mark.needs_root
@pytest.mark.needs_filesystem("xfs")
@pytest.mark.parametrize("case", LOOP_CASES, ids=lambda case: case.name)
def test_loop_passes_every_test_it_has_the_capabilities_for(
    case: Case, xfs: Path, tmp_path: Path, record_property: Record
) -> None:
    pool = xfs / case.name
    pool.mkdir()
    backend: dict[str, Any] = {"options": {"pools": {"main": {"path": str(pool), "allowLoopHost": True}}}}
    environment = {}
    if case.default_filesystem:
        backend["wrappers"] = [{"type": "default-filesystem", "options": {"fsType": case.default_filesystem}}]
        environment["PYTHONPATH"] = str(Path(__file__).parent / "wrapper")
    config = {
        "driver": {"name": "loop.sanity.csi-core.dev", "nodeId": "sanity-node", "alphaCapabilities": True},
        "backends": {"loop": backend},
    }
    check(case, config, tmp_path, record_property, environment)


def check(
    case: Case,
    config: Mapping[str, object],
    directory: Path,
    record_property: Record,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run the suite against a server with this configuration; it runs and passes what ``case`` says."""
    (server_directory := directory / "server").mkdir()
    with ServerProcess(config, server_directory, env=environment) as server:
        result = csi_sanity.run(server.endpoint, case.settings, directory)
        log = server.log_text()
    record_property("detail", f"{case.name}: {result}")
    assert not result.failed, (
        "\n\n".join(f"{name}\n{message}" for name, message in result.failed.items()) + f"\n\n{log}"
    )
    assert result.skipped == case.skipped
    assert result.passed == TESTS - sum(case.skipped.values())
