"""Requests to hand a volume to a node, or to a workload on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_core._proto import csi_pb2 as pb
from csi_core.errors import FailedPrecondition, InvalidArgument
from csi_core.model import PublishRequest, SizeRange, VolumeCapability, VolumeSpec
from csi_core.node.requests import NodePublishRequest, StageRequest
from csi_core.parameters import keys, parse_size
from csi_core.server.codec.capability import check_served, decode_capability
from csi_core.server.codec.fields import MAX_NODE_ID_BYTES, check_id, check_map, check_string, parse_path, require
from csi_core.server.codec.parameters import EPHEMERAL, choose, parse_secrets, plain

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.router import Router

__all__ = ["decode_ephemeral", "decode_node_publish", "decode_publish", "decode_stage", "is_ephemeral"]

_Publishing = pb.ControllerPublishVolumeRequest | pb.NodeStageVolumeRequest | pb.NodePublishVolumeRequest


def decode_publish(request: pb.ControllerPublishVolumeRequest, router: Router) -> tuple[Backend, PublishRequest]:
    """Access for a node (CSI "ControllerPublishVolume")."""
    check_id(request.volume_id, "volume_id")
    require(request.node_id, "node_id")
    check_string(request.node_id, "node_id", MAX_NODE_ID_BYTES)
    capability = _capability(request)
    backend, handle = router.by_id(request.volume_id)
    check_served((capability,), backend.description)
    return backend, PublishRequest(
        handle=handle,
        node_id=request.node_id,
        capability=capability,
        read_only=request.readonly,
        context=plain(request.volume_context),
        secrets=parse_secrets(backend.description, request.secrets),
    )


def decode_stage(request: pb.NodeStageVolumeRequest, router: Router) -> tuple[Backend, StageRequest]:
    """A volume to make ready on this node (CSI "NodeStageVolume")."""
    check_id(request.volume_id, "volume_id")
    staging_path = parse_path(request.staging_target_path, "staging_target_path")
    capability = _capability(request)
    check_map(request.publish_context, "publish_context")
    backend, handle = router.by_id(request.volume_id)
    check_served((capability,), backend.description)
    return backend, StageRequest(
        handle=handle,
        staging_path=staging_path,
        capability=capability,
        context=plain(request.volume_context),
        publish_context=dict(request.publish_context),
        secrets=parse_secrets(backend.description, request.secrets),
    )


def decode_node_publish(request: pb.NodePublishVolumeRequest, router: Router) -> tuple[Backend, NodePublishRequest]:
    """A staged volume for one workload (CSI "NodePublishVolume").

    Raises:
        InvalidArgument: a field is missing, malformed, or not served.
        FailedPrecondition: no staging path, though this driver stages its volumes.
    """
    check_id(request.volume_id, "volume_id")
    target_path = parse_path(request.target_path, "target_path")
    capability = _capability(request)
    check_map(request.publish_context, "publish_context")
    if not request.staging_target_path:
        raise FailedPrecondition(
            "staging_target_path is missing; call NodeStageVolume first and say where it was staged"
        )
    staging_path = parse_path(request.staging_target_path, "staging_target_path")
    backend, handle = router.by_id(request.volume_id)
    check_served((capability,), backend.description)
    return backend, NodePublishRequest(
        handle=handle,
        staging_path=staging_path,
        target_path=target_path,
        capability=capability,
        read_only=request.readonly,
        context=plain(request.volume_context),
        publish_context=dict(request.publish_context),
        secrets=parse_secrets(backend.description, request.secrets),
    )


def is_ephemeral(request: pb.NodePublishVolumeRequest) -> bool:
    """Whether kubelet asks for an inline volume, to be made now and deleted with the pod."""
    return request.volume_context.get(EPHEMERAL) == "true"


def decode_ephemeral(
    request: pb.NodePublishVolumeRequest, router: Router
) -> tuple[Backend, VolumeSpec, NodePublishRequest]:
    """An inline volume: its volume attributes are ``size``, ``backend``, and the backend's own parameters.

    Returns:
        The backend, the volume to make (named by its id), and where to publish it. The handle in the
        request is empty: the volume has none before it is made.

    Raises:
        InvalidArgument: a field is missing or malformed, or the backend serves no inline volumes.
    """
    check_id(request.volume_id, "volume_id")
    target_path = parse_path(request.target_path, "target_path")
    capability = _capability(request)
    backend, given = router.by_parameters(plain(request.volume_context))
    description = backend.description
    if not description.ephemeral:
        raise InvalidArgument(f"backend {backend.name!r} serves no inline ephemeral volumes; use a claim")
    check_served((capability,), description)
    attributes = dict(given)
    try:
        size_bytes = parse_size(attributes.pop("size", description.default_size_bytes))
    except ValueError as error:
        raise InvalidArgument(f"volume attribute 'size': {error}") from None
    try:
        chosen = choose(description, attributes, {})
    except InvalidArgument as error:
        if attributes.keys() <= {*keys(description.parameters), *keys(description.mutable)}:
            raise
        # the backend's models, which say what is known, do not have what the core takes out
        raise InvalidArgument(f"{error} (and for every inline volume: size, backend)") from None
    secrets = parse_secrets(description, request.secrets)
    spec = VolumeSpec(
        name=request.volume_id,
        size=SizeRange(size_bytes),
        capabilities=(capability,),
        parameters=chosen.parameters,
        recorded={**chosen.recorded, EPHEMERAL: "true"},
        mutable=chosen.mutable,
        recorded_mutable=chosen.recorded_mutable,
        secrets=secrets,
    )
    publish = NodePublishRequest(
        handle="",
        staging_path=None,
        target_path=target_path,
        capability=capability,
        read_only=request.readonly,
        secrets=secrets,
    )
    return backend, spec, publish


def _capability(request: _Publishing) -> VolumeCapability:
    """The fields that all three have, checked; the capability decoded."""
    if not request.HasField("volume_capability"):
        raise InvalidArgument("volume_capability is required")
    check_map(request.volume_context, "volume_context")
    check_map(request.secrets, "secrets")
    return decode_capability(request.volume_capability)
