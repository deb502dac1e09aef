"""Volumes: requests to make one, and how one is told to the CO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from csi_core._proto import csi_pb2 as pb
from csi_core.errors import InvalidArgument
from csi_core.model import ContentSource, SizeRange, SourceKind, Volume, VolumeCapability, VolumeSpec
from csi_core.router import join_id
from csi_core.server.codec.capability import check_served, decode_capabilities, decode_capability
from csi_core.server.codec.fields import check_id, check_map, check_name, require
from csi_core.server.codec.parameters import choose, claim_of, parse_mutable, parse_secrets, plain
from csi_core.server.codec.size import check_reachable, decode_size

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.router import Router

__all__ = ["decode_create_volume", "decode_expand", "decode_modify", "encode_source", "encode_volume"]


def decode_create_volume(request: pb.CreateVolumeRequest, router: Router) -> tuple[Backend, VolumeSpec]:
    """A request to make a volume, with the backend that its class names (CSI "CreateVolume").

    Raises:
        InvalidArgument: a field is missing, malformed, or not served by the backend.
        NotFound: the source's id is none of this driver's.
        OutOfRange: no size within the range can be made.
    """
    check_name(request.name, "name")
    capabilities = decode_capabilities(request.volume_capabilities)
    size = decode_size(request.capacity_range)
    check_map(request.parameters, "parameters")
    check_map(request.secrets, "secrets")
    check_map(request.mutable_parameters, "mutable_parameters")
    backend, given = router.by_parameters(plain(request.parameters))
    description = backend.description
    check_served(capabilities, description)
    check_reachable(size, description)
    chosen = choose(description, given, request.mutable_parameters)
    spec = VolumeSpec(
        name=request.name,
        size=size,
        capabilities=capabilities,
        parameters=chosen.parameters,
        recorded=chosen.recorded,
        mutable=chosen.mutable,
        recorded_mutable=chosen.recorded_mutable,
        secrets=parse_secrets(description, request.secrets),
        source=decode_source(request, router, backend) if request.HasField("volume_content_source") else None,
        claim=claim_of(request.parameters),
    )
    return backend, spec


def decode_source(request: pb.CreateVolumeRequest, router: Router, backend: Backend) -> ContentSource:
    """Where the content comes from: of the same backend, and of a kind that it serves."""
    message = request.volume_content_source
    kind = message.WhichOneof("type")
    if kind is None:
        raise InvalidArgument("volume_content_source: a snapshot or a volume is required")
    if kind == "snapshot":
        source_kind, identifier = SourceKind.SNAPSHOT, message.snapshot.snapshot_id
    else:
        source_kind, identifier = SourceKind.VOLUME, message.volume.volume_id
    check_id(identifier, f"volume_content_source.{kind}.{kind}_id")
    if source_kind not in backend.description.sources:
        raise InvalidArgument(f"backend {backend.name!r} cannot make a volume from a {kind}")
    owner, handle = router.by_id(identifier)
    if owner is not backend:
        raise InvalidArgument(
            f"the {kind} {identifier!r} belongs to backend {owner.name!r}, the new volume to {backend.name!r}; "
            "a volume can only be filled from its own backend"
        )
    return ContentSource(source_kind, handle)


def encode_source(backend_name: str, source: ContentSource) -> pb.VolumeContentSource:
    """The message for a content source."""
    identifier = join_id(backend_name, source.handle)
    if source.kind is SourceKind.SNAPSHOT:
        return pb.VolumeContentSource(snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=identifier))
    return pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id=identifier))


def encode_volume(backend_name: str, volume: Volume, topology: Sequence[pb.Topology]) -> pb.Volume:
    """How the CO is told of a volume.

    Args:
        backend_name: the configured name, which goes before the handle.
        volume: as the backend answered it.
        topology: where it can be used; empty for everywhere.
    """
    return pb.Volume(
        capacity_bytes=volume.size_bytes,
        volume_id=join_id(backend_name, volume.handle),
        volume_context=volume.context,
        content_source=None if volume.source is None else encode_source(backend_name, volume.source),
        accessible_topology=topology,
    )


def decode_modify(request: pb.ControllerModifyVolumeRequest, router: Router) -> tuple[Backend, str, Mapping[str, str]]:
    """The volume and the mutable parameters to put in force (CSI "ControllerModifyVolume").

    Raises:
        InvalidArgument: none given, an unknown key, or a bad value; the only code that marks a claim Infeasible.
    """
    check_id(request.volume_id, "volume_id")
    require(request.mutable_parameters, "mutable_parameters")
    check_map(request.mutable_parameters, "mutable_parameters")
    check_map(request.secrets, "secrets")
    backend, handle = router.by_id(request.volume_id)
    parse_mutable(backend.description, request.mutable_parameters)
    return backend, handle, request.mutable_parameters


def decode_expand(
    request: pb.ControllerExpandVolumeRequest | pb.NodeExpandVolumeRequest, router: Router
) -> tuple[Backend, str, SizeRange, VolumeCapability | None]:
    """The volume, the size wanted, and how it is used where the CO said so (CSI "ControllerExpandVolume")."""
    check_id(request.volume_id, "volume_id")
    check_map(request.secrets, "secrets")
    size = decode_size(request.capacity_range)
    capability = decode_capability(request.volume_capability) if request.HasField("volume_capability") else None
    backend, handle = router.by_id(request.volume_id)
    if capability is not None:
        check_served((capability,), backend.description)
    return backend, handle, size, capability
