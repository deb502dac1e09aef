"""Snapshots and groups of them: requests to take some, and how they are told to the CO."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from csi_core._proto import csi_pb2 as pb
from csi_core.errors import InvalidArgument
from csi_core.model import GroupSnapshot, GroupSnapshotSpec, Snapshot, SnapshotSpec
from csi_core.router import join_id
from csi_core.server.codec.fields import check_id, check_map, check_name, require
from csi_core.server.codec.parameters import parse_secrets, parse_snapshot_parameters, plain

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.router import Router

__all__ = ["decode_create_group", "decode_create_snapshot", "encode_group", "encode_snapshot"]


def decode_create_snapshot(request: pb.CreateSnapshotRequest, router: Router) -> tuple[Backend, SnapshotSpec]:
    """A snapshot to take (CSI "CreateSnapshot")."""
    check_name(request.name, "name")
    check_id(request.source_volume_id, "source_volume_id")
    check_map(request.parameters, "parameters")
    check_map(request.secrets, "secrets")
    backend, handle = router.by_id(request.source_volume_id)
    recorded = plain(request.parameters)
    return backend, SnapshotSpec(
        name=request.name,
        volume_handle=handle,
        parameters=parse_snapshot_parameters(backend.description, recorded),
        recorded=recorded,
        secrets=parse_secrets(backend.description, request.secrets),
    )


def decode_create_group(
    request: pb.CreateVolumeGroupSnapshotRequest, router: Router
) -> tuple[Backend, GroupSnapshotSpec]:
    """Snapshots of several volumes, all of one backend, at one moment (CSI "CreateVolumeGroupSnapshot")."""
    check_name(request.name, "name")
    require(request.source_volume_ids, "source_volume_ids")
    for identifier in request.source_volume_ids:
        check_id(identifier, "source_volume_ids")
    check_map(request.parameters, "parameters")
    check_map(request.secrets, "secrets")
    members = [router.by_id(identifier) for identifier in request.source_volume_ids]
    backend = members[0][0]
    handles = tuple(handle for _, handle in members)
    if any(owner is not backend for owner, _ in members):
        names = ", ".join(sorted({owner.name for owner, _ in members}))
        raise InvalidArgument(f"source_volume_ids are of several backends ({names}); a group has one")
    if len(set(handles)) < len(handles):
        raise InvalidArgument("source_volume_ids names a volume twice")
    recorded = plain(request.parameters)
    return backend, GroupSnapshotSpec(
        name=request.name,
        volume_handles=handles,
        parameters=parse_snapshot_parameters(backend.description, recorded),
        recorded=recorded,
        secrets=parse_secrets(backend.description, request.secrets),
    )


def encode_snapshot(backend_name: str, snapshot: Snapshot, topology: Sequence[pb.Topology]) -> pb.Snapshot:
    """How the CO is told of a snapshot; ``topology`` is empty unless CSI 1.13's alpha is switched on."""
    return pb.Snapshot(
        size_bytes=snapshot.size_bytes,
        snapshot_id=join_id(backend_name, snapshot.handle),
        source_volume_id=join_id(backend_name, snapshot.volume_handle),
        creation_time=_encode_time(snapshot.created_at),
        ready_to_use=snapshot.ready,
        group_snapshot_id=join_id(backend_name, snapshot.group_handle) if snapshot.group_handle else "",
        accessible_topology=topology,
    )


def encode_group(backend_name: str, group: GroupSnapshot, topology: Sequence[pb.Topology]) -> pb.VolumeGroupSnapshot:
    """How the CO is told of a group."""
    return pb.VolumeGroupSnapshot(
        group_snapshot_id=join_id(backend_name, group.handle),
        snapshots=[encode_snapshot(backend_name, snapshot, topology) for snapshot in group.snapshots],
        creation_time=_encode_time(group.created_at),
        ready_to_use=group.ready,
    )


def _encode_time(moment: datetime) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(moment)
    return time
