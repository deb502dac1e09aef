"""The Controller service: snapshots."""
# ruff: noqa: ARG002, N802 - gRPC gives the methods their names and arguments

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc

from csi_core._proto import csi_pb2 as pb
from csi_core.errors import InvalidArgument
from csi_core.model import Existing, Page
from csi_core.router import MalformedId, join_id
from csi_core.server.codec.fields import check_id, check_map, check_string, not_negative
from csi_core.server.codec.parameters import parse_secrets
from csi_core.server.codec.snapshot import decode_create_snapshot, encode_snapshot
from csi_core.server.compatibility import check_same_snapshot
from csi_core.server.driver import Driver, existing_snapshot, existing_volume, name_key, snapshot_key, volume_key
from csi_core.server.pagination import list_through

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.model import Snapshot

__all__ = ["SnapshotCalls"]


class SnapshotCalls:
    """Takes, deletes and lists snapshots of single volumes."""

    _driver: Driver

    def CreateSnapshot(
        self, request: pb.CreateSnapshotRequest, context: grpc.ServicerContext
    ) -> pb.CreateSnapshotResponse:
        """Take a snapshot, or answer the one that this name took before."""
        driver = self._driver
        driver.require("create_snapshot", "CreateSnapshot")
        backend, spec = decode_create_snapshot(request, driver.router)
        driver.topology.check(backend, request.accessibility_requirements)
        name, volume = name_key("snapshot", backend, spec.name), volume_key(backend, spec.volume_handle)
        with driver.locks.hold("CreateSnapshot", name, volume):
            existing_volume(backend, spec.volume_handle)
            outcome = backend.create_snapshot(spec)
        if isinstance(outcome, Existing):
            check_same_snapshot(outcome.value, spec)
        return pb.CreateSnapshotResponse(snapshot=self._encode_snapshot(backend, outcome.value))

    def DeleteSnapshot(
        self, request: pb.DeleteSnapshotRequest, context: grpc.ServicerContext
    ) -> pb.DeleteSnapshotResponse:
        """Delete a snapshot; what does not exist is deleted. Members go with their group only."""
        self._driver.require("delete_snapshot", "DeleteSnapshot")
        check_id(request.snapshot_id, "snapshot_id")
        check_map(request.secrets, "secrets")
        try:
            backend, handle = self._driver.router.by_id(request.snapshot_id)
        except MalformedId:
            return pb.DeleteSnapshotResponse()
        secrets = parse_secrets(backend.description, request.secrets)
        with self._driver.locks.hold("DeleteSnapshot", snapshot_key(backend, handle)):
            snapshot = backend.get_snapshot(handle)
            if snapshot is not None and snapshot.group_handle:
                group = join_id(backend.name, snapshot.group_handle)
                raise InvalidArgument(
                    f"{request.snapshot_id!r} is a member of group snapshot {group!r}; delete the group"
                )
            backend.delete_snapshot(handle, secrets)
        return pb.DeleteSnapshotResponse()

    def GetSnapshot(self, request: pb.GetSnapshotRequest, context: grpc.ServicerContext) -> pb.GetSnapshotResponse:
        """One snapshot."""
        self._driver.require("get_snapshot", "GetSnapshot")
        check_id(request.snapshot_id, "snapshot_id")
        check_map(request.secrets, "secrets")
        backend, handle = self._driver.router.by_id(request.snapshot_id)
        return pb.GetSnapshotResponse(snapshot=self._encode_snapshot(backend, existing_snapshot(backend, handle)))

    def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: grpc.ServicerContext
    ) -> pb.ListSnapshotsResponse:
        """Snapshots of all backends, of one volume, or the one asked for; unknown ids have none."""
        self._driver.require("list_snapshots", "ListSnapshots")
        not_negative(request.max_entries, "max_entries")
        check_string(request.snapshot_id, "snapshot_id")
        check_string(request.source_volume_id, "source_volume_id")
        check_map(request.secrets, "secrets")
        try:
            found, next_token = self._select(request)
        except MalformedId:
            found, next_token = [], ""
        entry = pb.ListSnapshotsResponse.Entry
        entries = [entry(snapshot=self._encode_snapshot(backend, snapshot)) for backend, snapshot in found]
        return pb.ListSnapshotsResponse(entries=entries, next_token=next_token)

    def _select(self, request: pb.ListSnapshotsRequest) -> tuple[list[tuple[Backend, Snapshot]], str]:
        router = self._driver.router
        backends: Sequence[Backend] = [b for b in router.all if "list_snapshots" in b.hooks]
        volume_handle = ""
        if request.source_volume_id:
            backend, volume_handle = router.by_id(request.source_volume_id)
            backends = [backend]
        if request.snapshot_id:
            owner, handle = router.by_id(request.snapshot_id)
            snapshot = owner.get_snapshot(handle) if owner in backends else None
            if snapshot is None or volume_handle not in ("", snapshot.volume_handle):
                return [], ""
            return [(owner, snapshot)], ""

        def read(backend: Backend, cursor: str, limit: int) -> Page[Snapshot]:
            return backend.list_snapshots(cursor, limit, volume_handle)

        return list_through(backends, request.starting_token, request.max_entries, read)

    def _encode_snapshot(self, backend: Backend, snapshot: Snapshot) -> pb.Snapshot:
        topology = self._driver.topology.of(backend) if self._driver.alpha else ()
        return encode_snapshot(backend.name, snapshot, topology)
