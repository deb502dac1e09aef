"""NodePublishVolume and NodeUnpublishVolume: from the staging path to a workload's path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from csi_core.errors import AlreadyExists, FailedPrecondition
from csi_core.faults import fault
from csi_core.model import VolumeMode
from csi_core.node.block import settle_device_mode
from csi_core.node.identity import is_volume, published
from csi_core.node.mountinfo import Mount, canonical
from csi_core.node.requests import NodePublishRequest
from csi_core.node.staging import attach, mount_source, staged_path
from csi_core.node.targets import remove_target, target_directory, target_file

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.node.mounts import Mounts

__all__ = ["publish", "unpublish"]


def publish(mounts: Mounts, backend: Backend, request: NodePublishRequest) -> None:
    """Bind the staged volume to the target path (CSI "NodePublishVolume").

    Raises:
        Unavailable: it is a share, and its server does not answer.
        FailedPrecondition: not staged; or published elsewhere and the access mode allows one path only.
        AlreadyExists: another volume is mounted at the target, or this one with the other ``read_only``.
    """
    staged = _require_staged(mounts, backend, request)
    if not mounts.answers(staged):
        staged = _stage_again(mounts, backend, request, staged)
    target = canonical(request.target_path)
    read_only = request.effective_read_only or staged.read_only
    if (present := mounts.at(target)) is not None:
        _require_same(present, staged, read_only)
        return
    elsewhere = published(mounts, backend, request.handle, staged)
    if elsewhere and request.capability.access_mode.single_publish:
        raise FailedPrecondition(
            f"the volume is published at {elsewhere[0].path}, and its access mode "
            f"{request.capability.access_mode.value} allows one path only; unpublish it there first"
        )
    if request.capability.volume_mode is VolumeMode.BLOCK:
        settle_device_mode(mounts, staged, elsewhere, request)
        target_file(target)
    else:
        target_directory(target)
    fault("node.publish.before_mount")
    mounts.bind(staged.path, target, ("ro",) if read_only else ())
    fault("node.publish.after_mount")


def _require_staged(mounts: Mounts, backend: Backend, request: NodePublishRequest) -> Mount:
    if request.staging_path is None:
        raise FailedPrecondition("staging_target_path is missing: this driver stages volumes before it publishes them")
    path = staged_path(request.staging_path, request.capability.volume_mode)
    staged = mounts.at(path)
    if staged is None:
        raise FailedPrecondition(
            f"volume {request.handle} is not staged as {request.capability.volume_mode.value} "
            f"at {request.staging_path}; call NodeStageVolume first"
        )
    if not is_volume(mounts, backend, request.handle, staged):
        raise FailedPrecondition(
            f"what is staged at {staged.path} is not volume {request.handle}: it was detached by somebody else; "
            "unstage and stage it again"
        )
    return staged


def _stage_again(mounts: Mounts, backend: Backend, request: NodePublishRequest, stale: Mount) -> Mount:
    """Mend a stale share: the kubelet stages a volume once, whatever happens to its server afterwards."""
    mount_source(mounts, backend, request.handle, attach(backend, request), request.capability, stale.path)
    return _require_staged(mounts, backend, request)


def _require_same(present: Mount, staged: Mount, read_only: bool) -> None:
    if present.content != staged.content:
        raise AlreadyExists(f"{present.path} is a mount of {present.source} {present.root}, not of this volume")
    if present.read_only != read_only:
        raise AlreadyExists(
            f"the volume is published at {present.path} {'read-only' if present.read_only else 'writable'} already"
        )


def unpublish(mounts: Mounts, target_path: Path) -> None:
    """Unmount and remove the target path (CSI "NodeUnpublishVolume"); nothing there is fine.

    Raises:
        FailedPrecondition: it is in use, or holds something that this driver has not put there.
    """
    target = canonical(target_path)
    mounts.unmount(target)
    fault("node.unpublish.after_unmount")
    remove_target(target)
    fault("node.unpublish.after_remove")
