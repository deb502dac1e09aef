"""The node calls in one place. Each may come again after any interruption, in this process or the next one.

The server holds a lock per volume around every call and has judged the request; here the rules about
paths and mounts are kept. Two volumes at one path are kept apart by a lock per path.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from csi_core.errors import InvalidArgument
from csi_core.locks import Key, KeyedLocks
from csi_core.model import Reach, SizeRange, VolumeCapability, VolumeMode, VolumeSpec
from csi_core.node import ephemeral, freeze, publishing, staging, stats
from csi_core.node.mounted import MountedFilesystem
from csi_core.node.mountinfo import canonical
from csi_core.node.mounts import Mounts
from csi_core.node.requests import NodePublishRequest, StageRequest, VolumeUsage

if TYPE_CHECKING:
    from csi_core.facade import Backend

__all__ = ["NodeVolumes"]


class NodeVolumes:
    """Stages, publishes, measures and grows volumes on this node.

    Args:
        mounts: the node's mounts, real or simulated.
        node_id: this node's name, as in NodeGetInfo.
    """

    def __init__(self, mounts: Mounts, node_id: str) -> None:
        self.node_id = node_id
        self._mounts = mounts
        self._paths = KeyedLocks()

    def stage(self, backend: Backend, request: StageRequest) -> None:
        """CSI "NodeStageVolume"; see :func:`csi_core.node.staging.stage`."""
        with self._path("NodeStageVolume", request.staging_path):
            staging.stage(self._mounts, backend, request)

    def unstage(self, backend: Backend, handle: str, staging_path: Path) -> None:
        """CSI "NodeUnstageVolume"; see :func:`csi_core.node.staging.unstage`."""
        with self._path("NodeUnstageVolume", staging_path):
            staging.unstage(self._mounts, backend, handle, staging_path)

    def publish(self, backend: Backend, request: NodePublishRequest) -> None:
        """CSI "NodePublishVolume"; see :func:`csi_core.node.publishing.publish`."""
        with self._path("NodePublishVolume", request.target_path):
            publishing.publish(self._mounts, backend, request)

    def unpublish(self, backend: Backend, handle: str, target_path: Path) -> None:  # noqa: ARG002
        """CSI "NodeUnpublishVolume"; see :func:`csi_core.node.publishing.unpublish`."""
        with self._path("NodeUnpublishVolume", target_path):
            publishing.unpublish(self._mounts, target_path)

    def publish_ephemeral(
        self, backend: Backend, volume_id: str, spec: VolumeSpec, request: NodePublishRequest
    ) -> None:
        """CSI "NodePublishVolume" of an inline volume; see :func:`csi_core.node.ephemeral.publish_ephemeral`."""
        with self._path("NodePublishVolume", request.target_path):
            ephemeral.publish_ephemeral(self._mounts, backend, volume_id, spec, request)

    def unpublish_ephemeral(self, backend: Backend, volume_id: str, target_path: Path) -> None:
        """CSI "NodeUnpublishVolume" of an inline volume; see :func:`csi_core.node.ephemeral.unpublish_ephemeral`."""
        with self._path("NodeUnpublishVolume", target_path):
            ephemeral.unpublish_ephemeral(self._mounts, backend, volume_id, target_path)

    def stats(self, backend: Backend, handle: str, volume_path: Path) -> tuple[VolumeUsage, ...]:
        """CSI "NodeGetVolumeStats"; see :func:`csi_core.node.stats.usage`."""
        return stats.usage(self._mounts, backend, handle, volume_path)

    def expand(
        self,
        backend: Backend,
        handle: str,
        volume_path: Path,
        size: SizeRange,
        capability: VolumeCapability | None,
    ) -> int:
        """Grow a volume that is in use: its storage where that is local, then its filesystem (CSI "NodeExpandVolume").

        Args:
            backend: whose volume it is.
            handle: the backend's name for it.
            volume_path: a target or staging path.
            size: what is asked for, in bytes; empty for "as large as the device".
            capability: the volume's, where the CO says it.

        Returns:
            The size in bytes now.

        Raises:
            NotFound: this volume is not mounted there.
            FailedPrecondition: its filesystem cannot grow now.
            NoSpace, OutOfRange: as ``expand_volume``; nothing was changed.
        """
        mounted = stats.mounted_volume(self._mounts, backend, handle, volume_path)
        raw = self._mounts.is_device(mounted)
        if capability is not None and raw != (capability.volume_mode is VolumeMode.BLOCK):
            raise InvalidArgument(f"{volume_path} is published in the other volume mode")
        size_bytes = 0
        if backend.description.reach is Reach.NODE_LOCAL and "expand_volume" in backend.hooks:
            size_bytes = backend.expand_volume(handle, size)
        if raw:
            return size_bytes or self._mounts.device_size_bytes(mounted.path)
        # The device of an elastic volume is still smaller than what was asked for.
        return max(self._mounts.grow(mounted), size_bytes)

    def thaw_left_frozen(self) -> None:
        """Thaw what an earlier process left frozen; to be called before any backend starts."""
        freeze.thaw_left_frozen()

    def frozen(self, devices: tuple[Path, ...], time_limit_s: float) -> AbstractContextManager[None]:
        """See :meth:`csi_core.hookspecs.Host.frozen`."""
        return freeze.frozen(devices, time_limit_s)

    def filesystem_on(self, device: Path) -> MountedFilesystem | None:
        """See :meth:`csi_core.hookspecs.Host.filesystem_on`."""
        return self._mounts.filesystem_on(device)

    def _path(self, call: str, path: Path) -> AbstractContextManager[object]:
        return self._paths.hold(call, Key("path", str(canonical(path))))
