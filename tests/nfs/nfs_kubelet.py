"""The kubelet's place on a host: a driver of role ``node``, the calls that it gets, and the paths that pods see."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import pytest
from hosts import Host

from csi_core._proto import csi_pb2 as pb
from csi_core.testing.harness import AccessMode, ServerProcess, mounted

CALL_S = 60.0
RWX = AccessMode.MULTI_NODE_MULTI_WRITER
ROX = AccessMode.MULTI_NODE_READER_ONLY
RWO = AccessMode.SINGLE_NODE_MULTI_WRITER


@contextmanager
def refused(code: grpc.StatusCode, said: str) -> Iterator[None]:
    """The call within fails with ``code`` and says so."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    error = caught.value
    assert isinstance(error, grpc.Call)
    assert (error.code(), said in error.details()) == (code, True), f"{error.code()}: {error.details()}"


@dataclass(frozen=True)
class Claim:
    """A volume as a PersistentVolume has it."""

    volume_id: str
    context: Mapping[str, str]
    mode: AccessMode.Mode.ValueType = RWX
    mount_flags: tuple[str, ...] = ()

    @property
    def capability(self) -> pb.VolumeCapability:
        """How its pods use it."""
        return mounted(mode=self.mode, mount_flags=self.mount_flags)


class Kubelet:
    """The node driver of one host, and the calls to it. ``with`` ends the driver; what is mounted stays."""

    def __init__(self, host: Host, directory: Path, options: Mapping[str, object] | None = None) -> None:
        config = {
            "driver": {"nodeId": host.name},
            "backends": {"nfs": {"options": {"role": "node", **(options or {})}}},
        }
        self.host = host
        self.driver = ServerProcess(config, directory / host.name, run_on=host.enter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.driver.close()

    def staging(self, claim: Claim) -> Path:
        """The staging path, on the host."""
        return Path("/run/kubelet") / claim.volume_id / "globalmount"

    def target(self, claim: Claim, pod: str = "pod") -> Path:
        """A pod's path, on the host."""
        return Path("/run/kubelet") / claim.volume_id / pod / "mount"

    def files(self, claim: Claim, pod: str = "pod") -> Path:
        """The same path, for the test to read and write."""
        return self.host.path(self.target(claim, pod))

    def stage(self, claim: Claim, timeout_s: float = CALL_S) -> None:
        """NodeStageVolume."""
        with suppress(FileExistsError):  # and no look at it: it may be a mount of a server that is dead
            os.makedirs(self.host.path(self.staging(claim)))  # noqa: PTH103 - Path.mkdir() looks
        request = pb.NodeStageVolumeRequest(
            volume_id=claim.volume_id,
            staging_target_path=str(self.staging(claim)),
            volume_capability=claim.capability,
            volume_context=claim.context,
        )
        self.driver.node.NodeStageVolume(request, timeout=timeout_s)

    def publish(self, claim: Claim, pod: str = "pod", *, read_only: bool = False) -> Path:
        """NodePublishVolume; answer where the test finds the pod's files."""
        request = pb.NodePublishVolumeRequest(
            volume_id=claim.volume_id,
            staging_target_path=str(self.staging(claim)),
            target_path=str(self.target(claim, pod)),
            volume_capability=claim.capability,
            volume_context=claim.context,
            readonly=read_only,
        )
        self.driver.node.NodePublishVolume(request, timeout=CALL_S)
        return self.files(claim, pod)

    def run_pod(self, claim: Claim, pod: str = "pod") -> Path:
        """Stage and publish."""
        self.stage(claim)
        return self.publish(claim, pod)

    def unpublish(self, claim: Claim, pod: str = "pod") -> None:
        """NodeUnpublishVolume."""
        request = pb.NodeUnpublishVolumeRequest(volume_id=claim.volume_id, target_path=str(self.target(claim, pod)))
        self.driver.node.NodeUnpublishVolume(request, timeout=CALL_S)

    def unstage(self, claim: Claim) -> None:
        """NodeUnstageVolume."""
        request = pb.NodeUnstageVolumeRequest(volume_id=claim.volume_id, staging_target_path=str(self.staging(claim)))
        self.driver.node.NodeUnstageVolume(request, timeout=CALL_S)

    def stop_pod(self, claim: Claim, pod: str = "pod") -> None:
        """Unpublish and unstage."""
        self.unpublish(claim, pod)
        self.unstage(claim)

    def stats(self, claim: Claim, pod: str = "pod") -> pb.NodeGetVolumeStatsResponse:
        """NodeGetVolumeStats."""
        request = pb.NodeGetVolumeStatsRequest(volume_id=claim.volume_id, volume_path=str(self.target(claim, pod)))
        return self.driver.node.NodeGetVolumeStats(request, timeout=CALL_S)
