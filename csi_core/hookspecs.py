"""The contract between csi-core and a storage backend: every hook there is.

A backend is any object with methods marked ``@hookimpl``, reached through an entry point in the group
``csi_core.backends`` whose value is a factory ``factory(options: Mapping[str, object]) -> object``
(a class will do). :data:`REQUIRED` hooks must be there; all others are opt-in, and the CSI
capabilities follow from the ones implemented and from what :func:`~BackendSpec.describe` declares.

Rules that hold for every hook:

* Plain, blocking Python, called from several threads at once. The core holds a lock per volume and
  per name, so no two mutating calls touch the same one; listings and reads run beside them. A create is locked by its
  name and a delete by its handle: where handles follow from names, the backend keeps the two apart
  (:mod:`csi_core.locks`).
* Idempotent: a call whose answer was lost comes again, after a restart too. Creating calls say
  :class:`~csi_core.model.Created` or :class:`~csi_core.model.Existing`; deleting what is not there succeeds.
* Durable before it returns: what a mutating hook answered is true after a power cut.
* Errors come from :mod:`csi_core.errors`. An error that does not exist there becomes INTERNAL, which
  is final: never let a time-out or a lost connection escape as one.
* Handles come from the outside world unverified; judge their form before they touch a path or a command line.
* Secrets are given by the CO on each call. Never store or log them.

A plugin's class may have four attributes beside its hooks:

``csi_core_api``
    The version of the hooks it was written for, :data:`API_VERSION`; another one is refused.
``options_model``
    A pydantic model of its ``options``. They are then checked before the plugin is made, errors name the line in the
    file, and ``csi-core config schema`` and ``csi-core backends show`` know them.
``declaration``
    A :class:`~csi_core.model.Description` as far as it does not depend on the storage, so that ``csi-core backends``
    can show a backend that is only installed. ``describe`` answers it, with what was found out put in.
``commands``
    Commands that ``csi-core`` offers beside its own: ``{"pool": "backends.loop.extents.commands:pool"}``, by name the
    module and attribute of a :class:`click.Command`. It is imported when somebody calls it. A name of csi-core
    itself, or of another installed backend, cannot be taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pluggy

from csi_core.health import Finding, HealthProblem
from csi_core.model import (
    AttachRequest,
    BlockMap,
    Capacity,
    CapacityQuery,
    Description,
    GroupSnapshot,
    GroupSnapshotSpec,
    Outcome,
    Page,
    PublishRequest,
    SizeRange,
    Snapshot,
    SnapshotSpec,
    Source,
    Volume,
    VolumeSpec,
)
from csi_core.parameters import Parameters

__all__ = ["API_VERSION", "REQUIRED", "BackendSpec", "Host", "hookimpl", "hookspec"]

API_VERSION = 1
"""A plugin may set ``csi_core_api`` to the version it was written for; one that is not this is refused."""

PROJECT = "csi_core"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

REQUIRED = frozenset(
    {
        "describe",
        "create_volume",
        "delete_volume",
        "get_volume",
        "list_volumes",
        "attach_volume",
        "detach_volume",
    }
)


class MountedFilesystem(Protocol):
    """A filesystem that is mounted writable on this node. Nothing of it is held open: it can be unmounted any time."""

    def free_bytes(self) -> int | None:
        """What can still be written, in bytes; None where it is mounted no longer. Takes some microseconds."""

    def grow(self) -> None:
        """Grow it to its device, by ioctl; one that fills it is left alone. Waits while it is frozen.

        Raises:
            NotFound: it is mounted no longer.
            Busy: another growth of it, or a balance of btrfs, does not end.
            FailedPrecondition: ext4 needs CAP_SYS_RESOURCE for it.
            StorageFailure: the kernel refused.
        """


class Host(Protocol):
    """What the core offers a backend on the node it runs on; handed to ``start``."""

    @property
    def node_id(self) -> str:
        """This node's name, as in NodeGetInfo."""

    @property
    def backend_name(self) -> str:
        """The name this instance is configured under."""

    def frozen(self, devices: tuple[Path, ...], time_limit_s: float) -> AbstractContextManager[None]:
        """Freeze the mounted filesystems on ``devices`` (all of them, in order), thaw on the way out.

        A device that is not mounted is flushed. A watchdog thaws after ``time_limit_s`` seconds, and leaving the
        context then raises :class:`~csi_core.errors.TimedOut`: what was done under it must be thrown away.
        Freezes left by a process that was killed are thawed before ``start`` is called.
        """

    def filesystem_on(self, device: Path) -> MountedFilesystem | None:
        """The filesystem on a block device where it is mounted writable on this node, else None.

        For backends whose volumes get their room while they are written to; see ``BlockSource.elastic``.
        """


