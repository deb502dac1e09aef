"""The sidecars' side of the driver: the requests that provisioner, snapshotter, resizer and attacher make."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from csi_core._proto import csi_pb2 as pb
from csi_core._proto import csi_pb2_grpc as rpc
from csi_core.testing.harness import AccessMode, from_snapshot, from_volume

__all__ = ["Connection", "Sidecars", "Volume", "access_mode", "quantity_bytes"]

Object = Mapping[str, Any]
Answer = TypeVar("Answer")
CALL_S = 60.0
FINAL_S = 180.0
RETRY_S = 0.5
NOT_FINAL = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
}
KUBERNETES_PREFIX = "csi.storage.k8s.io/"
PROVISIONER_IDENTITY = "storage.kubernetes.io/csiProvisionerIdentity"
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "M": 10**6, "G": 10**9}


class Connection:
    """A driver's socket, and what it says it can do."""

    def __init__(self, socket: Path) -> None:
        self.channel = grpc.insecure_channel(f"unix://{socket}", [("grpc.max_reconnect_backoff_ms", 200)])
        self.identity = rpc.IdentityStub(self.channel)
        self.controller = rpc.ControllerStub(self.channel)
        self.node = rpc.NodeStub(self.channel)
        self.group = rpc.GroupControllerStub(self.channel)

    def capabilities(self) -> dict[str, set[str]]:
        """By service: plugin, controller, node, group; the names of CSI's enums."""
        plugin = self.identity.GetPluginCapabilities(pb.GetPluginCapabilitiesRequest(), timeout=CALL_S)
        controller = self.controller.ControllerGetCapabilities(pb.ControllerGetCapabilitiesRequest(), timeout=CALL_S)
        node = self.node.NodeGetCapabilities(pb.NodeGetCapabilitiesRequest(), timeout=CALL_S)
        kind = pb.PluginCapability.Service.Type
        answers = {
            "plugin": {kind.Name(c.service.type) for c in plugin.capabilities if c.HasField("service")},
            "controller": _rpc_names(controller.capabilities, pb.ControllerServiceCapability.RPC.Type),
            "node": _rpc_names(node.capabilities, pb.NodeServiceCapability.RPC.Type),
            "group": set[str](),
        }
        if "GROUP_CONTROLLER_SERVICE" in answers["plugin"]:
            asked = pb.GroupControllerGetCapabilitiesRequest()
            group = self.group.GroupControllerGetCapabilities(asked, timeout=CALL_S)
            answers["group"] = _rpc_names(group.capabilities, pb.GroupControllerServiceCapability.RPC.Type)
        return answers


def _final(call: Callable[..., Answer], request: Message) -> Answer:
    """Repeat a call until its answer is final, as sidecars do where it may still be running."""
    ends_at = time.monotonic() + FINAL_S
    while True:
        try:
            return call(request, timeout=CALL_S)
        except grpc.RpcError as error:
            if error.code() not in NOT_FINAL or time.monotonic() > ends_at:
                raise
            time.sleep(RETRY_S)


def _rpc_names(capabilities: Any, kind: Any) -> set[str]:
    return {kind.Name(capability.rpc.type) for capability in capabilities}


@dataclass
class Volume:
    """A PersistentVolume, as far as kubelet needs it."""

    name: str
    handle: str
    size_bytes: int
    access_modes: Sequence[str]
    block: bool = False
    fs_type: str = ""
    mount_options: Sequence[str] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    topology: Sequence[Mapping[str, str]] = ()
    reclaim: str = "Delete"
    read_only: bool = False
    publish_context: Mapping[str, str] = field(default_factory=dict)

    def capability(self, tells_writers_apart: bool) -> pb.VolumeCapability:
        """Of its first access mode, as all of Kubernetes asks for it."""
        mode = access_mode(self.access_modes[0], tells_writers_apart)
        if self.block:
            return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=mode)
        mount = pb.VolumeCapability.MountVolume(fs_type=self.fs_type, mount_flags=self.mount_options)
        return pb.VolumeCapability(mount=mount, access_mode=mode)


