"""The Controller service: volumes. Snapshots and health have modules of their own beside this one.

Every handler is the same walk: decode, find the backend, take the locks, call the hook, encode.
"""
# ruff: noqa: ARG002, N802 - gRPC gives the methods their names and arguments

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from csi_core._proto import csi_pb2 as pb
from csi_core._proto.csi_pb2_grpc import ControllerServicer
from csi_core.locks import Key
from csi_core.model import ContentSource, Existing, SourceKind
from csi_core.router import MalformedId
from csi_core.server.capacity import room_for
from csi_core.server.codec.fields import MAX_NODE_ID_BYTES, check_id, check_map, check_string, not_negative, require
from csi_core.server.codec.parameters import parse_mutable, parse_secrets
from csi_core.server.codec.publish import decode_publish
from csi_core.server.codec.volume import decode_create_volume, decode_expand, decode_modify, encode_volume
from csi_core.server.compatibility import check_growth, check_not_elsewhere, check_same_volume, check_source
from csi_core.server.controller_health import HealthCalls
from csi_core.server.controller_snapshots import SnapshotCalls
from csi_core.server.driver import Driver, existing_volume, snapshot_key, volume_key, volume_name_key
from csi_core.server.pagination import list_through
from csi_core.server.validation import validate

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.model import Volume

__all__ = ["Controller"]

_KEPT_ENTRIES = 1000
"""A longer listing is encoded each time: it would occupy memory for good."""


