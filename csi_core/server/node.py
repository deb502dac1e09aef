"""The Node service: requests are judged and looked up here; what they do on this node is in :mod:`csi_core.node`."""
# ruff: noqa: ARG002, N802 - gRPC gives the methods their names and arguments

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from csi_core._proto import csi_pb2 as pb
from csi_core._proto.csi_pb2_grpc import NodeServicer
from csi_core.errors import NotFound
from csi_core.router import MalformedId
from csi_core.server.codec.fields import check_id, check_map, parse_path, require
from csi_core.server.codec.health import encode_storage_health, encode_volume_health
from csi_core.server.codec.parameters import EPHEMERAL, parse_secrets
from csi_core.server.codec.publish import decode_ephemeral, decode_node_publish, decode_stage, is_ephemeral
from csi_core.server.codec.volume import decode_expand
from csi_core.server.compatibility import check_growth, check_same_volume
from csi_core.server.driver import Driver, existing_volume, volume_key, volume_name_key

if TYPE_CHECKING:
    from csi_core.facade import Backend

__all__ = ["Node"]

# The plugin capabilities by which the CO is told to ask where a node is.
_CONSTRAINTS = frozenset({"VOLUME_ACCESSIBILITY_CONSTRAINTS", "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS"})
_UNITS = {"bytes": pb.VolumeUsage.BYTES, "inodes": pb.VolumeUsage.INODES}


