"""Killing the server at every fault point that an operation reaches, on any backend.

Which points an operation reaches is traced first, so the list of kills comes from the code: a new ``fault()`` call is
killed at without anybody remembering to.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from driver import Cluster
from scenario import Scenario

from csi_core.faults import FAULT_TRACE_VARIABLE, FAULT_VARIABLE
from csi_core.testing.devices import leak_check
from csi_core.testing.harness import ServerProcess

SETTLE_S = 20.0
BACKGROUND_S = 0.3
"""Background steps, such as freeing what was deleted, belong to the operation too; this long they may take."""


class World(ABC):
    """A backend's storage, and the server that serves it. What leaks is looked for below ``storage``."""

    storage: Path

    @abstractmethod
    def server(self, **environment: str) -> ServerProcess:
        """Start the server, with a fault armed or a trace asked for."""

    def cluster(self, server: ServerProcess, kubelet: Path) -> Cluster:
        """The calls that Kubernetes makes to this backend."""
        return Cluster(server, kubelet)

    @abstractmethod
    def left(self) -> list[str]:
        """Everything in the storage that holds somebody's data; nothing when all volumes are deleted."""


@dataclass(frozen=True)
class Place:
    """The kubelet's directories, the fault that the server looks up at each point, and the points it reached."""

    kubelet: Path
    fault: Path
    trace: Path


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Background clean-up may take a moment, never long."""
    deadline = time.monotonic() + SETTLE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def trace(cluster: Cluster, scenario: Scenario, place: Place) -> list[str]:
    """Let the operation succeed; answer the fault points it reaches, in order, the ones in the background included."""
    scenario.prepare(cluster)
    place.trace.write_text("")
    answer = scenario.act(cluster)
    time.sleep(BACKGROUND_S)
    reached = place.trace.read_text().splitlines()
    scenario.verify(cluster, answer)
    scenario.clean(cluster)
    return list(dict.fromkeys(reached))


def kill_at(cluster: Cluster, scenario: Scenario, point: str, place: Place) -> None:
    """Prepare, arm, act until killed, restart, repeat, verify, clean."""
    server = cluster.server
    scenario.prepare(cluster)
    place.fault.write_text(point)
    try:
        scenario.act(cluster)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE, error.details()
    wait_until(lambda: not server.running, "the server was not killed")
    scenario.survives(cluster)
    place.fault.write_text("")
    server.restart()
    scenario.verify(cluster, scenario.act(cluster))
    scenario.clean(cluster)


@contextmanager
def nothing_left(world: World, cluster: Cluster, available_bytes: int, directory: Path, when: str) -> Iterator[None]:
    """What runs inside leaves no volume, budget, data, loop device or mount behind."""
    with leak_check(world.storage), leak_check(directory):
        try:
            yield
        except Exception as error:
            error.add_note(f"when killed at: {when}")
            raise
        assert cluster.listed() == [], f"{when}: volumes or snapshots left"
        wait_until(lambda: cluster.available_bytes() == available_bytes, f"{when}: budget leaked")
        wait_until(lambda: not world.left(), f"{when}: storage leaked: {world.left()}")


def killed_at_every_step(world: World, kind: type[Scenario], directory: Path, known: Collection[str] = ()) -> list[str]:
    """After a kill at any step the repeated call gives the same volume, nothing leaks, and data is intact.

    Args:
        world: where.
        kind: what.
        directory: for the kubelet's directories and the files that arm and trace.
        known: points that it need not be killed at, because another operation was.

    Returns:
        The fault points it was killed at.
    """
    place = Place(directory / "kubelet", directory / "fault", directory / "trace")
    place.fault.touch()
    environment = {FAULT_VARIABLE: f"@{place.fault}", FAULT_TRACE_VARIABLE: str(place.trace)}
    with world.server(**environment) as server:
        cluster = world.cluster(server, place.kubelet)
        available_bytes = cluster.available_bytes()
        with nothing_left(world, cluster, available_bytes, directory, "nowhere"):
            reached = trace(cluster, kind(), place)
        assert reached, f"{kind.name} reaches no fault point: nothing would be tested"
        points = [point for point in reached if point not in known]
        for point in points:
            with nothing_left(world, cluster, available_bytes, directory, point):
                kill_at(cluster, kind(), point, place)
    print(f"{kind.name}: killed at {len(points)} points: {', '.join(points)}")
    return points
