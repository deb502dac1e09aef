"""The GroupController service: snapshots of several volumes at one moment."""
# ruff: noqa: ARG002, N802 - gRPC gives the methods their names and arguments

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc

from csi_core._proto import csi_pb2 as pb
from csi_core._proto.csi_pb2_grpc import GroupControllerServicer
from csi_core.errors import InvalidArgument, NotFound
from csi_core.locks import Key
from csi_core.model import Existing
from csi_core.router import MalformedId, join_id
from csi_core.server.codec.fields import check_id, check_map
from csi_core.server.codec.parameters import parse_secrets
from csi_core.server.codec.snapshot import decode_create_group, encode_group
from csi_core.server.compatibility import check_same_group
from csi_core.server.driver import Driver, existing_volume, name_key, snapshot_key, volume_key

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.model import GroupSnapshot

__all__ = ["GroupController"]


class GroupController(GroupControllerServicer):
    """Takes, deletes and tells of group snapshots."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def GroupControllerGetCapabilities(
        self, request: pb.GroupControllerGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> pb.GroupControllerGetCapabilitiesResponse:
        """What this service does; derived from the backends."""
        capability = pb.GroupControllerServiceCapability
        return pb.GroupControllerGetCapabilitiesResponse(
            capabilities=[
                capability(rpc=capability.RPC(type=capability.RPC.Type.Value(name)))
                for name in sorted(self._driver.capabilities.group)
            ]
        )

    def CreateVolumeGroupSnapshot(
        self, request: pb.CreateVolumeGroupSnapshotRequest, context: grpc.ServicerContext
    ) -> pb.CreateVolumeGroupSnapshotResponse:
        """Snapshots of all members or of none, or the group that this name took before."""
        driver = self._driver
        driver.require("create_group_snapshot", "CreateVolumeGroupSnapshot")
        backend, spec = decode_create_group(request, driver.router)
        members = [volume_key(backend, handle) for handle in spec.volume_handles]
        with driver.locks.hold("CreateVolumeGroupSnapshot", name_key("group", backend, spec.name), *members):
            for handle in spec.volume_handles:
                existing_volume(backend, handle)
            outcome = backend.create_group_snapshot(spec)
        if isinstance(outcome, Existing):
            check_same_group(outcome.value, spec)
        return pb.CreateVolumeGroupSnapshotResponse(group_snapshot=self._encode(backend, outcome.value))

    def DeleteVolumeGroupSnapshot(
        self, request: pb.DeleteVolumeGroupSnapshotRequest, context: grpc.ServicerContext
    ) -> pb.DeleteVolumeGroupSnapshotResponse:
        """Delete a group and its members; what does not exist is deleted."""
        driver = self._driver
        driver.require("delete_group_snapshot", "DeleteVolumeGroupSnapshot")
        _check_fields(request)
        try:
            backend, handle = driver.router.by_id(request.group_snapshot_id)
        except MalformedId:
            return pb.DeleteVolumeGroupSnapshotResponse()
        secrets = parse_secrets(backend.description, request.secrets)
        with driver.locks.hold("DeleteVolumeGroupSnapshot", Key("group", request.group_snapshot_id)):
            group = backend.get_group_snapshot(handle)
            if group is not None:
                _check_members(backend, group, request.snapshot_ids)
                members = [snapshot_key(backend, snapshot.handle) for snapshot in group.snapshots]
                with driver.locks.hold("DeleteVolumeGroupSnapshot", *members):
                    backend.delete_group_snapshot(handle, secrets)
        return pb.DeleteVolumeGroupSnapshotResponse()

    def GetVolumeGroupSnapshot(
        self, request: pb.GetVolumeGroupSnapshotRequest, context: grpc.ServicerContext
    ) -> pb.GetVolumeGroupSnapshotResponse:
        """One group with its members."""
        self._driver.require("get_group_snapshot", "GetVolumeGroupSnapshot")
        _check_fields(request)
        backend, handle = self._driver.router.by_id(request.group_snapshot_id)
        group = backend.get_group_snapshot(handle)
        if group is None:
            raise NotFound(f"there is no group snapshot {request.group_snapshot_id!r}")
        _check_members(backend, group, request.snapshot_ids)
        return pb.GetVolumeGroupSnapshotResponse(group_snapshot=self._encode(backend, group))

    def _encode(self, backend: Backend, group: GroupSnapshot) -> pb.VolumeGroupSnapshot:
        topology = self._driver.topology.of(backend) if self._driver.alpha else ()
        return encode_group(backend.name, group, topology)


def _check_fields(request: pb.DeleteVolumeGroupSnapshotRequest | pb.GetVolumeGroupSnapshotRequest) -> None:
    check_id(request.group_snapshot_id, "group_snapshot_id")
    for identifier in request.snapshot_ids:
        check_id(identifier, "snapshot_ids")
    check_map(request.secrets, "secrets")


def _check_members(backend: Backend, group: GroupSnapshot, said: Sequence[str]) -> None:
    """Refuse a list of members that is not this group's; no list at all says nothing wrong.

    Raises:
        InvalidArgument: names the members on one side only.
    """
    members = {join_id(backend.name, snapshot.handle) for snapshot in group.snapshots}
    if said and set(said) != members:
        odd = ", ".join(sorted(members.symmetric_difference(said)))
        raise InvalidArgument(f"snapshot_ids are not the members of {group.name!r}; on one side only: {odd}")