def access_mode(kubernetes: str, tells_writers_apart: bool) -> AccessMode:
    """CSI's mode of a Kubernetes one, which depends on the capability SINGLE_NODE_MULTI_WRITER."""
    modes = {
        "ReadWriteOnce": AccessMode.SINGLE_NODE_MULTI_WRITER if tells_writers_apart else AccessMode.SINGLE_NODE_WRITER,
        "ReadWriteOncePod": AccessMode.SINGLE_NODE_SINGLE_WRITER
        if tells_writers_apart
        else AccessMode.SINGLE_NODE_WRITER,
        "ReadOnlyMany": AccessMode.MULTI_NODE_READER_ONLY,
        "ReadWriteMany": AccessMode.MULTI_NODE_MULTI_WRITER,
    }
    return AccessMode(mode=modes[kubernetes])


def quantity_bytes(quantity: str | int) -> int:
    """A Kubernetes quantity in bytes."""
    text = str(quantity)
    unit = next((unit for unit in UNITS if text.endswith(unit)), "")
    return int(text.removesuffix(unit)) * UNITS.get(unit, 1)


class Sidecars:
    """Those beside a driver's controller service, with the arguments that the chart gives them.

    Args:
        driver: the socket that they talk to.
        arguments: of each sidecar, by container.
        topology: of the node that a pod was scheduled to.
    """

    def __init__(
        self, driver: Connection, arguments: Mapping[str, Mapping[str, str]], topology: Mapping[str, str]
    ) -> None:
        self.driver = driver
        self._arguments = arguments
        self._topology = topology
        self.can = driver.capabilities()
        self.tells_writers_apart = "SINGLE_NODE_MULTI_WRITER" in self.can["controller"]

    def provision(
        self,
        claim: Object,
        storage_class: Object,
        *,
        source: pb.VolumeContentSource | None = None,
        mutable: Mapping[str, str] | None = None,
    ) -> Volume:
        """csi-provisioner: CreateVolume for a claim, and the PersistentVolume of the answer."""
        arguments = self._arguments["csi-provisioner"]
        asked = storage_class.get("parameters") or {}
        name = f"pvc-{uuid.uuid4()}"
        parameters = {key: value for key, value in asked.items() if not key.startswith(KUBERNETES_PREFIX)}
        if "extra-create-metadata" in arguments:
            parameters |= {
                f"{KUBERNETES_PREFIX}pvc/name": claim["metadata"]["name"],
                f"{KUBERNETES_PREFIX}pvc/namespace": claim["metadata"].get("namespace", "default"),
                f"{KUBERNETES_PREFIX}pv/name": name,
            }
        spec = claim["spec"]
        volume = Volume(
            name=name,
            handle="",
            size_bytes=quantity_bytes(spec["resources"]["requests"]["storage"]),
            access_modes=spec["accessModes"],
            block=spec.get("volumeMode") == "Block",
            fs_type=asked.get(f"{KUBERNETES_PREFIX}fstype") or arguments.get("default-fstype", ""),
            mount_options=storage_class.get("mountOptions") or (),
            reclaim=storage_class.get("reclaimPolicy", "Delete"),
        )
        request = pb.CreateVolumeRequest(
            name=name,
            capacity_range=pb.CapacityRange(required_bytes=volume.size_bytes),
            parameters=parameters,
            mutable_parameters=mutable or {},
            volume_content_source=source,
        )
        for mode in volume.access_modes:
            one = Volume(**{**vars(volume), "access_modes": [mode]})
            request.volume_capabilities.append(one.capability(self.tells_writers_apart))
        if "VOLUME_ACCESSIBILITY_CONSTRAINTS" in self.can["plugin"]:
            here = pb.Topology(segments=self._topology)
            request.accessibility_requirements.CopyFrom(pb.TopologyRequirement(requisite=[here], preferred=[here]))
        made = _final(self.driver.controller.CreateVolume, request).volume
        assert made.capacity_bytes >= volume.size_bytes, "the provisioner deletes a volume that is too small"
        assert not source or made.HasField("content_source"), "the provisioner deletes a volume that has no source"
        volume.handle = made.volume_id
        volume.size_bytes = made.capacity_bytes
        volume.attributes = {**made.volume_context, PROVISIONER_IDENTITY: f"1700000000000-1234-{name}"}
        volume.topology = [dict(topology.segments) for topology in made.accessible_topology]
        return volume

    def delete(self, volume: Volume) -> None:
        """csi-provisioner: DeleteVolume."""
        _final(self.driver.controller.DeleteVolume, pb.DeleteVolumeRequest(volume_id=volume.handle))

    def attach(self, volume: Volume, node_id: str) -> None:
        """csi-attacher: ControllerPublishVolume."""
        request = pb.ControllerPublishVolumeRequest(
            volume_id=volume.handle,
            node_id=node_id,
            volume_capability=volume.capability(self.tells_writers_apart),
            volume_context=volume.attributes,
        )
        volume.publish_context = dict(_final(self.driver.controller.ControllerPublishVolume, request).publish_context)

    def detach(self, volume: Volume, node_id: str) -> None:
        """csi-attacher: ControllerUnpublishVolume."""
        request = pb.ControllerUnpublishVolumeRequest(volume_id=volume.handle, node_id=node_id)
        _final(self.driver.controller.ControllerUnpublishVolume, request)

    def snapshot(self, snapshot: Object, volume: Volume, snapshot_class: Object) -> pb.Snapshot:
        """csi-snapshotter: CreateSnapshot, repeated until it can be used."""
        name = f"snapshot-{uuid.uuid4()}"
        parameters = dict(snapshot_class.get("parameters") or {})
        if "extra-create-metadata" in self._arguments["csi-snapshotter"]:
            prefix = f"{KUBERNETES_PREFIX}volumesnapshot"
            parameters |= {
                f"{prefix}/name": snapshot["metadata"]["name"],
                f"{prefix}/namespace": snapshot["metadata"].get("namespace", "default"),
                f"{prefix}content/name": name.replace("snapshot", "snapcontent"),
            }
        request = pb.CreateSnapshotRequest(name=name, source_volume_id=volume.handle, parameters=parameters)
        for _ in range(100):
            made = _final(self.driver.controller.CreateSnapshot, request).snapshot
            if made.ready_to_use:
                return made
        raise AssertionError(f"the snapshot {made.snapshot_id} does not get ready")

    def delete_snapshot(self, snapshot_id: str) -> None:
        """csi-snapshotter: DeleteSnapshot."""
        _final(self.driver.controller.DeleteSnapshot, pb.DeleteSnapshotRequest(snapshot_id=snapshot_id))

    def snapshot_group(self, volumes: Sequence[Volume], group_class: Object) -> pb.VolumeGroupSnapshot:
        """csi-snapshotter: CreateVolumeGroupSnapshot."""
        request = pb.CreateVolumeGroupSnapshotRequest(
            name=f"groupsnapshot-{uuid.uuid4()}",
            source_volume_ids=[volume.handle for volume in volumes],
            parameters=group_class.get("parameters") or {},
        )
        return _final(self.driver.group.CreateVolumeGroupSnapshot, request).group_snapshot

    def delete_group(self, group: pb.VolumeGroupSnapshot) -> None:
        """csi-snapshotter: DeleteVolumeGroupSnapshot."""
        members = [snapshot.snapshot_id for snapshot in group.snapshots]
        request = pb.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id, snapshot_ids=members)
        _final(self.driver.group.DeleteVolumeGroupSnapshot, request)

    def expand(self, volume: Volume, size_bytes: int) -> bool:
        """csi-resizer: ControllerExpandVolume where the driver has it; answers whether the node has to do something."""
        if "EXPAND_VOLUME" not in self.can["controller"]:
            return "EXPAND_VOLUME" in self.can["node"]
        request = pb.ControllerExpandVolumeRequest(
            volume_id=volume.handle,
            capacity_range=pb.CapacityRange(required_bytes=size_bytes),
            volume_capability=volume.capability(self.tells_writers_apart),
        )
        answer = _final(self.driver.controller.ControllerExpandVolume, request)
        assert answer.capacity_bytes >= size_bytes
        return answer.node_expansion_required

    def modify(self, volume: Volume, parameters: Mapping[str, str]) -> None:
        """csi-resizer: ControllerModifyVolume, for a claim's new VolumeAttributesClass."""
        request = pb.ControllerModifyVolumeRequest(volume_id=volume.handle, mutable_parameters=parameters)
        _final(self.driver.controller.ControllerModifyVolume, request)


def source_of(snapshot_id: str = "", volume: Volume | None = None) -> pb.VolumeContentSource | None:
    """What a claim's dataSource means."""
    if snapshot_id:
        return from_snapshot(snapshot_id)
    return from_volume(volume.handle) if volume else None
