"""A restart of the server between any two calls of a volume's life."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from csi_core._proto import csi_pb2 as pb
from csi_core.model import SourceKind, VolumeMode
from csi_core.testing.contract.selection import Selection
from csi_core.testing.driver.case import DriverCase, Pod
from csi_core.testing.harness import from_snapshot, from_volume

__all__ = ["WalkTests"]

_CONTENT = b"restart" * 10_000


class WalkTests(Selection):
    """The whole life of a volume: after each step the server goes and comes back, and the step is made again."""

    def test_killed_after_every_step(self, driver: DriverCase, mode: VolumeMode) -> None:
        """SIGKILL: answers are lost, nothing else is."""

        def restart() -> None:
            driver.server.kill()
            driver.server.restart()

        self.walk(driver, mode, restart)

    def test_restarted_after_every_step(self, driver: DriverCase, mode: VolumeMode) -> None:
        """SIGTERM: what an update of the driver does."""

        def restart() -> None:
            assert driver.server.terminate() == 0, driver.server.log_tail()
            driver.server.restart()

        self.walk(driver, mode, restart)

    def walk(self, driver: DriverCase, mode: VolumeMode, restart: Callable[[], None]) -> None:
        """Make each step, restart, and make it again."""
        for step in self.steps(driver, mode):
            step()
            restart()
            step()
        assert driver.volume_ids() == []
        assert driver.snapshots() == []

    def steps(self, driver: DriverCase, mode: VolumeMode) -> Iterator[Callable[[], object]]:
        """The steps of the life, each with what must hold after it, made one after the other."""
        volume = yield from self.create(driver, "data", mode)
        pod = Pod(driver, volume.volume_id, mode)
        yield from (pod.stage, pod.publish, lambda: pod.write(_CONTENT))
        size_bytes = driver.size_bytes
        if self.grows(driver):
            size_bytes *= 2
            yield lambda: driver.grow(pod, size_bytes)
        copies = []
        if SourceKind.SNAPSHOT in self.sources:
            snapshot = driver.snapshot("snap", pod.volume_id)
            yield lambda: self.same(driver.snapshot("snap", pod.volume_id), snapshot)
            source = from_snapshot(snapshot.snapshot_id)
            copies.append((yield from self.create(driver, "restored", mode, size_bytes, source)))
            yield lambda: driver.delete_snapshot(snapshot.snapshot_id)
        if SourceKind.VOLUME in self.sources:
            source = from_volume(pod.volume_id)
            copies.append((yield from self.create(driver, "clone", mode, size_bytes, source)))
        yield from (pod.unpublish, pod.unstage)
        for each in (volume, *copies):
            yield from self.read_and_delete(driver, Pod(driver, each.volume_id, mode))

    def create(
        self,
        driver: DriverCase,
        name: str,
        mode: VolumeMode,
        size_bytes: int = 0,
        source: pb.VolumeContentSource | None = None,
    ) -> Generator[Callable[[], object], None, pb.Volume]:
        """The same volume, each time."""
        volume = driver.create(name, mode, size_bytes, source)
        yield lambda: self.same(driver.create(name, mode, size_bytes, source), volume)
        return volume

    def read_and_delete(self, driver: DriverCase, pod: Pod) -> Iterator[Callable[[], object]]:
        """Its data is there to the end."""
        yield pod.start
        yield lambda: self.same(pod.read(len(_CONTENT)), _CONTENT)
        yield pod.stop
        yield lambda: driver.delete(pod.volume_id)

    def same(self, found: object, expected: object) -> None:
        """Nothing was made anew, and nothing was lost."""
        assert found == expected

    def grows(self, driver: DriverCase) -> bool:
        """Whether volumes can grow, be it by the controller or on the node."""
        answer = driver.call(driver.server.node.NodeGetCapabilities, pb.NodeGetCapabilitiesRequest())
        kind = pb.NodeServiceCapability.RPC.EXPAND_VOLUME
        return any(capability.rpc.type == kind for capability in answer.capabilities)
