"""A driver under test: a running server, a place for kubelet's paths, and calls in few words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import grpc

from csi_core._proto import csi_pb2 as pb
from csi_core.model import VolumeMode
from csi_core.node.growth import lacks_cap_sys_resource
from csi_core.testing.harness import AccessMode, ServerProcess, mounted, raw_block

__all__ = ["CALL_S", "DriverCase", "Pod", "refused"]

CALL_S = 180.0
"""Every call's deadline, that of the last of a hundred at once too, on a busy machine and slow storage."""

_DEFAULT_BYTES = 16 << 20

Q = TypeVar("Q")
R = TypeVar("R")
Code = grpc.StatusCode


def may_not_grow(fs_type: str) -> bool:
    """Whether the kernel refuses this process to grow such a filesystem while it is mounted."""
    return fs_type == "ext4" and lacks_cap_sys_resource()


@contextmanager
def refused(*codes: grpc.StatusCode) -> Iterator[None]:
    """The call within fails with one of ``codes``, a message for people, and nothing in ``status.details``."""
    try:
        yield
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        expected = " or ".join(code.name for code in codes)
        assert error.code() in codes, f"{error.code().name} instead of {expected}: {error.details()}"
        assert error.details(), "an error without a message"
        metadata = [key for key, _ in error.trailing_metadata() or ()]
        assert "grpc-status-details-bin" not in metadata, "status.details is to be empty"
    else:
        raise AssertionError(f"the call succeeded instead of failing with {' or '.join(code.name for code in codes)}")


class Pod:
    """A volume at kubelet's paths: the CO makes the staging directory, the driver makes the target."""

    def __init__(self, driver: DriverCase, volume_id: str, mode: VolumeMode, name: str = "pod") -> None:
        self._driver = driver
        self.volume_id = volume_id
        self.mode = mode
        directory = driver.directory / volume_id.replace("/", "-")
        self.staging_path = directory / "globalmount"
        self.target_path = directory / name / "mount"
        self.staging_path.mkdir(parents=True, exist_ok=True)
        self.target_path.parent.mkdir(exist_ok=True)

    def stage(self) -> None:
        """Controller publish where the driver wants it, then NodeStageVolume."""
        context = self._driver.publish(self.volume_id, self.mode)
        request = pb.NodeStageVolumeRequest(
            volume_id=self.volume_id,
            staging_target_path=str(self.staging_path),
            volume_capability=self._driver.capability(self.mode),
            publish_context=context,
            secrets=self._driver.secrets,
        )
        self._driver.server.node.NodeStageVolume(request, timeout=CALL_S)

    def publish(
        self,
        read_only: bool = False,
        access_mode: AccessMode.Mode.ValueType | None = None,
        target_path: Path | None = None,
    ) -> None:
        """NodePublishVolume."""
        request = pb.NodePublishVolumeRequest(
            volume_id=self.volume_id,
            staging_target_path=str(self.staging_path),
            target_path=str(target_path or self.target_path),
            volume_capability=self._driver.capability(self.mode, access_mode),
            readonly=read_only,
            secrets=self._driver.secrets,
        )
        self._driver.server.node.NodePublishVolume(request, timeout=CALL_S)

    def unpublish(self, target_path: Path | None = None) -> None:
        """NodeUnpublishVolume."""
        request = pb.NodeUnpublishVolumeRequest(
            volume_id=self.volume_id, target_path=str(target_path or self.target_path)
        )
        self._driver.server.node.NodeUnpublishVolume(request, timeout=CALL_S)

    def unstage(self) -> None:
        """NodeUnstageVolume, then controller unpublish."""
        request = pb.NodeUnstageVolumeRequest(volume_id=self.volume_id, staging_target_path=str(self.staging_path))
        self._driver.server.node.NodeUnstageVolume(request, timeout=CALL_S)
        self._driver.unpublish(self.volume_id)

    def start(self) -> None:
        """Stage and publish."""
        self.stage()
        self.publish()

    def stop(self) -> None:
        """Unpublish and unstage."""
        self.unpublish()
        self.unstage()

    @property
    def file(self) -> Path:
        """Where the pod writes: a file in the mounted directory, or the device."""
        return self.target_path / "data" if self.mode is VolumeMode.FILESYSTEM else self.target_path

    def write(self, content: bytes) -> None:
        """Write at the start of :attr:`file`, durably."""
        with self.file.open("wb" if self.mode is VolumeMode.FILESYSTEM else "r+b") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def read(self, size_bytes: int) -> bytes:
        """Read from the start of :attr:`file`."""
        with self.file.open("rb") as file:
            return file.read(size_bytes)


