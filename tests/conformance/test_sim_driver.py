"""The simulator behind a real server, without root: mounts are simulated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backends.sim.plugin import SimBackend
from csi_core._proto import csi_pb2 as pb
from csi_core.testing.driver import DriverCase, DriverContract
from csi_core.testing.harness import ServerProcess, create_request

SECRET = "open-sesame-31c7"


class TestSimDriver(DriverContract):
    """A network driver that serves everything."""

    plugin = SimBackend
    kernel_mounts = False
    reach = "network"

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
        options = {
            "directory": str(tmp_path_factory.mktemp("storage")),
            "reach": cls.reach,
            "nodes": ["node-b"],
            "secretKey": SECRET,
        }
        config = {"node": {"mounts": "simulated"}, "backends": {"sim": {"options": options}}}
        with ServerProcess(config, tmp_path_factory.mktemp("server")) as server:
            yield server

    @pytest.fixture
    def case(self, server: ServerProcess, tmp_path: Path) -> DriverCase:
        return DriverCase(
            server,
            tmp_path,
            backend="sim",
            secrets={"secretKey": SECRET},
            mutable=({"iops": "1000"}, {"tier": "fast"}),
        )


class TestSimNodeLocalDriver(TestSimDriver):
    """A node-local one: expansion is the node's, volumes have a topology. Restarts are no different."""

    reach = "node-local"
    test_killed_after_every_step = None
    test_restarted_after_every_step = None

    def test_topology(self, driver: DriverCase) -> None:
        volume = driver.create("data")
        info = driver.server.node.NodeGetInfo(pb.NodeGetInfoRequest())
        assert dict(info.accessible_topology.segments) == {"topology.test.csi-core.dev/node": "node-a"}
        assert list(volume.accessible_topology) == [info.accessible_topology]


def test_probe_while_every_worker_is_busy(tmp_path: Path) -> None:
    """Probe answers within 50 ms although more calls wait than there are workers."""
    config = {
        "server": {"workers": 4},
        "node": {"mounts": "simulated"},
        "backends": {"sim": {"options": {"latencySeconds": {"create_volume": 1.0}}}},
    }
    with ServerProcess(config, tmp_path) as server, ThreadPoolExecutor(16) as pool:
        busy = [pool.submit(server.controller.CreateVolume, create_request(f"data-{n}")) for n in range(16)]
        time.sleep(0.2)
        took_s = []
        for _ in range(40):
            start = time.perf_counter()
            assert server.identity.Probe(pb.ProbeRequest()).ready.value
            took_s.append(time.perf_counter() - start)
            time.sleep(0.02)
        assert not all(call.done() for call in busy), "the server was not busy any more"
        assert sorted(took_s)[len(took_s) * 9 // 10] < 0.050, f"slow probes: {sorted(took_s)[-5:]}"
        assert len({call.result().volume.volume_id for call in busy}) == 16


def test_storage_that_comes_late(tmp_path: Path) -> None:
    """A backend that is not there at first: Probe says not ready, and ready once it has come."""
    failures = {"start": {"error": "Unavailable", "times": 2}}
    config = {"node": {"mounts": "simulated"}, "backends": {"sim": {"options": {"failures": failures}}}}
    with ServerProcess(config, tmp_path, wait=False) as server:
        ready = server.identity.Probe(pb.ProbeRequest(), timeout=10, wait_for_ready=True).ready.value
        assert ready is False
        server.wait_until_ready()
        assert server.controller.CreateVolume(create_request("data")).volume.volume_id
