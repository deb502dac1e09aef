"""Snapshots: a copy of a volume's content that nobody mounts, sharing its blocks where the filesystem can."""

from __future__ import annotations

import time

from backends.nfs.copies import filled, more_bytes, used_bytes
from backends.nfs.options import NfsSnapshotParameters
from backends.nfs.records import Record
from backends.nfs.storage import Storage
from backends.nfs.volumes import existing
from csi_core.background import Task
from csi_core.errors import NotFound
from csi_core.model import SnapshotSpec

__all__ = ["create", "delete"]


def create(storage: Storage, spec: SnapshotSpec, parameters: NfsSnapshotParameters) -> tuple[Record, bool]:
    """Take a snapshot, or find the one of this name; answer it and whether this call made it.

    It is charged what its volume has used so far, since that is what it keeps when the volume is written anew.

    Raises:
        NotFound: no such volume.
        NoSpace: no room.
        Busy: the volume was written to meanwhile.
        TimedOut: the copy goes on.
    """
    if found := storage.index.named("s", spec.name):
        return found, False
    source = existing(storage, spec.volume_handle)
    work = _copy_of(spec)
    joined = storage.work.running(work)
    storage.work.finish(work, lambda task: _take(storage, spec, parameters, source, task))
    if found := storage.index.named("s", spec.name):
        return found, not joined
    raise NotFound(f"snapshot {spec.name} was deleted as soon as it was made")


def _copy_of(spec: SnapshotSpec) -> str:
    return f"copy for snapshot {spec.name}"


def delete(storage: Storage, key: str) -> None:
    """Delete a snapshot; one that is not there is deleted.

    Raises:
        Busy: it is being copied.
    """
    record = storage.index.find("s", key)
    if record:
        storage.delete(record)


def _take(storage: Storage, spec: SnapshotSpec, parameters: NfsSnapshotParameters, source: Record, task: Task) -> None:
    if storage.index.named("s", spec.name):
        return  # by work that ended just before this began
    charge_bytes = storage.charge(used_bytes(storage, source))
    work = _copy_of(spec)
    with (
        storage.reserve(charge_bytes) as reservation,
        storage.copying(work, "s", source.key) as (key, directory, half_made),
    ):
        created_us = half_made.began_ns // 1000 if half_made else time.time_ns() // 1000
        tree_id = filled(storage, source, directory, 0, parameters.consistency, task, work=work, half_made=half_made)
        with storage.reserve(more_bytes(storage, tree_id, charge_bytes)) as more:
            record = Record(
                key=key,
                name=spec.name,
                size_bytes=source.size_bytes,
                charge_bytes=charge_bytes + more.charge_bytes,
                tree_id=tree_id,
                created_us=created_us,
                recorded=dict(spec.recorded),
                volume_key=source.key,
            )
            storage.finish(record, reservation, more)