class DriverCase:
    """A driver and the volumes that the tests make with it.

    Args:
        server: it, running.
        directory: for staging and target paths.
        parameters: StorageClass parameters of the tests' volumes.
        secrets: what calls are made with.
        mutable: two settings of mutable parameters, for drivers with MODIFY_VOLUME.
        size_bytes: of the tests' volumes; its double must be possible too.
        fs_type: filesystem of mounted volumes: name it where sources are block devices; "" where they are directories.
        backend: the configured name of the backend under test.
        online_growth: False where this machine does not let the driver grow ``fs_type`` while it is mounted (ext4
            without CAP_SYS_RESOURCE): the call must then say so, and the filesystem grow when it is staged again. Found
            out from ``fs_type`` and this process's capabilities unless said.
    """

    def __init__(
        self,
        server: ServerProcess,
        directory: Path,
        *,
        backend: str,
        parameters: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        mutable: tuple[Mapping[str, str], ...] = (),
        size_bytes: int = _DEFAULT_BYTES,
        fs_type: str = "",
        online_growth: bool | None = None,
    ) -> None:
        self.server = server
        self.directory = directory
        self.backend = backend
        self.parameters = dict(parameters or {})
        self.secrets = dict(secrets or {})
        self.mutable = mutable
        self.size_bytes = size_bytes
        self.fs_type = fs_type
        self.online_growth = online_growth if online_growth is not None else not may_not_grow(fs_type)
        if not server.running:  # a test that failed in the middle of a restart must not fail all others
            server.restart()
        answer = server.controller.ControllerGetCapabilities(pb.ControllerGetCapabilitiesRequest(), timeout=CALL_S)
        kinds = pb.ControllerServiceCapability.RPC.Type
        self.capabilities = {kinds.Name(capability.rpc.type) for capability in answer.capabilities}

    def capability(self, mode: VolumeMode, access_mode: AccessMode.Mode.ValueType | None = None) -> pb.VolumeCapability:
        """How the tests use a volume."""
        wanted = AccessMode.SINGLE_NODE_WRITER if access_mode is None else access_mode
        return raw_block(wanted) if mode is VolumeMode.BLOCK else mounted(self.fs_type, wanted)

    def request(
        self,
        name: str,
        mode: VolumeMode = VolumeMode.FILESYSTEM,
        size_bytes: int = 0,
        source: pb.VolumeContentSource | None = None,
        access_mode: AccessMode.Mode.ValueType | None = None,
    ) -> pb.CreateVolumeRequest:
        """A request for a volume of the tests' size and class."""
        return pb.CreateVolumeRequest(
            name=name,
            capacity_range=pb.CapacityRange(required_bytes=size_bytes or self.size_bytes),
            volume_capabilities=[self.capability(mode, access_mode)],
            parameters={"backend": self.backend, **self.parameters},
            secrets=self.secrets,
            volume_content_source=source,
        )

    def send(self, request: pb.CreateVolumeRequest) -> pb.Volume:
        """CreateVolume."""
        return self.server.controller.CreateVolume(request, timeout=CALL_S).volume

    def create(
        self,
        name: str,
        mode: VolumeMode = VolumeMode.FILESYSTEM,
        size_bytes: int = 0,
        source: pb.VolumeContentSource | None = None,
    ) -> pb.Volume:
        """CreateVolume with :meth:`request`."""
        return self.send(self.request(name, mode, size_bytes, source))

    def delete(self, volume_id: str) -> None:
        """DeleteVolume."""
        request = pb.DeleteVolumeRequest(volume_id=volume_id, secrets=self.secrets)
        self.server.controller.DeleteVolume(request, timeout=CALL_S)

    def snapshot(self, name: str, volume_id: str) -> pb.Snapshot:
        """CreateSnapshot."""
        request = pb.CreateSnapshotRequest(name=name, source_volume_id=volume_id, secrets=self.secrets)
        return self.server.controller.CreateSnapshot(request, timeout=CALL_S).snapshot

    def delete_snapshot(self, snapshot_id: str) -> None:
        """DeleteSnapshot."""
        request = pb.DeleteSnapshotRequest(snapshot_id=snapshot_id, secrets=self.secrets)
        self.server.controller.DeleteSnapshot(request, timeout=CALL_S)

    def group(self, name: str, *volume_ids: str) -> pb.VolumeGroupSnapshot:
        """CreateVolumeGroupSnapshot."""
        request = pb.CreateVolumeGroupSnapshotRequest(name=name, source_volume_ids=volume_ids, secrets=self.secrets)
        return self.server.group.CreateVolumeGroupSnapshot(request, timeout=CALL_S).group_snapshot

    def expand(self, volume_id: str, size_bytes: int, mode: VolumeMode, path: Path | None = None) -> int:
        """ControllerExpandVolume where it is served, and NodeExpandVolume where a path is given: as Kubernetes does."""
        size, expanded_bytes = pb.CapacityRange(required_bytes=size_bytes), 0
        capability = self.capability(mode)
        if "EXPAND_VOLUME" in self.capabilities:
            controller = pb.ControllerExpandVolumeRequest(
                volume_id=volume_id, capacity_range=size, volume_capability=capability, secrets=self.secrets
            )
            expanded_bytes = self.server.controller.ControllerExpandVolume(controller, timeout=CALL_S).capacity_bytes
        if path is not None:
            node = pb.NodeExpandVolumeRequest(
                volume_id=volume_id, volume_path=str(path), capacity_range=size, volume_capability=capability
            )
            # 0 means "not known here": a directory has no size of its own.
            expanded_bytes = self.server.node.NodeExpandVolume(node, timeout=CALL_S).capacity_bytes or expanded_bytes
        return expanded_bytes

    def grow(self, pod: Pod, size_bytes: int) -> None:
        """Grow a volume under its pod; where the machine forbids that, by taking the pod down and up."""
        if self.online_growth or pod.mode is VolumeMode.BLOCK:
            assert self.expand(pod.volume_id, size_bytes, pod.mode, pod.target_path) == size_bytes
            return
        if os.statvfs(pod.target_path).f_blocks * os.statvfs(pod.target_path).f_frsize < size_bytes // 2:
            with refused(Code.FAILED_PRECONDITION):
                self.expand(pod.volume_id, size_bytes, pod.mode, pod.target_path)
            pod.stop()
            pod.start()

    def publish(self, volume_id: str, mode: VolumeMode, node_id: str = "", read_only: bool = False) -> dict[str, str]:
        """ControllerPublishVolume, where it is served; to this node unless another is named."""
        if "PUBLISH_UNPUBLISH_VOLUME" not in self.capabilities:
            return {}
        request = pb.ControllerPublishVolumeRequest(
            volume_id=volume_id,
            node_id=node_id or self.node_id,
            volume_capability=self.capability(mode),
            readonly=read_only,
            secrets=self.secrets,
        )
        return dict(self.server.controller.ControllerPublishVolume(request, timeout=CALL_S).publish_context)

    def unpublish(self, volume_id: str, node_id: str = "") -> None:
        """ControllerUnpublishVolume, where it is served; from every node unless one is named."""
        if "PUBLISH_UNPUBLISH_VOLUME" in self.capabilities:
            request = pb.ControllerUnpublishVolumeRequest(volume_id=volume_id, node_id=node_id, secrets=self.secrets)
            self.server.controller.ControllerUnpublishVolume(request, timeout=CALL_S)

    @property
    def node_id(self) -> str:
        """This node."""
        return self.server.node.NodeGetInfo(pb.NodeGetInfoRequest(), timeout=CALL_S).node_id

    def listed(self, max_entries: int = 0, token: str = "") -> pb.ListVolumesResponse:
        """ListVolumes: one page."""
        request = pb.ListVolumesRequest(max_entries=max_entries, starting_token=token)
        return self.server.controller.ListVolumes(request, timeout=CALL_S)

    def volume_ids(self) -> list[str]:
        """The ids of all volumes."""
        return [entry.volume.volume_id for entry in self.listed().entries]

    def snapshots(self) -> list[pb.Snapshot]:
        """All snapshots, where they can be listed."""
        if "LIST_SNAPSHOTS" not in self.capabilities:
            return []
        request = pb.ListSnapshotsRequest(secrets=self.secrets)
        answer = self.server.controller.ListSnapshots(request, timeout=CALL_S)
        return [entry.snapshot for entry in answer.entries]

    def call(self, send: Callable[[Q], R], request: Q) -> R:
        """Any call, with the kit's deadline."""
        return send(request, timeout=CALL_S)  # type: ignore[call-arg]  # stubs take it; Callable cannot say so

    def clear(self) -> None:
        """Take every pod down and delete everything, as at the end of each test."""
        for staging in self.directory.glob("*/globalmount"):
            volume_id = staging.parent.name.replace("-", "/", 1)
            for target in staging.parent.glob("*/mount*"):
                pod = Pod(self, volume_id, VolumeMode.FILESYSTEM)
                pod.unpublish(target)
            Pod(self, volume_id, VolumeMode.FILESYSTEM).unstage()
            shutil.rmtree(staging.parent)
        for snapshot in self.snapshots():
            if not snapshot.group_snapshot_id:
                self.delete_snapshot(snapshot.snapshot_id)
        for group_id in {s.group_snapshot_id for s in self.snapshots()}:
            request = pb.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group_id, secrets=self.secrets)
            self.server.group.DeleteVolumeGroupSnapshot(request, timeout=CALL_S)
        for volume_id in self.volume_ids():
            self.unpublish(volume_id)
            self.delete(volume_id)