class Node(NodeServicer):
    """Stages, publishes, measures and grows volumes on this node."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def NodeGetCapabilities(
        self, request: pb.NodeGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> pb.NodeGetCapabilitiesResponse:
        """What this service does; derived from the backends."""
        capability = pb.NodeServiceCapability
        return pb.NodeGetCapabilitiesResponse(
            capabilities=[
                capability(rpc=capability.RPC(type=capability.RPC.Type.Value(name)))
                for name in sorted(self._driver.capabilities.node)
            ]
        )

    def NodeGetInfo(self, request: pb.NodeGetInfoRequest, context: grpc.ServicerContext) -> pb.NodeGetInfoResponse:
        """This node's name and topology, and how many volumes it takes: the least that any backend allows."""
        backends = self._driver.router.all
        limits = [limit for backend in backends if (limit := backend.description.max_volumes_per_node)]
        constrained = _CONSTRAINTS & self._driver.capabilities.plugin
        return pb.NodeGetInfoResponse(
            node_id=self._driver.node_id,
            max_volumes_per_node=min(limits, default=0),
            accessible_topology=self._driver.topology.here if constrained else None,
        )

    def NodeStageVolume(
        self, request: pb.NodeStageVolumeRequest, context: grpc.ServicerContext
    ) -> pb.NodeStageVolumeResponse:
        """Attach, format once, and mount at the staging path."""
        backend, stage = decode_stage(request, self._driver.router)
        with self._driver.locks.hold("NodeStageVolume", volume_key(backend, stage.handle)):
            existing_volume(backend, stage.handle)
            self._driver.node.stage(backend, stage)
        return pb.NodeStageVolumeResponse()

    def NodeUnstageVolume(
        self, request: pb.NodeUnstageVolumeRequest, context: grpc.ServicerContext
    ) -> pb.NodeUnstageVolumeResponse:
        """Undo staging; also for a volume that has been deleted meanwhile."""
        check_id(request.volume_id, "volume_id")
        staging_path = parse_path(request.staging_target_path, "staging_target_path")
        backend, handle = self._driver.router.by_id(request.volume_id)
        with self._driver.locks.hold("NodeUnstageVolume", volume_key(backend, handle)):
            self._driver.node.unstage(backend, handle, staging_path)
        return pb.NodeUnstageVolumeResponse()

    def NodePublishVolume(
        self, request: pb.NodePublishVolumeRequest, context: grpc.ServicerContext
    ) -> pb.NodePublishVolumeResponse:
        """Bind a staged volume to a workload's path; an inline volume is made first."""
        if is_ephemeral(request):
            self._publish_ephemeral(request)
            return pb.NodePublishVolumeResponse()
        backend, publish = decode_node_publish(request, self._driver.router)
        with self._driver.locks.hold("NodePublishVolume", volume_key(backend, publish.handle)):
            existing_volume(backend, publish.handle)
            self._driver.node.publish(backend, publish)
        return pb.NodePublishVolumeResponse()

    def NodeUnpublishVolume(
        self, request: pb.NodeUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> pb.NodeUnpublishVolumeResponse:
        """Take a volume from a workload; an inline volume is deleted with it."""
        check_id(request.volume_id, "volume_id")
        target_path = parse_path(request.target_path, "target_path")
        try:
            backend, handle = self._driver.router.by_id(request.volume_id)
        except MalformedId:
            self._unpublish_ephemeral(request.volume_id, target_path)
            return pb.NodeUnpublishVolumeResponse()
        with self._driver.locks.hold("NodeUnpublishVolume", volume_key(backend, handle)):
            self._driver.node.unpublish(backend, handle, target_path)
        return pb.NodeUnpublishVolumeResponse()

    def NodeGetVolumeStats(
        self, request: pb.NodeGetVolumeStatsRequest, context: grpc.ServicerContext
    ) -> pb.NodeGetVolumeStatsResponse:
        """Bytes and inodes in use. The volume is looked up before the path is judged, as csi-sanity wants."""
        check_id(request.volume_id, "volume_id")
        require(request.volume_path, "volume_path")
        backend, handle = self._locate(request.volume_id)
        # Not parse_path(): no volume is at a relative path, and csi-sanity wants NOT_FOUND for one.
        volume_path = Path(request.volume_path)
        usage = self._driver.node.stats(backend, handle, volume_path)
        return pb.NodeGetVolumeStatsResponse(
            usage=[
                pb.VolumeUsage(unit=_UNITS[u.unit], total=u.total, used=u.used or 0, available=u.available or 0)
                for u in usage
            ]
        )

    def NodeExpandVolume(
        self, request: pb.NodeExpandVolumeRequest, context: grpc.ServicerContext
    ) -> pb.NodeExpandVolumeResponse:
        """Grow a volume on this node: the storage too where it is node-local, then device and filesystem."""
        self._driver.require("expand_volume", "NodeExpandVolume")
        require(request.volume_path, "volume_path")
        backend, handle, size, capability = decode_expand(request, self._driver.router)
        parse_secrets(backend.description, request.secrets)
        with self._driver.locks.hold("NodeExpandVolume", volume_key(backend, handle)):
            check_growth(backend, handle, size)
            volume_path = parse_path(request.volume_path, "volume_path")
            capacity_bytes = self._driver.node.expand(backend, handle, volume_path, size, capability)
        return pb.NodeExpandVolumeResponse(capacity_bytes=capacity_bytes)

    def NodeGetVolumeHealth(
        self, request: pb.NodeGetVolumeHealthRequest, context: grpc.ServicerContext
    ) -> pb.NodeGetVolumeHealthResponse:
        """What is wrong with one volume, as this node sees it (alpha in CSI 1.13)."""
        self._driver.require("volume_health", "NodeGetVolumeHealth")
        check_id(request.volume_id, "volume_id")
        backend, handle = self._locate(request.volume_id)
        health = encode_volume_health(backend.name, handle, backend.volume_health(handle))
        health.volume_id = request.volume_id
        return pb.NodeGetVolumeHealthResponse(volume_health=health)

    def NodeGetStorageHealth(
        self, request: pb.NodeGetStorageHealthRequest, context: grpc.ServicerContext
    ) -> pb.NodeGetStorageHealthResponse:
        """What is wrong with the storage of every backend (alpha in CSI 1.13)."""
        self._driver.require("storage_health", "NodeGetStorageHealth")
        check_map(request.secrets, "secrets")
        backends = [backend for backend in self._driver.router.all if "storage_health" in backend.hooks]
        return encode_storage_health([problem for backend in backends for problem in backend.storage_health()])

    def _publish_ephemeral(self, request: pb.NodePublishVolumeRequest) -> None:
        backend, spec, publish = decode_ephemeral(request, self._driver.router)
        with self._driver.locks.hold("NodePublishVolume", volume_name_key(request.volume_id)):
            if there := backend.find_volume(request.volume_id):
                check_same_volume(there, spec)
            self._driver.node.publish_ephemeral(backend, request.volume_id, spec, publish)

    def _unpublish_ephemeral(self, volume_id: str, target_path: Path) -> None:
        """Delete the inline volume of this id, wherever it is; one that has gone leaves only its path to clear."""
        backends = self._ephemeral_backends()
        if not backends:
            raise NotFound(f"{volume_id!r} is no id of this driver, and no backend here serves inline volumes")
        with self._driver.locks.hold("NodeUnpublishVolume", volume_name_key(volume_id)):
            owner = backends[0]
            for backend in backends:
                if volume := backend.find_volume(volume_id):
                    if EPHEMERAL not in volume.recorded:
                        raise NotFound(f"{volume_id!r} is the name of a volume that is no inline one; use its id")
                    owner = backend
            self._driver.node.unpublish_ephemeral(owner, volume_id, target_path)

    def _ephemeral_backends(self) -> list[Backend]:
        return [backend for backend in self._driver.router.all if backend.description.ephemeral]

    def _locate(self, volume_id: str) -> tuple[Backend, str]:
        """Backend and handle of a volume that exists; inline volumes are found by their name.

        Raises:
            NotFound: there is none.
        """
        try:
            backend, handle = self._driver.router.by_id(volume_id)
        except MalformedId:
            for backend in self._ephemeral_backends():
                if volume := backend.find_volume(volume_id):
                    return backend, volume.handle
            raise
        existing_volume(backend, handle)
        return backend, handle
