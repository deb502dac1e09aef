"""Where volumes can be used: node-local ones only on this node, all others everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from csi_core._proto import csi_pb2 as pb
from csi_core.errors import NoSpace
from csi_core.model import Reach

if TYPE_CHECKING:
    from csi_core.facade import Backend

__all__ = ["NodeTopology"]


class NodeTopology:
    """The one topology key that node-local backends have: ``topology.<driver>/node``, with the node's name."""

    def __init__(self, driver_name: str, node_id: str) -> None:
        self._segments = {f"topology.{driver_name}/node": node_id}
        self.here = pb.Topology(segments=self._segments)
        self._only_here = (self.here,)

    def of(self, backend: Backend) -> tuple[pb.Topology, ...]:
        """Where volumes and snapshots of ``backend`` can be used; empty for everywhere."""
        return self._only_here if backend.description.reach is Reach.NODE_LOCAL else ()

    def holds(self, backend: Backend, segments: Mapping[str, str]) -> bool:
        """Whether a volume made by ``backend`` here can be used in ``segments``."""
        if backend.description.reach is Reach.NETWORK:
            return True
        return bool(segments) and all(self._segments.get(key) == value for key, value in segments.items())

    def check(self, backend: Backend, requirement: pb.TopologyRequirement) -> None:
        """Refuse a requirement that this node cannot meet; a preference alone is none.

        Raises:
            NoSpace: makes the scheduler choose another node (CSI "CreateVolume", RESOURCE_EXHAUSTED).
        """
        requisite = requirement.requisite
        if requisite and not any(self.holds(backend, topology.segments) for topology in requisite):
            wanted = "; ".join(str(dict(topology.segments)) for topology in requisite)
            raise NoSpace(
                f"volumes of backend {backend.name!r} can be made for {self._segments} only, not for {wanted}"
            )
