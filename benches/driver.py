"""The real server on its socket, with one loop pool, and the calls that the benches make."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from csi_core._proto import csi_pb2 as pb
from csi_core.testing.harness import AccessMode, ServerProcess, create_request, mounted

__all__ = ["CLIENTS", "MIB", "WRITER", "Driver"]

CLIENTS = 32
MIB = 1 << 20
WRITER = mounted("ext4", AccessMode.SINGLE_NODE_MULTI_WRITER)


class Driver:
    """A server of its own. Volumes are small unless a size is said: what is measured is the driver.

    Args:
        directory: where it has its pool, on the filesystem that is measured on.
        options: of the pool, further ones or others.
        provisioning: of the volumes.
    """

    def __init__(
        self, directory: Path, options: Mapping[str, object] | None = None, provisioning: str = "thin"
    ) -> None:
        self.directory = directory
        self.pool = directory / "pool"
        self.pool.mkdir(parents=True, exist_ok=True)
        self._numbers = itertools.count()
        self._parameters = {"provisioning": provisioning}
        pool = {"path": str(self.pool), "overcommit": 1000, "stopAt": 1.0, "warnAt": 1.0, **(options or {})}
        config = {
            "driver": {"name": "loop.bench.csi-core.dev", "nodeId": "bench-node"},
            "log": {"format": "json", "level": "warning"},
            "backends": {"loop": {"options": {"pools": {"bench": pool}}}},
        }
        self._server = ServerProcess(config, directory)

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    @property
    def node(self):
        return self._server.node

    # -- calls --------------------------------------------------------------------------------------

    def probe(self) -> None:
        """The RPC that does nothing: what gRPC itself and the core's interceptor cost."""
        self._server.identity.Probe(pb.ProbeRequest())

    def create(self, size_bytes: int = MIB) -> pb.Volume:
        request = create_request(
            f"pvc-{self.directory.name}-{next(self._numbers)}",
            size_bytes,
            capability=WRITER,
            parameters=self._parameters,
        )
        return self._server.controller.CreateVolume(request).volume

    def delete(self, volume: pb.Volume) -> None:
        self._server.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume.volume_id))

    def capacity(self) -> int:
        return self._server.controller.GetCapacity(pb.GetCapacityRequest()).available_capacity

    def page(self, token: str, entries: int = 1000) -> pb.ListVolumesResponse:
        return self._server.controller.ListVolumes(pb.ListVolumesRequest(max_entries=entries, starting_token=token))

    # -- many ---------------------------------------------------------------------------------------

    def burst(self, call: Callable[[], object], count: int) -> float:
        """Calls a second when ``CLIENTS`` clients make ``count`` calls as fast as they can."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            begin = time.perf_counter()
            list(clients.map(lambda _: call(), range(count)))
            return count / (time.perf_counter() - begin)

    def fill(self, volumes: int) -> None:
        """Create ``volumes`` volumes."""
        self.burst(self.create, volumes)

    # -- the process --------------------------------------------------------------------------------

    def resident_mib(self) -> float:
        """Resident memory of the server in MiB."""
        status = Path(f"/proc/{self._server.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    def restart_s(self) -> float:
        """Stop the server in order, start it again; seconds from its start until Probe says ready."""
        self._server.terminate()
        begin = time.perf_counter()
        self._server.restart()
        return time.perf_counter() - begin
