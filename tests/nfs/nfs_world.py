"""A driver that is controller and node at once on this machine's NFS server, in both modes, for sanity and kills."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from driver import CALL_S, VOLUME_BYTES, Cluster, Pod
from export_server import Disks, command
from killing import World

from csi_core._proto import csi_pb2 as pb
from csi_core.testing.harness import AccessMode, ServerProcess, create_request, mounted

__all__ = ["MODES", "NODE", "NfsCluster", "NfsWorld", "options_of"]

MODES = ("export", "share")
NODE = "node-a"
_COMMON = {"capacity": "4Gi", "nodeAddresses": {NODE: "127.0.0.1"}, "resolveNodes": False}
"""Less capacity than the disk has, so that what is available depends on volumes alone."""
_KNOWN = (".csi-core", "lock")
_NUMBERS = itertools.count()


@contextmanager
def options_of(mode: str, disks: Disks, directory: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """Options of the backend, and where its volumes are; a share is mounted for the controller as for any client."""
    number = next(_NUMBERS)
    root = disks["xfs"] / f"{mode}-{number}"
    root.mkdir()
    options: dict[str, Any] = {"mode": mode, "server": "127.0.0.1"}
    if mode == "export":
        yield options | {"export": {"root": str(root), **_COMMON}}, root
        return
    there = directory / f"share-{number}"
    there.mkdir(parents=True)
    command("exportfs", "-o", f"rw,no_root_squash,no_subtree_check,fsid={9000 + number}", f"127.0.0.1:{root}")
    command("mount", "-t", "nfs4", f"127.0.0.1:{root}", str(there))
    share = {"root": str(there), "path": str(root), "overcommit": 1, "checkNodes": True, **_COMMON}
    try:
        yield options | {"share": share}, root
    finally:
        command("umount", str(there))
        command("exportfs", "-u", f"127.0.0.1:{root}")


class NfsCluster(Cluster):
    """Kubernetes' calls to a driver with controller publish."""

    def __init__(self, server: ServerProcess, kubelet: Path) -> None:
        super().__init__(server, kubelet)
        self._contexts: dict[str, Mapping[str, str]] = {}

    @property
    def capability(self) -> pb.VolumeCapability:
        """ReadWriteOnce; a share has no filesystem type to choose."""
        return mounted("", AccessMode.SINGLE_NODE_MULTI_WRITER)

    def create(
        self,
        name: str,
        *,
        source: pb.VolumeContentSource | None = None,
        fs_type: str = "",
        size_bytes: int = VOLUME_BYTES,
        **parameters: str,
    ) -> pb.Volume:
        request = create_request(name, size_bytes, capability=self.capability, parameters=parameters, source=source)
        volume = self.server.controller.CreateVolume(request, timeout=CALL_S).volume
        self._contexts[volume.volume_id] = dict(volume.volume_context)
        return volume

    def let_in(self, volume_id: str) -> None:
        """ControllerPublishVolume."""
        request = pb.ControllerPublishVolumeRequest(
            volume_id=volume_id, node_id=NODE, volume_capability=self.capability
        )
        self.server.controller.ControllerPublishVolume(request, timeout=CALL_S)

    def mountable(self, volume_id: str) -> bool:
        """Whether the server lets this machine mount the volume; it is asked with a mount by hand."""
        context, path = self._contexts[volume_id], self.pod(volume_id).staging
        what = f"{context['server']}:{context['share']}"
        argv = ["mount", "-t", "nfs4", "-o", "vers=4.2,retry=0", what, str(path)]
        if subprocess.run(argv, capture_output=True, check=False).returncode:
            return False
        command("umount", str(path))
        return True

    def keep_out(self, volume_id: str) -> None:
        """ControllerUnpublishVolume."""
        request = pb.ControllerUnpublishVolumeRequest(volume_id=volume_id, node_id=NODE)
        self.server.controller.ControllerUnpublishVolume(request, timeout=CALL_S)

    def stage(self, volume_id: str, fs_type: str = "") -> None:
        self.let_in(volume_id)
        request = pb.NodeStageVolumeRequest(
            volume_id=volume_id,
            staging_target_path=str(self.pod(volume_id).staging),
            volume_capability=self.capability,
            volume_context=self._contexts[volume_id],
        )
        self.server.node.NodeStageVolume(request, timeout=CALL_S)

    def publish(self, volume_id: str, fs_type: str = "") -> Pod:
        pod = self.pod(volume_id)
        request = pb.NodePublishVolumeRequest(
            volume_id=volume_id,
            staging_target_path=str(pod.staging),
            target_path=str(pod.target),
            volume_capability=self.capability,
            volume_context=self._contexts[volume_id],
        )
        self.server.node.NodePublishVolume(request, timeout=CALL_S)
        return pod

    def unstage(self, volume_id: str) -> None:
        super().unstage(volume_id)
        self.keep_out(volume_id)

    def modify(self, volume_id: str, **parameters: str) -> None:
        """ControllerModifyVolume."""
        request = pb.ControllerModifyVolumeRequest(volume_id=volume_id, mutable_parameters=parameters)
        self.server.controller.ControllerModifyVolume(request, timeout=CALL_S)

    def grow(self, volume_id: str, size_bytes: int) -> int:
        """ControllerExpandVolume: nothing is left to do on the node."""
        request = pb.ControllerExpandVolumeRequest(
            volume_id=volume_id, capacity_range=pb.CapacityRange(required_bytes=size_bytes)
        )
        return self.server.controller.ControllerExpandVolume(request, timeout=CALL_S).capacity_bytes


class NfsWorld(World):
    """One root or share; every scenario must leave it as it was."""

    def __init__(self, directory: Path, options: Mapping[str, Any], storage: Path) -> None:
        self._directory = directory
        self._options = options
        self.storage = storage

    def server(self, **environment: str) -> ServerProcess:
        config = {"driver": {"nodeId": NODE}, "backends": {"nfs": {"options": dict(self._options)}}}
        return ServerProcess(config, self._directory, env=environment)

    def cluster(self, server: ServerProcess, kubelet: Path) -> NfsCluster:
        return NfsCluster(server, kubelet)

    def left(self) -> list[str]:
        own = [self.storage, self.storage / ".csi-core"]
        places = ("volumes", "snapshots", "groups", "new", "trash")
        found = [path for directory in own for place in places for path in directory.glob(f"{place}/*")]
        strangers = [path for directory in own for path in directory.glob("*") if path.name not in (*places, *_KNOWN)]
        return sorted(map(str, [*found, *(path for path in strangers if not path.name.startswith("archived-"))]))
