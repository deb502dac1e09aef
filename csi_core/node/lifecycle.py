"""NodeVolumes: the node calls, each idempotent under repetition, crash and reboot."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from csi_core.model import SizeRange, VolumeCapability, VolumeSpec
from csi_core.node.requests import NodePublishRequest, StageRequest, VolumeUsage

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.node.mounts import Mounts


class NodeVolumes:
    """Stages, publishes, measures and grows volumes on this node."""

    def __init__(self, mounts: Mounts, node_id: str) -> None:
        raise NotImplementedError

    def stage(self, backend: Backend, request: StageRequest) -> None:
        raise NotImplementedError

    def unstage(self, backend: Backend, handle: str, staging_path: Path) -> None:
        raise NotImplementedError

    def publish(self, backend: Backend, request: NodePublishRequest) -> None:
        raise NotImplementedError

    def unpublish(self, backend: Backend, handle: str, target_path: Path) -> None:
        raise NotImplementedError

    def publish_ephemeral(
        self, backend: Backend, volume_id: str, spec: VolumeSpec, request: NodePublishRequest
    ) -> None:
        raise NotImplementedError

    def unpublish_ephemeral(self, backend: Backend, volume_id: str, target_path: Path) -> None:
        raise NotImplementedError

    def stats(self, backend: Backend, handle: str, volume_path: Path) -> tuple[VolumeUsage, ...]:
        raise NotImplementedError

    def expand(
        self,
        backend: Backend,
        handle: str,
        volume_path: Path,
        size: SizeRange,
        capability: VolumeCapability | None,
    ) -> int:
        raise NotImplementedError

    def thaw_left_frozen(self) -> None:
        raise NotImplementedError

    def frozen(self, devices: tuple[Path, ...], time_limit_s: float) -> AbstractContextManager[None]:
        raise NotImplementedError