class Controller(SnapshotCalls, HealthCalls, ControllerServicer):
    """Makes, deletes, lists, publishes, grows and modifies volumes."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        # The last listing and the answer made of it. Most listings find nothing new, and to compare volumes costs a
        # twentieth of encoding them; next to nothing where the backend answers the same objects again.
        self._kept_listing: tuple[list[tuple[Backend, Volume]], str, pb.ListVolumesResponse] | None = None

    def ControllerGetCapabilities(
        self, request: pb.ControllerGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> pb.ControllerGetCapabilitiesResponse:
        """What this service does; derived from the backends."""
        capability = pb.ControllerServiceCapability
        return pb.ControllerGetCapabilitiesResponse(
            capabilities=[
                capability(rpc=capability.RPC(type=capability.RPC.Type.Value(name)))
                for name in sorted(self._driver.capabilities.controller)
            ]
        )

    def CreateVolume(self, request: pb.CreateVolumeRequest, context: grpc.ServicerContext) -> pb.CreateVolumeResponse:
        """Make a volume, or answer the one that this name made before."""
        driver = self._driver
        backend, spec = decode_create_volume(request, driver.router)
        driver.topology.check(backend, request.accessibility_requirements)
        others = driver.router.others_finding_names(backend)
        with driver.locks.hold("CreateVolume", volume_name_key(spec.name), shared=_source_keys(backend, spec.source)):
            check_not_elsewhere(spec.name, backend, others)
            check_source(backend, spec)
            outcome = backend.create_volume(spec)
        if isinstance(outcome, Existing):
            check_same_volume(outcome.value, spec)
        return pb.CreateVolumeResponse(volume=self._encode(backend, outcome.value))

    def DeleteVolume(self, request: pb.DeleteVolumeRequest, context: grpc.ServicerContext) -> pb.DeleteVolumeResponse:
        """Delete a volume; what does not exist is deleted."""
        check_id(request.volume_id, "volume_id")
        check_map(request.secrets, "secrets")
        try:
            backend, handle = self._driver.router.by_id(request.volume_id)
        except MalformedId:
            return pb.DeleteVolumeResponse()
        secrets = parse_secrets(backend.description, request.secrets)
        with self._driver.locks.hold("DeleteVolume", volume_key(backend, handle)):
            backend.delete_volume(handle, secrets)
        return pb.DeleteVolumeResponse()

    def ControllerGetVolume(
        self, request: pb.ControllerGetVolumeRequest, context: grpc.ServicerContext
    ) -> pb.ControllerGetVolumeResponse:
        """One volume, and the nodes that it is published to."""
        check_id(request.volume_id, "volume_id")
        backend, handle = self._driver.router.by_id(request.volume_id)
        volume = existing_volume(backend, handle)
        status = pb.ControllerGetVolumeResponse.VolumeStatus(published_node_ids=volume.published_node_ids)
        return pb.ControllerGetVolumeResponse(volume=self._encode(backend, volume), status=status)

    def ListVolumes(self, request: pb.ListVolumesRequest, context: grpc.ServicerContext) -> pb.ListVolumesResponse:
        """Volumes of all backends, page by page."""
        not_negative(request.max_entries, "max_entries")
        found, next_token = list_through(
            self._driver.router.all,
            request.starting_token,
            request.max_entries,
            lambda backend, cursor, limit: backend.list_volumes(cursor, limit),
        )
        kept = self._kept_listing
        if kept is not None and kept[0] == found and kept[1] == next_token:
            return kept[2]
        message = pb.ListVolumesResponse
        entries = [
            message.Entry(
                volume=self._encode(backend, volume),
                status=message.VolumeStatus(published_node_ids=volume.published_node_ids),
            )
            for backend, volume in found
        ]
        answer = message(entries=entries, next_token=next_token)
        if len(found) <= _KEPT_ENTRIES:
            self._kept_listing = found, next_token, answer
        return answer

    def ValidateVolumeCapabilities(
        self, request: pb.ValidateVolumeCapabilitiesRequest, context: grpc.ServicerContext
    ) -> pb.ValidateVolumeCapabilitiesResponse:
        """Whether a volume can be used in these ways."""
        return validate(self._driver, request)

    def GetCapacity(self, request: pb.GetCapacityRequest, context: grpc.ServicerContext) -> pb.GetCapacityResponse:
        """Room for further volumes."""
        self._driver.require("get_capacity", "GetCapacity")
        room = room_for(self._driver, request)
        response = pb.GetCapacityResponse(available_capacity=room.available_bytes)
        if room.maximum_volume_bytes is not None:
            response.maximum_volume_size.value = room.maximum_volume_bytes
        if room.minimum_volume_bytes is not None:
            response.minimum_volume_size.value = room.minimum_volume_bytes
        return response

    def ControllerPublishVolume(
        self, request: pb.ControllerPublishVolumeRequest, context: grpc.ServicerContext
    ) -> pb.ControllerPublishVolumeResponse:
        """Give a node access; nothing to do for backends whose volumes need no such step."""
        self._driver.require("publish_volume", "ControllerPublishVolume")
        backend, publish = decode_publish(request, self._driver.router)
        with self._driver.locks.hold("ControllerPublishVolume", volume_key(backend, publish.handle)):
            existing_volume(backend, publish.handle)
            publish_context = backend.publish_volume(publish) if "publish_volume" in backend.hooks else {}
        return pb.ControllerPublishVolumeResponse(publish_context=publish_context)

    def ControllerUnpublishVolume(
        self, request: pb.ControllerUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> pb.ControllerUnpublishVolumeResponse:
        """Take access away from a node, or from all of them where none is named."""
        self._driver.require("unpublish_volume", "ControllerUnpublishVolume")
        check_id(request.volume_id, "volume_id")
        check_string(request.node_id, "node_id", MAX_NODE_ID_BYTES)
        check_map(request.secrets, "secrets")
        try:
            backend, handle = self._driver.router.by_id(request.volume_id)
        except MalformedId:
            return pb.ControllerUnpublishVolumeResponse()
        secrets = parse_secrets(backend.description, request.secrets)
        if "unpublish_volume" in backend.hooks:
            with self._driver.locks.hold("ControllerUnpublishVolume", volume_key(backend, handle)):
                backend.unpublish_volume(handle, request.node_id, secrets)
        return pb.ControllerUnpublishVolumeResponse()

    def ControllerExpandVolume(
        self, request: pb.ControllerExpandVolumeRequest, context: grpc.ServicerContext
    ) -> pb.ControllerExpandVolumeResponse:
        """Grow the storage behind a volume; the nodes grow the filesystem."""
        self._driver.require("expand_volume", "ControllerExpandVolume")
        require(request.HasField("capacity_range"), "capacity_range")
        backend, handle, size, _ = decode_expand(request, self._driver.router)
        require(size.required_bytes or size.limit_bytes, "capacity_range.required_bytes or limit_bytes")
        with self._driver.locks.hold("ControllerExpandVolume", volume_key(backend, handle)):
            check_growth(backend, handle, size)
            capacity_bytes = backend.expand_volume(handle, size)
        # Block sources: the node's device and its filesystem follow. Directories and shares have nothing to grow there.
        return pb.ControllerExpandVolumeResponse(
            capacity_bytes=capacity_bytes, node_expansion_required=bool(backend.description.filesystems)
        )

    def ControllerModifyVolume(
        self, request: pb.ControllerModifyVolumeRequest, context: grpc.ServicerContext
    ) -> pb.ControllerModifyVolumeResponse:
        """Put mutable parameters in force; those not named keep their values."""
        self._driver.require("modify_volume", "ControllerModifyVolume")
        backend, handle, given = decode_modify(request, self._driver.router)
        with self._driver.locks.hold("ControllerModifyVolume", volume_key(backend, handle)):
            merged = {**existing_volume(backend, handle).recorded_mutable, **given}
            backend.modify_volume(handle, parse_mutable(backend.description, merged), merged)
        return pb.ControllerModifyVolumeResponse()

    def _encode(self, backend: Backend, volume: Volume) -> pb.Volume:
        return encode_volume(backend.name, volume, self._driver.topology.of(backend))


def _source_keys(backend: Backend, source: ContentSource | None) -> tuple[Key, ...]:
    if source is None:
        return ()
    key = snapshot_key if source.kind is SourceKind.SNAPSHOT else volume_key
    return (key(backend, source.handle),)
