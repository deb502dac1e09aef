"""What Kubernetes does around a volume: which calls, in which order, with which paths.

Everything made is remembered with the call that takes it away, so that a walk that fails, or is interrupted,
can be undone in reverse order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from csi_core._proto import csi_pb2 as pb
from csi_core.cli.demo.client import Client, MismatchError

__all__ = ["Claim", "Cluster"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim with its volume, as a cluster remembers them."""

    subject: str
    request: pb.CreateVolumeRequest
    volume: pb.Volume

    @property
    def capability(self) -> pb.VolumeCapability:
        """How the claim is used."""
        return self.request.volume_capabilities[0]


class Cluster:
    """A cluster of one node, this one.

    Args:
        client: the driver's services.
        directory: in the place of ``/var/lib/kubelet``.
    """

    def __init__(self, client: Client, directory: Path) -> None:
        self._client = client
        self._directory = directory
        self._held: dict[tuple[str, ...], Callable[[], object]] = {}
        self._publish_context: dict[str, dict[str, str]] = {}
        client.call(client.identity.GetPluginInfo, pb.GetPluginInfoRequest())
        plugin = client.call(client.identity.GetPluginCapabilities, pb.GetPluginCapabilitiesRequest())
        controller = client.call(client.controller.ControllerGetCapabilities, pb.ControllerGetCapabilitiesRequest())
        self.info = client.call(client.node.NodeGetInfo, pb.NodeGetInfoRequest())
        client.call(client.node.NodeGetCapabilities, pb.NodeGetCapabilitiesRequest())
        service, rpc = pb.PluginCapability.Service.Type, pb.ControllerServiceCapability.RPC.Type
        self.services = {service.Name(c.service.type) for c in plugin.capabilities if c.HasField("service")}
        self.controller_rpcs = {rpc.Name(c.rpc.type) for c in controller.capabilities}

    # -- volumes ------------------------------------------------------------------------------------

    def provision(
        self,
        subject: str,
        size_bytes: int,
        capability: pb.VolumeCapability,
        parameters: Mapping[str, str],
        *,
        source: pb.VolumeContentSource | None = None,
        times: int = 1,
    ) -> Claim:
        """Create a volume, as csi-provisioner does. ``times``: how often the call comes, as after lost answers."""
        request = pb.CreateVolumeRequest(
            name=f"pvc-{subject}",
            capacity_range=pb.CapacityRange(required_bytes=size_bytes),
            volume_capabilities=[capability],
            parameters=parameters,
            volume_content_source=source,
        )
        if self.info.HasField("accessible_topology"):
            request.accessibility_requirements.requisite.append(self.info.accessible_topology)
            request.accessibility_requirements.preferred.append(self.info.accessible_topology)
        volume = self._client.call(self._client.controller.CreateVolume, request, subject, times=times).volume
        if volume.capacity_bytes < size_bytes:
            raise MismatchError(f"{subject} has {volume.capacity_bytes} bytes, {size_bytes} were asked for")
        claim = Claim(subject, request, volume)
        self._held["volume", volume.volume_id] = lambda: self.delete(claim)
        return claim

    def refuse_other_size(self, claim: Claim) -> None:
        """The claim's name with another size must be refused."""
        request = pb.CreateVolumeRequest()
        request.CopyFrom(claim.request)
        request.capacity_range.required_bytes *= 2
        code = grpc.StatusCode.ALREADY_EXISTS
        self._client.refused(self._client.controller.CreateVolume, request, f"{claim.subject}, twice the size", code)

    def delete(self, claim: Claim, times: int = 1) -> None:
        """Delete a volume."""
        request = pb.DeleteVolumeRequest(volume_id=claim.volume.volume_id)
        self._client.call(self._client.controller.DeleteVolume, request, claim.subject, times=times)
        self._forget("volume", claim.volume.volume_id)

    def expand(self, claim: Claim, path: Path, size_bytes: int, *, may_fail: bool) -> bool:
        """Grow a published volume, as csi-resizer and then the kubelet do; answer whether the node's part succeeded.

        ``may_fail``: this machine cannot grow a mounted filesystem of this kind.
        """
        size = pb.CapacityRange(required_bytes=size_bytes)
        volume_id, wanted = claim.volume.volume_id, f"{claim.subject} to {size_bytes >> 20} MiB"
        if "EXPAND_VOLUME" in self.controller_rpcs:
            request = pb.ControllerExpandVolumeRequest(
                volume_id=volume_id, capacity_range=size, volume_capability=claim.capability
            )
            answer = self._client.call(self._client.controller.ControllerExpandVolume, request, wanted)
            if not answer.node_expansion_required:
                return True
        request_here = pb.NodeExpandVolumeRequest(
            volume_id=volume_id,
            volume_path=str(path),
            staging_target_path=str(self._staging_path(claim)),
            capacity_range=size,
            volume_capability=claim.capability,
        )
        if may_fail:
            return self._client.attempt(self._client.node.NodeExpandVolume, request_here, wanted)
        self._client.call(self._client.node.NodeExpandVolume, request_here, wanted)
        return True

    # -- this node ----------------------------------------------------------------------------------

    @contextmanager
    def pod(self, claim: Claim, name: str = "pod", *, read_only: bool = False, times: int = 1) -> Iterator[Path]:
        """A pod that uses the claim: stage and publish, then the reverse; answers where the pod sees the volume.

        When its body fails nothing is taken down here: that is left to :meth:`release`.
        """
        attached = "PUBLISH_UNPUBLISH_VOLUME" in self.controller_rpcs
        if attached:
            self._attach(claim)
        self._stage(claim, times)
        with self.second_pod(claim, name, read_only=read_only, times=times) as path:
            yield path
        self._unstage(claim, times)
        if attached:
            self._detach(claim)

    @contextmanager
    def second_pod(self, claim: Claim, name: str, *, read_only: bool = False, times: int = 1) -> Iterator[Path]:
        """A further pod on the same node: only publish."""
        path = self._publish(claim, name, read_only, times)
        yield path
        self._unpublish(claim, path, times)

    @contextmanager
    def inline_pod(self, name: str, capability: pb.VolumeCapability, attributes: Mapping[str, str]) -> Iterator[Path]:
        """A pod with an inline ephemeral volume: one publish makes it, one unpublish deletes it."""
        path = self._directory / "pods" / name / "volumes" / "inline"
        path.parent.mkdir(parents=True, exist_ok=True)
        # The kubelet makes up such an id.
        volume_id = f"csi-{hashlib.sha256(name.encode()).hexdigest()}"
        request = pb.NodePublishVolumeRequest(
            volume_id=volume_id,
            target_path=str(path),
            volume_capability=capability,
            volume_context={**attributes, "csi.storage.k8s.io/ephemeral": "true"},
        )
        undo = pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(path))

        def unpublish() -> None:
            self._client.call(self._client.node.NodeUnpublishVolume, undo, name, times=2)
            self._forget("publish", str(path))

        self._held["publish", str(path)] = unpublish
        self._client.call(self._client.node.NodePublishVolume, request, name, times=2)
        yield path
        unpublish()

    def refuse_second_pod(self, claim: Claim) -> None:
        """Another pod on the same node must be refused."""
        request = self._publish_request(claim, self._target_path(claim, "second"), read_only=False)
        code = grpc.StatusCode.FAILED_PRECONDITION
        self._client.refused(self._client.node.NodePublishVolume, request, f"{claim.subject}, a second pod", code)

    def stats(self, claim: Claim, path: Path) -> pb.VolumeUsage:
        """The line in bytes of a published volume's usage."""
        request = pb.NodeGetVolumeStatsRequest(volume_id=claim.volume.volume_id, volume_path=str(path))
        answer = self._client.call(self._client.node.NodeGetVolumeStats, request, claim.subject)
        return next(usage for usage in answer.usage if usage.unit == pb.VolumeUsage.BYTES)

    def _attach(self, claim: Claim) -> None:
        """Controller publish, as csi-attacher does where the driver wants it."""
        request = pb.ControllerPublishVolumeRequest(
            volume_id=claim.volume.volume_id,
            node_id=self.info.node_id,
            volume_capability=claim.capability,
            volume_context=claim.volume.volume_context,
        )
        self._held["attach", claim.volume.volume_id] = lambda: self._detach(claim)
        answer = self._client.call(self._client.controller.ControllerPublishVolume, request, claim.subject)
        self._publish_context[claim.volume.volume_id] = dict(answer.publish_context)

    def _detach(self, claim: Claim) -> None:
        request = pb.ControllerUnpublishVolumeRequest(volume_id=claim.volume.volume_id, node_id=self.info.node_id)
        self._client.call(self._client.controller.ControllerUnpublishVolume, request, claim.subject)
        self._forget("attach", claim.volume.volume_id)

    def _stage(self, claim: Claim, times: int) -> None:
        path = self._staging_path(claim)
        path.mkdir(parents=True)
        request = pb.NodeStageVolumeRequest(
            volume_id=claim.volume.volume_id,
            staging_target_path=str(path),
            volume_capability=claim.capability,
            volume_context=claim.volume.volume_context,
            publish_context=self._publish_context.get(claim.volume.volume_id),
        )
        self._held["stage", claim.volume.volume_id] = lambda: self._unstage(claim, 1)
        self._client.call(self._client.node.NodeStageVolume, request, claim.subject, times=times)

    def _unstage(self, claim: Claim, times: int) -> None:
        path = self._staging_path(claim)
        request = pb.NodeUnstageVolumeRequest(volume_id=claim.volume.volume_id, staging_target_path=str(path))
        self._client.call(self._client.node.NodeUnstageVolume, request, claim.subject, times=times)
        path.rmdir()
        self._forget("stage", claim.volume.volume_id)

    def _publish(self, claim: Claim, pod: str, read_only: bool, times: int) -> Path:
        path = self._target_path(claim, pod)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._held["publish", str(path)] = lambda: self._unpublish(claim, path, 1)
        subject = f"{claim.subject} for {pod}{', read-only' if read_only else ''}"
        request = self._publish_request(claim, path, read_only)
        self._client.call(self._client.node.NodePublishVolume, request, subject, times=times)
        return path

    def _unpublish(self, claim: Claim, path: Path, times: int) -> None:
        request = pb.NodeUnpublishVolumeRequest(volume_id=claim.volume.volume_id, target_path=str(path))
        self._client.call(self._client.node.NodeUnpublishVolume, request, claim.subject, times=times)
        self._forget("publish", str(path))

    def _publish_request(self, claim: Claim, path: Path, read_only: bool) -> pb.NodePublishVolumeRequest:
        return pb.NodePublishVolumeRequest(
            volume_id=claim.volume.volume_id,
            staging_target_path=str(self._staging_path(claim)),
            target_path=str(path),
            volume_capability=claim.capability,
            readonly=read_only,
            volume_context=claim.volume.volume_context,
            publish_context=self._publish_context.get(claim.volume.volume_id),
        )

    def _staging_path(self, claim: Claim) -> Path:
        return self._directory / "plugins" / claim.subject / "globalmount"

    def _target_path(self, claim: Claim, pod: str) -> Path:
        return self._directory / "pods" / pod / "volumes" / claim.subject

    # -- snapshots ----------------------------------------------------------------------------------

    def snapshot(self, claim: Claim, name: str, times: int = 1) -> pb.Snapshot:
        """Take a snapshot, as csi-snapshotter does."""
        request = pb.CreateSnapshotRequest(
            name=f"snapshot-{claim.subject}-{name}", source_volume_id=claim.volume.volume_id
        )
        method = self._client.controller.CreateSnapshot
        snapshot = self._client.call(method, request, f"{claim.subject}, {name}", times=times).snapshot
        if not snapshot.ready_to_use:
            raise MismatchError(f"the snapshot {name} of {claim.subject} is not ready")
        self._held["snapshot", snapshot.snapshot_id] = lambda: self.delete_snapshot(snapshot)
        return snapshot

    def delete_snapshot(self, snapshot: pb.Snapshot, times: int = 1) -> None:
        """Delete a snapshot."""
        request = pb.DeleteSnapshotRequest(snapshot_id=snapshot.snapshot_id)
        self._client.call(self._client.controller.DeleteSnapshot, request, snapshot.snapshot_id, times=times)
        self._forget("snapshot", snapshot.snapshot_id)

    def group_snapshot(self, claims: Sequence[Claim], name: str, times: int = 1) -> pb.VolumeGroupSnapshot:
        """Take snapshots of several volumes at one point in time."""
        request = pb.CreateVolumeGroupSnapshotRequest(
            name=f"group-{name}", source_volume_ids=[claim.volume.volume_id for claim in claims]
        )
        subject = " and ".join(claim.subject for claim in claims)
        method = self._client.group.CreateVolumeGroupSnapshot
        group = self._client.call(method, request, subject, times=times).group_snapshot
        self._held["group", group.group_snapshot_id] = lambda: self.delete_group_snapshot(group)
        return group

    def delete_group_snapshot(self, group: pb.VolumeGroupSnapshot, times: int = 1) -> None:
        """Delete a group and its snapshots."""
        ids = [snapshot.snapshot_id for snapshot in group.snapshots]
        request = pb.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id, snapshot_ids=ids)
        subject = group.group_snapshot_id
        self._client.call(self._client.group.DeleteVolumeGroupSnapshot, request, subject, times=times)
        self._forget("group", group.group_snapshot_id)

    # -- the end ------------------------------------------------------------------------------------

    def remaining(self) -> list[str]:
        """The ids of the volumes and snapshots that the driver still lists."""
        volumes = self._client.call(self._client.controller.ListVolumes, pb.ListVolumesRequest()).entries
        snapshots = self._client.call(self._client.controller.ListSnapshots, pb.ListSnapshotsRequest()).entries
        return [*(e.volume.volume_id for e in volumes), *(e.snapshot.snapshot_id for e in snapshots)]

    def release(self) -> list[str]:
        """Take away everything still held, in reverse; answer what could not be taken away, and why."""
        failures = []
        for key in reversed(list(self._held)):
            try:
                self._held[key]()
            except (MismatchError, OSError) as error:
                failures.append(f"{' '.join(key)}: {error}")
        return failures

    def _forget(self, *key: str) -> None:
        self._held.pop(key, None)
