"""The kubelet's and the sidecars' place in the crash tests: a few calls and the pod's own writes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from csi_core._proto import csi_pb2 as pb
from csi_core.testing.harness import AccessMode, ServerProcess, create_request
from csi_core.testing.harness import mounted as mounted_with

MIB = 1 << 20
VOLUME_BYTES = 320 * MIB  # the smallest that mkfs.xfs takes, with a little room
CALL_S = 60.0


def mounted(fs_type: str) -> pb.VolumeCapability:
    """A claim with volumeMode Filesystem, ReadWriteOnce."""
    return mounted_with(fs_type, AccessMode.SINGLE_NODE_MULTI_WRITER)


@dataclass
class Pod:
    """A volume staged and published as kubelet does it, and what the pod wrote on it."""

    volume_id: str
    staging: Path
    target: Path
    checksums: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, size_bytes: int = 2 * MIB) -> None:
        """Write whole MiB of random content, no two alike, durably, and remember its checksum."""
        random, checksum = os.urandom(MIB - 8), hashlib.sha256()
        with (self.target / name).open("wb", buffering=0) as file:
            for number in range(size_bytes // MIB):
                # In pieces: a guest takes long for memory that is touched the first time.
                piece = number.to_bytes(8) + random
                assert file.write(piece) == len(piece)
                checksum.update(piece)
            os.fsync(file.fileno())
        self.checksums[name] = checksum.hexdigest()

    def fill(self, left_bytes: int) -> None:
        """Take all room but so much, without writing it."""
        room = os.statvfs(self.target)
        with (self.target / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - left_bytes)

    def verify(self, expected: Mapping[str, str] | None = None) -> None:
        """Every file remembered (or ``expected``) is there with its content."""
        for name, checksum in (self.checksums if expected is None else expected).items():
            with (self.target / name).open("rb", buffering=0) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            assert found == checksum, f"{self.volume_id}: {name} changed"


class Cluster:
    """The calls, over whatever server process is up at the moment."""

    def __init__(self, server: ServerProcess, kubelet: Path) -> None:
        self.server = server
        self.kubelet = kubelet
        self.pods: dict[str, Pod] = {}

    # -- Controller ---------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        *,
        source: pb.VolumeContentSource | None = None,
        fs_type: str = "xfs",
        size_bytes: int = VOLUME_BYTES,
        **parameters: str,
    ) -> pb.Volume:
        """CreateVolume; the same arguments make the same request."""
        request = create_request(name, size_bytes, capability=mounted(fs_type), parameters=parameters, source=source)
        return self.server.controller.CreateVolume(request, timeout=CALL_S).volume

    def delete(self, volume_id: str) -> None:
        """DeleteVolume."""
        self.server.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume_id), timeout=CALL_S)

    def snapshot(self, name: str, volume_id: str) -> pb.Snapshot:
        """CreateSnapshot."""
        request = pb.CreateSnapshotRequest(name=name, source_volume_id=volume_id)
        return self.server.controller.CreateSnapshot(request, timeout=CALL_S).snapshot

    def delete_snapshot(self, snapshot_id: str) -> None:
        """DeleteSnapshot."""
        self.server.controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id=snapshot_id), timeout=CALL_S)

    def group(self, name: str, volume_ids: list[str]) -> pb.VolumeGroupSnapshot:
        """CreateVolumeGroupSnapshot."""
        request = pb.CreateVolumeGroupSnapshotRequest(name=name, source_volume_ids=volume_ids)
        return self.server.group.CreateVolumeGroupSnapshot(request, timeout=CALL_S).group_snapshot

    def delete_group(self, group: pb.VolumeGroupSnapshot) -> None:
        """DeleteVolumeGroupSnapshot."""
        request = pb.DeleteVolumeGroupSnapshotRequest(
            group_snapshot_id=group.group_snapshot_id, snapshot_ids=[s.snapshot_id for s in group.snapshots]
        )
        self.server.group.DeleteVolumeGroupSnapshot(request, timeout=CALL_S)

    def available_bytes(self) -> int:
        """GetCapacity for thin volumes: what the ledger has left."""
        return self.server.controller.GetCapacity(pb.GetCapacityRequest(), timeout=CALL_S).available_capacity

    def listed(self) -> list[str]:
        """The ids of all volumes and snapshots."""
        volumes = self.server.controller.ListVolumes(pb.ListVolumesRequest(), timeout=CALL_S)
        snapshots = self.server.controller.ListSnapshots(pb.ListSnapshotsRequest(), timeout=CALL_S)
        return [e.volume.volume_id for e in volumes.entries] + [e.snapshot.snapshot_id for e in snapshots.entries]

    # -- Node ---------------------------------------------------------------------------------------

    def pod(self, volume_id: str) -> Pod:
        """The paths that kubelet would use for the volume; the staging directory exists, the target does not."""
        if volume_id not in self.pods:
            directory = self.kubelet / hashlib.sha256(volume_id.encode()).hexdigest()[:12]
            (directory / "globalmount").mkdir(parents=True, exist_ok=True)
            self.pods[volume_id] = Pod(volume_id, directory / "globalmount", directory / "mount")
        return self.pods[volume_id]

    def stage(self, volume_id: str, fs_type: str = "xfs") -> None:
        """NodeStageVolume."""
        request = pb.NodeStageVolumeRequest(
            volume_id=volume_id,
            staging_target_path=str(self.pod(volume_id).staging),
            volume_capability=mounted(fs_type),
        )
        self.server.node.NodeStageVolume(request, timeout=CALL_S)

    def publish(self, volume_id: str, fs_type: str = "xfs") -> Pod:
        """NodePublishVolume."""
        pod = self.pod(volume_id)
        request = pb.NodePublishVolumeRequest(
            volume_id=volume_id,
            staging_target_path=str(pod.staging),
            target_path=str(pod.target),
            volume_capability=mounted(fs_type),
        )
        self.server.node.NodePublishVolume(request, timeout=CALL_S)
        return pod

    def run_pod(self, volume_id: str, fs_type: str = "xfs") -> Pod:
        """Stage and publish."""
        self.stage(volume_id, fs_type)
        return self.publish(volume_id, fs_type)

    def publish_ephemeral(self, volume_id: str) -> Pod:
        """NodePublishVolume of an inline volume, as kubelet sends it: nothing was created or staged before."""
        pod = self.pod(volume_id)
        request = pb.NodePublishVolumeRequest(
            volume_id=volume_id,
            target_path=str(pod.target),
            volume_capability=mounted("xfs"),
            volume_context={"csi.storage.k8s.io/ephemeral": "true", "size": str(VOLUME_BYTES)},
        )
        self.server.node.NodePublishVolume(request, timeout=CALL_S)
        return pod

    def unpublish(self, volume_id: str) -> None:
        """NodeUnpublishVolume."""
        request = pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(self.pod(volume_id).target))
        self.server.node.NodeUnpublishVolume(request, timeout=CALL_S)

    def unstage(self, volume_id: str) -> None:
        """NodeUnstageVolume."""
        request = pb.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(self.pod(volume_id).staging))
        self.server.node.NodeUnstageVolume(request, timeout=CALL_S)

    def stop_pod(self, volume_id: str) -> None:
        """Unpublish and unstage."""
        self.unpublish(volume_id)
        self.unstage(volume_id)
        self.pods.pop(volume_id, None)

    def expand(self, volume_id: str, size_bytes: int, fs_type: str = "xfs") -> int:
        """NodeExpandVolume of a published volume, as kubelet does it for a node-local driver."""
        pod = self.pod(volume_id)
        request = pb.NodeExpandVolumeRequest(
            volume_id=volume_id,
            volume_path=str(pod.target),
            staging_target_path=str(pod.staging),
            capacity_range=pb.CapacityRange(required_bytes=size_bytes),
            volume_capability=mounted(fs_type),
        )
        return self.server.node.NodeExpandVolume(request, timeout=CALL_S).capacity_bytes
