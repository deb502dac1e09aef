"""Inline ephemeral volumes: made by NodePublish, gone with NodeUnpublish. Their id is their name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from csi_core.deadline import past_deadline
from csi_core.errors import AlreadyExists, CallError, InvalidArgument
from csi_core.faults import fault
from csi_core.model import VolumeMode, VolumeSpec
from csi_core.node.mountinfo import canonical
from csi_core.node.ownership import check_mount_group
from csi_core.node.publishing import unpublish
from csi_core.node.requests import NodePublishRequest
from csi_core.node.staging import attach, mount_source
from csi_core.node.targets import target_directory
from csi_core.parameters import Parameters

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.node.mounts import Mounts

__all__ = ["publish_ephemeral", "unpublish_ephemeral"]


def publish_ephemeral(
    mounts: Mounts, backend: Backend, volume_id: str, spec: VolumeSpec, request: NodePublishRequest
) -> None:
    """Create a volume and mount it at the target path, without staging.

    Raises:
        AlreadyExists: the target path is taken by another volume.
        InvalidArgument: raw block, or read-only, was asked for.
    """
    capability = request.capability
    if capability.volume_mode is VolumeMode.BLOCK:
        raise InvalidArgument("an ephemeral volume is a filesystem; raw block is not served")
    if request.effective_read_only:
        raise InvalidArgument("an ephemeral volume starts empty, so a read-only one would be of no use")
    check_mount_group(capability.mount_group, backend.description.mount_group)
    target = canonical(request.target_path)
    taken = mounts.at(target) is not None
    if not taken:
        target_directory(target)
    handle = backend.create_volume(spec).value.handle
    fault("node.ephemeral.after_create")
    try:
        source = attach(backend, replace(request, handle=handle))
        if not taken and mounts.in_use(source):
            raise AlreadyExists(f"ephemeral volume {volume_id} is published at another path than {target}")
        mount_source(mounts, backend, handle, source, capability, target)
    except CallError as error:
        # After a final error nobody may come back for it. A target that was taken is another call's success.
        if error.final and not taken and not isinstance(error, AlreadyExists):
            _give_up(mounts, backend, volume_id, target, error)
        raise
    fault("node.ephemeral.after_mount")


def _give_up(mounts: Mounts, backend: Backend, volume_id: str, target: Path, error: CallError) -> None:
    try:
        with past_deadline():
            unpublish_ephemeral(mounts, backend, volume_id, target)
    except CallError as second:
        error.add_note(f"and it could not be deleted again: {second}")


def unpublish_ephemeral(mounts: Mounts, backend: Backend, volume_id: str, target_path: Path) -> None:
    """Unmount an ephemeral volume and delete it; one that does not exist is deleted.

    Raises:
        FailedPrecondition: it is in use.
    """
    unpublish(mounts, target_path)
    volume = backend.find_volume(volume_id)
    if volume is None:
        return
    backend.detach_volume(volume.handle)
    fault("node.ephemeral.after_detach")
    backend.delete_volume(volume.handle, Parameters())
    fault("node.ephemeral.after_delete")
