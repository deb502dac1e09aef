"""The server is killed (SIGKILL) at every fault point of every operation, restarted, and the call repeated.

A fault point that no scenario reaches is an error.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import guest_features
import node_scenarios
import pytest
import snapshot_scenarios
import volume_scenarios
from driver import Cluster
from killing import killed_at_every_step, wait_until
from loop_world import LoopWorld
from scenario import Scenario, scenarios_of

from csi_core.faults import FAULT_TRACE_VARIABLE, FAULT_VARIABLE
from csi_core.testing.devices import xfs_filesystem
from csi_core.testing.fault_points import fault_points
from csi_core.testing.harness import ServerStoppedError

pytestmark = pytest.mark.needs_root
SCENARIOS = scenarios_of(volume_scenarios, snapshot_scenarios, node_scenarios)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopWorld]:
    """One host filesystem for the whole module: every scenario must leave it as it was."""
    directory = tmp_path_factory.mktemp("crash")
    with xfs_filesystem(6 << 30) as pool:
        yield LoopWorld(directory, pool)


REACHED: set[str] = set()
ELSEWHERE = ("sim.", "lvm.", "nfs.", "node.share.", "extents.")
"""Killed at by tests of their own; those of the layout extents in tests/integration/loop/test_extents_killed.py."""

RESIZED_UNMOUNTED = {"node.stage.before_resize", "node.stage.after_resize"}
"""Only where the kernel refuses to grow a mounted ext4 (no CAP_SYS_RESOURCE) is it grown unmounted."""


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda kind: kind.name)
def test_killed_at_every_step(world: LoopWorld, kind: type[Scenario], tmp_path: Path) -> None:
    REACHED.update(killed_at_every_step(world, kind, tmp_path))


def leave_nothing(world: LoopWorld, tmp_path: Path) -> None:
    """A new pool, in a directory that nobody has used."""
    shutil.rmtree(world.storage / "young", ignore_errors=True)


def leave_half_made_volume(world: LoopWorld, tmp_path: Path) -> None:
    """A thick volume whose creation was killed before it was ready."""
    with world.server(**{FAULT_VARIABLE: "loop.create.before_ready"}) as server, pytest.raises(grpc.RpcError):
        Cluster(server, tmp_path / "kubelet").create("half-made", provisioning="thick")


def leave_stranger(world: LoopWorld, tmp_path: Path) -> None:
    """A file that no record knows, where images are."""
    (world.storage / "young" / "images" / "stranger.img").write_bytes(b"somebody's data")


def leave_older_schema(world: LoopWorld, tmp_path: Path) -> None:
    """A pool as the first release has left it."""
    with sqlite3.connect(world.storage / "young" / "pool.db") as database:
        for table in ("extent_pool", "segment", "run"):
            database.execute(f"DROP TABLE IF EXISTS {table}")
        database.execute("PRAGMA user_version = 1")
    database.close()


@pytest.mark.parametrize("leave", [leave_nothing, leave_half_made_volume, leave_stranger, leave_older_schema])
def test_killed_while_starting(world: LoopWorld, leave: Callable[[LoopWorld, Path], None], tmp_path: Path) -> None:
    """Recovery can be killed at every step, too: the next start goes on from there."""
    young = LoopWorld(world.directory, world.storage, "young")
    path = tmp_path / "trace"
    with young.server():  # the pool exists from here on, but for leave_nothing, which removes it again
        pass
    leave(young, tmp_path)
    path.touch()
    with young.server(**{FAULT_TRACE_VARIABLE: str(path)}):
        points = list(dict.fromkeys(path.read_text().splitlines()))
    assert points, "starting reaches no fault point: nothing would be tested"
    REACHED.update(points)
    for point in points:
        leave(young, tmp_path)
        with pytest.raises(ServerStoppedError):
            young.server(**{FAULT_VARIABLE: point})
        with young.server() as server:
            cluster = Cluster(server, tmp_path / "kubelet")
            assert cluster.listed() == [], f"{point}: a half-made volume is shown"
            volume_id = cluster.create("half-made", provisioning="thick").volume_id
            assert cluster.listed() == [volume_id]
            cluster.delete(volume_id)
            wait_until(lambda: not young.left(), f"{point}: images leaked: {young.left()}")
    if leave is leave_stranger:
        kept = [p for p in (young.storage / "young").rglob("*stranger*") if p.read_bytes() == b"somebody's data"]
        assert kept, "a file of unknown origin is set aside, never deleted"


def test_no_fault_point_is_forgotten() -> None:
    """Every ``fault()`` in the core and in the loop backend was reached, hence killed at, by a scenario."""
    expected = {p for p in fault_points() if not p.startswith(ELSEWHERE)}
    if guest_features.has("ext4-growth"):
        expected -= RESIZED_UNMOUNTED
    assert expected, "no fault points found in the source"
    assert expected <= REACHED, f"no scenario reaches {sorted(expected - REACHED)}"
