"""ValidateVolumeCapabilities: would this volume do for that use?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from csi_core._proto import csi_pb2 as pb
from csi_core.errors import InvalidArgument
from csi_core.server.codec.capability import decode_capabilities, unserved
from csi_core.server.codec.fields import check_id, check_map
from csi_core.server.codec.parameters import plain
from csi_core.server.driver import Driver, existing_volume

if TYPE_CHECKING:
    from csi_core.model import Volume

__all__ = ["validate"]


def validate(driver: Driver, request: pb.ValidateVolumeCapabilitiesRequest) -> pb.ValidateVolumeCapabilitiesResponse:
    """Confirm what was asked, or say why not (CSI "ValidateVolumeCapabilities").

    Raises:
        InvalidArgument: a field is missing or malformed.
        NotFound: there is no such volume.
    """
    check_id(request.volume_id, "volume_id")
    capabilities = decode_capabilities(request.volume_capabilities)
    for field in ("volume_context", "parameters", "mutable_parameters", "secrets"):
        check_map(getattr(request, field), field)
    backend, handle = driver.router.by_id(request.volume_id)
    volume = existing_volume(backend, handle)
    reasons = [reason for c in capabilities if (reason := unserved(c, backend.description))]
    reasons += _other_than(volume.context, plain(request.volume_context), "volume_context")
    reasons += _other_parameters(driver, volume, backend.name, request)
    if reasons:
        return pb.ValidateVolumeCapabilitiesResponse(message="; ".join(reasons))
    return pb.ValidateVolumeCapabilitiesResponse(
        confirmed=pb.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_context=request.volume_context,
            volume_capabilities=request.volume_capabilities,
            parameters=request.parameters,
            mutable_parameters=request.mutable_parameters,
        )
    )


def _other_parameters(
    driver: Driver, volume: Volume, backend_name: str, request: pb.ValidateVolumeCapabilitiesRequest
) -> list[str]:
    try:
        named, given = driver.router.by_parameters(plain(request.parameters))
    except InvalidArgument as error:
        return [str(error)]
    in_force = {**volume.recorded, **volume.recorded_mutable}
    reasons = _other_than(in_force, {**given, **request.mutable_parameters}, "parameter")
    if "backend" in request.parameters and named.name != backend_name:
        reasons.append(f"the volume is of backend {backend_name!r}")
    return reasons


def _other_than(there: Mapping[str, str], wanted: Mapping[str, str], what: str) -> list[str]:
    return [
        f"{what} {key!r} is {there.get(key)!r}, not {value!r}"
        for key, value in wanted.items()
        if there.get(key) != value
    ]
