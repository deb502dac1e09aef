"""NodeStageVolume and NodeUnstageVolume.

A filesystem is mounted at the staging path itself. Raw block is staged as a file ``device`` in the
staging directory that the device node is bound to: then the mount table knows for both what is
staged where, for as long as it is, and nothing else has to be remembered.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from csi_core.deadline import past_deadline
from csi_core.errors import AlreadyExists, CallError, FailedPrecondition
from csi_core.faults import fault
from csi_core.model import (
    AttachRequest,
    BlockSource,
    DirectorySource,
    ShareSource,
    Source,
    VolumeCapability,
    VolumeMode,
)
from csi_core.node.identity import in_use, is_volume, published
from csi_core.node.mount_options import DIRECTORY, mount_options
from csi_core.node.mountinfo import Mount, canonical
from csi_core.node.ownership import check_mount_group
from csi_core.node.requests import NodePublishRequest, StageRequest
from csi_core.node.targets import remove_target, require_directory, target_file

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.node.mounts import Mounts

__all__ = ["DEVICE_FILE", "attach", "mount_source", "stage", "staged_path", "unstage"]

DEVICE_FILE: Final = "device"


def staged_path(staging_path: Path, volume_mode: VolumeMode) -> Path:
    """Where a staged volume of this mode is to be found."""
    path = canonical(staging_path)
    return path / DEVICE_FILE if volume_mode is VolumeMode.BLOCK else path


def stage(mounts: Mounts, backend: Backend, request: StageRequest) -> None:
    """Attach, format if new, and mount at the staging path (CSI "NodeStageVolume").

    Raises:
        AlreadyExists: staged there in another way, or another volume is.
        FailedPrecondition: the staging path or what the volume holds does not allow it.
        Unavailable: it is a share, and its server does not answer.
        InvalidArgument: a mount flag, filesystem or mount group that is not allowed.
        DataLoss: the filesystem that was made is gone.
    """
    capability = request.capability
    check_mount_group(capability.mount_group, backend.description.mount_group)
    staging_path = canonical(request.staging_path)
    if mounts.at(staging_path) is None:
        require_directory(staging_path)
    source = attach(backend, request)
    try:
        mount_source(mounts, backend, request.handle, source, capability, staging_path)
    except CallError as error:
        # After a final error the CO may forget the volume: what was attached for this call alone is let go.
        if error.final and not mounts.in_use(source):
            _detach_again(backend, request.handle, error)
        raise


def attach(backend: Backend, request: StageRequest | NodePublishRequest) -> Source:
    """Ask the backend for the source.

    A filesystem is attached writable even where nobody may write: its journal may have to be replayed, and a new one
    has to be made; it is then mounted read-only. Raw block has no such layer, so the device itself is read-only.
    """
    capability = request.capability
    source = backend.attach_volume(
        AttachRequest(
            handle=request.handle,
            capability=capability,
            read_only=capability.volume_mode is VolumeMode.BLOCK and capability.access_mode.read_only,
            context=request.context,
            publish_context=request.publish_context,
            secrets=request.secrets,
        )
    )
    fault("node.stage.after_attach")
    return source


def mount_source(
    mounts: Mounts,
    backend: Backend,
    handle: str,
    source: Source,
    capability: VolumeCapability,
    path: Path,
) -> None:
    """Show a source at ``path`` (a directory), or find that it is there already.

    Raises:
        AlreadyExists: something is mounted there that this is not.
    """
    block = capability.volume_mode is VolumeMode.BLOCK
    place, other = (path / DEVICE_FILE, path) if block else (path, path / DEVICE_FILE)
    if (present := mounts.at(place)) is not None:
        _require_same(mounts, present, source, capability)
        if mounts.answers(present):
            return
        mounts.unmount(place)  # a share that its server does not know any more
    if mounts.at(other) is not None:
        raise AlreadyExists(f"{path} is staged as {'a filesystem' if block else 'raw block'} already; unstage it first")
    match source:
        case BlockSource() if block:
            target_file(place)
            mounts.bind(source.device, place)
        case _ if block:
            raise FailedPrecondition(f"volume {handle} has no block device; use it as a filesystem")
        case BlockSource():
            mounts.mount_block(
                source,
                capability,
                backend.description.filesystems,
                lambda fs_type: backend.mark_formatted(handle, fs_type),
                place,
            )
        case DirectorySource():
            options = mount_options(DIRECTORY, capability.mount_flags, capability.access_mode.read_only)
            mounts.bind(source.path, place, (*options.attributes, *(("ro",) if options.read_only else ())))
        case ShareSource():
            mounts.mount_share(source, capability, place)
    fault("node.stage.after_mount")


def _require_same(mounts: Mounts, present: Mount, source: Source, capability: VolumeCapability) -> None:
    if not mounts.shows(present, source):
        raise AlreadyExists(f"{present.path} is a mount of {present.source} {present.root}, not of this volume")
    if capability.volume_mode is VolumeMode.FILESYSTEM and (
        difference := mounts.contradiction(present, capability, source)
    ):
        raise AlreadyExists(f"{present.path} is staged in another way: {difference}")


def _detach_again(backend: Backend, handle: str, error: CallError) -> None:
    try:
        with past_deadline():
            backend.detach_volume(handle)
    except CallError as second:
        error.add_note(f"and it could not be detached again: {second}")


def unstage(mounts: Mounts, backend: Backend, handle: str, staging_path: Path) -> None:
    """Unmount and detach (CSI "NodeUnstageVolume"). The staging directory stays: it belongs to the CO.

    Raises:
        FailedPrecondition: it is still published here, or in use.
    """
    path = canonical(staging_path)
    device_file = path / DEVICE_FILE
    if (staged := mounts.at(path)) is not None:
        _require_unpublished(mounts, backend, handle, staged)
        mounts.unmount(path)
    elif (staged := mounts.at(device_file)) is not None:
        if is_volume(mounts, backend, handle, staged):
            _require_unpublished(mounts, backend, handle, staged)
            # the kernel keeps this flag for whatever is attached to the device next
            mounts.set_device_read_only(device_file, read_only=False)
        mounts.unmount(device_file)
    fault("node.unstage.after_unmount")
    if path.is_dir():
        remove_target(device_file)
    if in_use(mounts, backend, handle):
        raise FailedPrecondition(f"volume {handle} is still mounted at another path; unpublish and unstage it there")
    backend.detach_volume(handle)
    fault("node.unstage.after_detach")


def _require_unpublished(mounts: Mounts, backend: Backend, handle: str, staged: Mount) -> None:
    if others := sorted({str(m.path) for m in published(mounts, backend, handle, staged)}):
        raise FailedPrecondition(f"the volume staged at {staged.path} is still published at {', '.join(others)}")