class BackendSpec:
    """The hooks. ``firstresult``: exactly one backend answers; wrappers may surround it."""

    # -- life cycle ---------------------------------------------------------------------------------

    @hookspec(firstresult=True)
    def describe(self) -> Description:
        """Declare what this backend serves. Called once, after ``start``; the answer must not change."""
        raise AssertionError

    @hookspec
    def start(self, host: Host) -> None:
        """Open the storage, recover from a crash, refuse what is not safe. Called before any other hook.

        Raises:
            ConfigError: an option is wrong; the server does not start.
            Unavailable: the storage cannot be reached yet; ``start`` is called again.
        """

    @hookspec
    def stop(self) -> None:
        """Close the storage. No call is running any more. What is published stays published."""

    # -- volumes (Controller service) ---------------------------------------------------------------

    @hookspec(firstresult=True)
    def create_volume(self, spec: VolumeSpec) -> Outcome[Volume]:
        """Create a volume, or answer the one that has this name (CSI "CreateVolume").

        Parameters, access modes, sizes against granularity, and the existence of the source are checked by the core
        beforehand; the source's existence must hold at the moment of creation too.

        Raises:
            NotFound: the source is gone.
            NoSpace: no room for it.
            OutOfRange: the size can never be met.
        """
        raise AssertionError

    @hookspec(firstresult=True)
    def delete_volume(self, handle: str, secrets: Parameters) -> None:
        """Delete a volume; one that does not exist is deleted (CSI "DeleteVolume").

        Raises:
            FailedPrecondition: it is in use on this node, or has snapshots that cannot outlive it.
        """

    @hookspec(firstresult=True)
    def get_volume(self, handle: str) -> Volume | None:
        """The volume, or None where there is none of that handle, malformed ones included."""

    @hookspec(firstresult=True)
    def find_volume(self, name: str) -> Volume | None:
        """The volume created under ``name``, or None. One look-up, from memory where that can be.

        Needed for ephemeral volumes, whose id is their name. In a driver with several backends it is asked before
        another backend creates a volume: there a name is one volume too, and without this hook a claim whose class was
        made anew with another backend, in the middle of a creation, can get a second volume while nobody knows of the
        first.
        """

    @hookspec(firstresult=True)
    def list_volumes(self, cursor: str, limit: int) -> Page[Volume]:
        """At most ``limit`` volumes after ``cursor`` ("" for the start), in a stable order (CSI "ListVolumes").

        Raises:
            InvalidArgument: the cursor is not one of this backend's.
        """
        raise AssertionError

    @hookspec(firstresult=True)
    def get_capacity(self, query: CapacityQuery) -> Capacity:
        """Room for volumes with these parameters (CSI "GetCapacity"). Cheap at any number of volumes."""
        raise AssertionError

    @hookspec(firstresult=True)
    def expand_volume(self, handle: str, size: SizeRange) -> int:
        """Grow the storage behind a volume to ``size``; answer the new size in bytes (CSI "ControllerExpandVolume").

        Never shrinks: at or above the wanted size already, answer the present size. An attached block device grows
        too; the core grows the filesystem afterwards.

        Raises:
            NotFound, NoSpace, OutOfRange: nothing was changed.
            FailedPrecondition: it is published and expansion is offline only.
        """
        raise AssertionError

    @hookspec(firstresult=True)
    def modify_volume(self, handle: str, mutable: Parameters, recorded_mutable: dict[str, str]) -> None:
        """Put mutable parameters in force: all of those set, or none (CSI "ControllerModifyVolume").

        ``recorded_mutable`` holds them as strings, already merged over the ones in force.
        """

    @hookspec(firstresult=True)
    def publish_volume(self, request: PublishRequest) -> dict[str, str]:
        """Let a node reach the volume; answer the ``publish_context`` (CSI "ControllerPublishVolume").

        Called for network volumes only: Kubernetes has no attacher for each node, so a node-local backend does in
        ``attach_volume`` what there is to do.

        Raises:
            NotFound: no such volume or node.
            AlreadyExists: published there with other arguments.
            FailedPrecondition: single-node volume published elsewhere.
            NoSpace: the node has no room for a further volume.
        """
        raise AssertionError

    @hookspec(firstresult=True)
    def unpublish_volume(self, handle: str, node_id: str, secrets: Parameters) -> None:
        """Take a node's access away and revoke what it still holds; node_id "" means every node."""

    # -- snapshots ----------------------------------------------------------------------------------

    @hookspec(firstresult=True)
    def create_snapshot(self, spec: SnapshotSpec) -> Outcome[Snapshot]:
        """Take a snapshot, or answer the one of this name (CSI "CreateSnapshot").

        It is consistent as after a crash of the pod.
        """
        raise AssertionError

    @hookspec(firstresult=True)
    def delete_snapshot(self, handle: str, secrets: Parameters) -> None:
        """Delete a snapshot; one that does not exist is deleted. The core refuses members of groups."""

    @hookspec(firstresult=True)
    def get_snapshot(self, handle: str) -> Snapshot | None:
        """The snapshot, or None where there is none of that handle."""

    @hookspec(firstresult=True)
    def list_snapshots(self, cursor: str, limit: int, volume_handle: str) -> Page[Snapshot]:
        """As ``list_volumes``; ``volume_handle`` "" means all (CSI "ListSnapshots")."""
        raise AssertionError

    @hookspec(firstresult=True)
    def create_group_snapshot(self, spec: GroupSnapshotSpec) -> Outcome[GroupSnapshot]:
        """Snapshots of all members at one point in time, or none at all (CSI "CreateVolumeGroupSnapshot")."""
        raise AssertionError

    @hookspec(firstresult=True)
    def delete_group_snapshot(self, handle: str, secrets: Parameters) -> None:
        """Delete a group and all of its snapshots; one that does not exist is deleted."""

    @hookspec(firstresult=True)
    def get_group_snapshot(self, handle: str) -> GroupSnapshot | None:
        """The group, or None."""

    @hookspec(firstresult=True)
    def allocated_blocks(self, snapshot_handle: str, start_offset_bytes: int) -> BlockMap:
        """The ranges of a snapshot that hold data (CSI "GetMetadataAllocated"). The core checks the offset's bounds."""
        raise AssertionError

    @hookspec(firstresult=True)
    def changed_blocks(self, base_handle: str, target_handle: str, start_offset_bytes: int) -> BlockMap:
        """The ranges that differ between two snapshots of one volume (CSI "GetMetadataDelta").

        May name more than really differ, never less.
        """
        raise AssertionError

    # -- this node (Node service) -------------------------------------------------------------------

    @hookspec(firstresult=True)
    def attach_volume(self, request: AttachRequest) -> Source:
        """Make the volume usable on this node and answer its source; the core formats, mounts and binds.

        Attached already: answer the same source. The device's size follows the recorded size, also after a crash in the
        middle of an expansion.

        Raises:
            NotFound: no such volume.
            DataLoss: its data is missing.
        """
        raise AssertionError

    @hookspec(firstresult=True)
    def detach_volume(self, handle: str) -> None:
        """Undo ``attach_volume``: nothing of the volume stays open here. Not attached or unknown: nothing to do."""

    @hookspec(firstresult=True)
    def find_source(self, handle: str) -> Source | None:
        """What ``attach_volume`` answered, as far as it is attached now; None where it is not. Changes nothing.

        For backends whose devices are used again for other volumes: a device can be detached by hand while it is staged
        as raw block. With this the core makes sure that what it publishes, measures, grows or detaches is the volume.
        And for backends whose directories are filesystems of their own, such as datasets: without it the core takes
        the backend's mount for a publication, and unstages nothing.
        """

    @hookspec(firstresult=True)
    def mark_formatted(self, handle: str, fs_type: str) -> None:
        """Record, durably and once, that the core has made a filesystem; ``BlockSource.formatted`` says so ever after.

        Needed where ``attach_volume`` answers block sources.
        """

    # -- care ---------------------------------------------------------------------------------------

    @hookspec(firstresult=True)
    def volume_health(self, handle: str) -> tuple[HealthProblem, ...]:
        """What is wrong with a volume; () where nothing is (CSI 1.13 "ControllerGetVolumeHealth", alpha)."""
        raise AssertionError

    @hookspec(firstresult=True)
    def storage_health(self) -> tuple[HealthProblem, ...]:
        """What is wrong with the storage itself: a pool nearly full, a server not reached."""
        raise AssertionError

    @hookspec(firstresult=True)
    def diagnose(self) -> Iterator[Finding]:
        """Compare what is recorded with what is there. Reads only."""
        raise AssertionError

    @hookspec(firstresult=True)
    def repair(self, finding: Finding) -> bool:
        """Repair one finding of ``diagnose`` where that is provably safe; answer whether it was done."""
        raise AssertionError
