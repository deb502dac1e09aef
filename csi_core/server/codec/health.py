"""Health as CSI 1.13 tells it (alpha)."""

from __future__ import annotations

from collections.abc import Sequence

from csi_core._proto import csi_pb2 as pb
from csi_core.health import HealthKind, HealthProblem
from csi_core.router import join_id

__all__ = ["encode_storage_health", "encode_volume_health"]

_VOLUME = {
    HealthKind.DEGRADED: pb.DEGRADED,
    HealthKind.INACCESSIBLE: pb.INACCESSIBLE,
    HealthKind.DATA_LOSS: pb.DATA_LOSS,
}
_STORAGE = {
    HealthKind.DEGRADED: pb.STORAGE_DEGRADED,
    HealthKind.INACCESSIBLE: pb.STORAGE_UNREACHABLE,
    # CSI knows no data loss of a whole storage; its volumes say so one by one.
    HealthKind.DATA_LOSS: pb.STORAGE_DEGRADED,
}


def encode_volume_health(backend_name: str, handle: str, problems: Sequence[HealthProblem]) -> pb.VolumeHealth:
    """What is wrong with one volume; no entries where nothing is."""
    entry = pb.VolumeHealth.VolumeHealthEntry
    return pb.VolumeHealth(
        volume_id=join_id(backend_name, handle),
        health_statuses=[entry(status=_VOLUME[p.kind], reason=p.reason, message=p.message) for p in problems],
    )


def encode_storage_health(problems: Sequence[HealthProblem]) -> pb.NodeGetStorageHealthResponse:
    """What is wrong with the storage as seen from this node."""
    entry = pb.NodeGetStorageHealthResponse.StorageBackendHealth
    return pb.NodeGetStorageHealthResponse(
        backend_health=[entry(status=_STORAGE[p.kind], reason=p.reason, message=p.message) for p in problems]
    )
