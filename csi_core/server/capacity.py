"""GetCapacity: how much room there is, or 0 where such volumes cannot be made here at all."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from csi_core._proto import csi_pb2 as pb
from csi_core.errors import InvalidArgument
from csi_core.model import Capacity, CapacityQuery, Description
from csi_core.parameters import Parameters
from csi_core.server.codec.capability import decode_capability, unserved
from csi_core.server.codec.fields import check_map
from csi_core.server.codec.parameters import choose, plain
from csi_core.server.driver import Driver

__all__ = ["room_for"]

_NONE = Capacity(available_bytes=0)
_log = structlog.get_logger(__name__)


def room_for(driver: Driver, request: pb.GetCapacityRequest) -> Capacity:
    """Room for volumes like these, in this topology (CSI "GetCapacity").

    What cannot be made here has no room: another node's topology, capabilities that are not served, a backend that only
    other nodes have. Parameters that its backend refuses have the room of a volume without any: with none the scheduler
    would tell people of "not enough free storage"; so they get as far as CreateVolume, whose error names what is wrong.

    Raises:
        InvalidArgument: a malformed capability or a map above its limit.
        Unsupported: the backend does not know its capacity.
    """
    capabilities = tuple(decode_capability(c, "volume_capabilities") for c in request.volume_capabilities)
    check_map(request.parameters, "parameters")
    try:
        backend, given = driver.router.by_parameters(plain(request.parameters))
        parameters = _accepted(backend.description, given)
    except InvalidArgument as error:
        _log.info("no room for a class that this node does not serve", reason=str(error))
        return _NONE
    if request.HasField("accessible_topology") and not driver.topology.holds(
        backend, request.accessible_topology.segments
    ):
        return _NONE
    if any(unserved(capability, backend.description) for capability in capabilities):
        return _NONE
    return backend.get_capacity(CapacityQuery(parameters, capabilities))


def _accepted(description: Description, given: Mapping[str, str]) -> Parameters:
    try:
        return choose(description, given, {}).parameters
    except InvalidArgument as error:
        _log.info("a class with wrong parameters: what is made of it will be refused", reason=str(error))
        return choose(description, {}, {}).parameters
