"""Kubelet's side of the driver: its directories, its calls, and what a pod then sees."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import Machine
from sidecars import CALL_S, Connection, Volume

from csi_core._proto import csi_pb2 as pb

__all__ = ["Kubelet", "PodVolume"]

Object = Mapping[str, Any]
POD_INFO = "csi.storage.k8s.io"
PAYLOAD_BYTES = 1 << 20


@dataclass
class PodVolume:
    """A volume that one pod uses; ``target`` is what it sees, as a path of the node.

    ``staging`` is empty for inline volumes, which are not staged.
    """

    volume: Volume
    target: str
    staging: str
    read_only: bool
    node: Machine

    @property
    def path(self) -> Path:
        """The target, on this machine."""
        return self.node.host_path(self.target)

    @property
    def _file(self) -> Path:
        return self.path if self.volume.block else self.path / "data"

    def write(self) -> str:
        """Write something durable, as a pod would; answers its digest. One that must not write is refused."""
        payload = os.urandom(PAYLOAD_BYTES)
        try:
            with self._file.open("r+b" if self.volume.block else "wb", buffering=0) as file:
                file.write(payload)
                os.fsync(file.fileno())
        except OSError as error:
            assert self.read_only, f"a pod cannot write to {self.target}: {error}"
            assert error.errno in (errno.EROFS, errno.EPERM, errno.EACCES)
            return ""
        assert not self.read_only, f"a pod can write to {self.target}, which is read-only"
        return hashlib.sha256(payload).hexdigest()

    def read(self) -> str:
        """The digest of what is there."""
        with self._file.open("rb") as file:
            return hashlib.sha256(file.read(PAYLOAD_BYTES)).hexdigest()

    def size_bytes(self) -> int:
        """The size that a pod sees."""
        if self.volume.block:
            with self.path.open("rb") as device:
                return device.seek(0, os.SEEK_END)
        found = os.statvfs(self.path)
        return found.f_blocks * found.f_frsize


@dataclass
class Kubelet:
    """The kubelet of one node.

    Args:
        node: the machine.
        driver: the driver's socket, as registered.
        csi_driver: the CSIDriver object.
        directory: kubelet's own.
    """

    node: Machine
    driver: Connection
    csi_driver: Object
    directory: str = "/var/lib/kubelet"
    staged: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.can = self.driver.capabilities()["node"]

    def _capability(self, volume: Volume) -> pb.VolumeCapability:
        return volume.capability("SINGLE_NODE_MULTI_WRITER" in self.can)

    def mount(self, volume: Volume, *, read_only: bool = False) -> PodVolume:
        """NodeStageVolume unless it is staged, and NodePublishVolume, for a pod of its own."""
        if volume.handle not in self.staged:
            self.staged[volume.handle] = self._stage(volume)
        pod_uid = str(uuid.uuid4())
        if volume.block:
            target = f"{self.directory}/plugins/kubernetes.io/csi/volumeDevices/publish/{volume.name}/{pod_uid}"
        else:
            target = f"{self.directory}/pods/{pod_uid}/volumes/kubernetes.io~csi/{volume.name}/mount"
        used = PodVolume(volume, target, self.staged[volume.handle], read_only, self.node)
        self.publish(used, pod_uid)
        return used

    def mount_inline(self, name: str, source: Object) -> PodVolume:
        """NodePublishVolume of a volume in a pod's specification: made with the pod, gone with it."""
        assert "Ephemeral" in self.csi_driver["spec"]["volumeLifecycleModes"], "kubelet refuses inline volumes"
        pod_uid = str(uuid.uuid4())
        handle = f"csi-{hashlib.sha256(f'{pod_uid}/{name}'.encode()).hexdigest()}"
        volume = Volume(
            name,
            handle,
            0,
            ["ReadWriteOncePod"],
            fs_type=source.get("fsType", ""),
            attributes=source["volumeAttributes"],
        )
        target = f"{self.directory}/pods/{pod_uid}/volumes/kubernetes.io~csi/{name}/mount"
        used = PodVolume(volume, target, "", source.get("readOnly", False), self.node)
        self.publish(used, pod_uid)
        return used

    def _stage(self, volume: Volume) -> str:
        csi = f"{self.directory}/plugins/kubernetes.io/csi"
        if volume.block:
            staging = f"{csi}/volumeDevices/staging/{volume.name}"
        else:
            name = self.csi_driver["metadata"]["name"]
            staging = f"{csi}/{name}/{hashlib.sha256(volume.handle.encode()).hexdigest()}/globalmount"
        self.node.host_path(staging).mkdir(parents=True)
        request = pb.NodeStageVolumeRequest(
            volume_id=volume.handle,
            publish_context=volume.publish_context,
            staging_target_path=staging,
            volume_capability=self._capability(volume),
            volume_context=volume.attributes,
        )
        self.driver.node.NodeStageVolume(request, timeout=CALL_S)
        return staging

    def publish(self, used: PodVolume, pod_uid: str) -> None:
        """NodePublishVolume, with what the CSIDriver object asks for."""
        used.path.parent.mkdir(parents=True, exist_ok=True)
        context = dict(used.volume.attributes)
        if self.csi_driver["spec"].get("podInfoOnMount"):
            context |= {
                f"{POD_INFO}/pod.name": "example-0",
                f"{POD_INFO}/pod.namespace": "default",
                f"{POD_INFO}/pod.uid": pod_uid,
                f"{POD_INFO}/serviceAccount.name": "default",
                f"{POD_INFO}/ephemeral": "false" if used.staging else "true",
            }
        request = pb.NodePublishVolumeRequest(
            volume_id=used.volume.handle,
            publish_context=used.volume.publish_context,
            staging_target_path=used.staging,
            target_path=used.target,
            volume_capability=self._capability(used.volume),
            readonly=used.read_only,
            volume_context=context,
        )
        if not used.staging:
            request.volume_capability.access_mode.mode = pb.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
        self.driver.node.NodePublishVolume(request, timeout=CALL_S)

    def unmount(self, used: PodVolume) -> None:
        """NodeUnpublishVolume; the pod is gone."""
        request = pb.NodeUnpublishVolumeRequest(volume_id=used.volume.handle, target_path=used.target)
        self.driver.node.NodeUnpublishVolume(request, timeout=CALL_S)
        assert not used.path.exists(), f"{used.target} is left: kubelet never gets rid of the pod"

    def unstage(self, volume: Volume) -> None:
        """NodeUnstageVolume; no pod here uses it any more."""
        staging = self.staged.pop(volume.handle)
        request = pb.NodeUnstageVolumeRequest(volume_id=volume.handle, staging_target_path=staging)
        self.driver.node.NodeUnstageVolume(request, timeout=CALL_S)
        self.node.host_path(staging).rmdir()

    def expand(self, used: PodVolume, size_bytes: int) -> None:
        """NodeExpandVolume while a pod uses it."""
        request = pb.NodeExpandVolumeRequest(
            volume_id=used.volume.handle,
            volume_path=used.target,
            staging_target_path=used.staging,
            capacity_range=pb.CapacityRange(required_bytes=size_bytes),
            volume_capability=self._capability(used.volume),
        )
        self.driver.node.NodeExpandVolume(request, timeout=CALL_S)

    def usage_bytes(self, used: PodVolume) -> int:
        """NodeGetVolumeStats: the total that kubelet's metrics show."""
        request = pb.NodeGetVolumeStatsRequest(volume_id=used.volume.handle, volume_path=used.target)
        answer = self.driver.node.NodeGetVolumeStats(request, timeout=CALL_S)
        return next(usage.total for usage in answer.usage if usage.unit == pb.VolumeUsage.BYTES)
