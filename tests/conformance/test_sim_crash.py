"""The simulator's server is killed at each of its own fault points; the repeated call finishes, and nothing is left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from csi_core._proto import csi_pb2 as pb
from csi_core.faults import FAULT_VARIABLE
from csi_core.model import VolumeMode
from csi_core.testing.driver import DriverCase
from csi_core.testing.fault_points import fault_points
from csi_core.testing.harness import ServerProcess, from_snapshot, from_volume

POINTS = [point for point in fault_points() if point.startswith("sim.")]
MODE = VolumeMode.BLOCK
CALLS = 11


def life(driver: DriverCase) -> Iterator[Callable[[], object]]:
    """Every mutating call that the simulator makes durable, each one repeatable until it has answered."""
    ids: dict[str, str] = {}

    def create(name: str, source: pb.VolumeContentSource | None = None) -> None:
        ids[name] = driver.create(name, MODE, source=source).volume_id

    def group() -> None:
        ids["group"] = driver.group("group", ids["data"], ids["clone"]).group_snapshot_id

    def delete_group() -> None:
        request = pb.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=ids["group"])
        driver.call(driver.server.group.DeleteVolumeGroupSnapshot, request)

    yield lambda: create("data")
    yield lambda: create("clone", from_volume(ids["data"]))
    yield lambda: ids.update(snap=driver.snapshot("snap", ids["data"]).snapshot_id)
    yield lambda: create("restored", from_snapshot(ids["snap"]))
    yield group
    yield lambda: driver.expand(ids["data"], 2 * driver.size_bytes, MODE)
    yield lambda: driver.delete_snapshot(ids["snap"])
    yield delete_group
    for name in ("data", "clone", "restored"):
        yield lambda name=name: driver.delete(ids[name])


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(point: str, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    config = {"node": {"mounts": "simulated"}, "backends": {"sim": {"options": {"directory": str(storage)}}}}
    killed = made = 0
    with ServerProcess(config, tmp_path, env={FAULT_VARIABLE: point}) as server:
        driver = DriverCase(server, tmp_path, backend="sim", size_bytes=1 << 20)
        for call in life(driver):
            try:
                call()
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error.details()
                server.restart(env={})
                killed += 1
                call()
            made += 1
        assert driver.volume_ids() == []
    assert made == CALLS
    assert killed == 1, f"{point} was never reached"
    assert list((storage / "content").iterdir()) == []
    assert not any(json.loads((storage / "records.json").read_bytes()).values())
