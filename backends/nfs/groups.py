"""Snapshots of several volumes as of one moment, all of them or none.

No filesystem here copies several volumes at once, and writers on other machines cannot be held. So the members are
copied one after the other, and then it is judged whether any was written to in between: if not, every copy is of each
moment in that time. btrfs says so at once; elsewhere every file is looked at of members that a node may write to.

The group's record is what makes it: members whose group is not there are thrown away at the next start.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from backends.nfs.copies import changed, filled, moment_ns, more_bytes, used_bytes, written
from backends.nfs.records import Record, new_key
from backends.nfs.root import place_of, storage_errors
from backends.nfs.sizing import DATA
from backends.nfs.storage import Storage
from backends.nfs.trees import opened_directory
from backends.nfs.volumes import existing
from csi_core.background import Task
from csi_core.errors import Busy, NotFound
from csi_core.faults import fault
from csi_core.model import GroupSnapshotSpec

__all__ = ["create", "delete"]


def create(storage: Storage, spec: GroupSnapshotSpec) -> tuple[Record, bool]:
    """Take snapshots of all members, or find the group of this name; answer it and whether this call made it.

    Raises:
        NotFound: a member is not there.
        NoSpace: no room.
        Busy: a member was written to meanwhile.
        TimedOut: the copies go on.
    """
    if found := storage.index.named("g", spec.name):
        return found, False
    sources = [existing(storage, handle) for handle in spec.volume_handles]
    work = f"copies for group snapshot {spec.name}"
    joined = storage.work.running(work)
    storage.work.finish(work, lambda task: _take(storage, spec, sources, task))
    if found := storage.index.named("g", spec.name):
        return found, not joined
    raise NotFound(f"group snapshot {spec.name} was deleted as soon as it was made")


def delete(storage: Storage, key: str) -> None:
    """Delete a group and its members; one that is not there is deleted.

    Raises:
        Busy: a member is being copied.
    """
    record = storage.index.find("g", key)
    if record is None:
        return
    dropped: list[Record] = []
    try:
        for member in storage.index.members(key):
            storage.index.drop(member.key)  # first of all: none of them is copied from now on
            dropped.append(member)
        with storage_errors(f"export.root {storage.options.root}"):
            storage.root.discard(place_of(key), key)
        fault("nfs.group.after_record_deleted")
        while dropped:
            storage.delete(dropped[-1], wait=False)
            dropped.pop()
    except BaseException:
        # The group is still known, so that the call can be repeated.
        for member in dropped:
            storage.index.put(member)
        raise
    storage.delete(record)


def _take(storage: Storage, spec: GroupSnapshotSpec, sources: list[Record], task: Task) -> None:
    if storage.index.named("g", spec.name):
        return  # by work that ended just before this began
    group_key, created_us, made = new_key("g"), time.time_ns() // 1000, list[Record]()
    with ExitStack() as stack:
        group_directory = stack.enter_context(storage.making(group_key))
        began_ns = moment_ns(group_directory)
        reservations, versions = [], []
        for source in sources:
            stack.enter_context(storage.index.reading(source.key))
            charge_bytes = storage.charge(used_bytes(storage, source))
            reservations.append(stack.enter_context(storage.reserve(charge_bytes)))
            key = new_key("s")
            directory = stack.enter_context(storage.making(key))
            # Each as it comes: whether they are of one moment is judged of all of them below.
            tree_id = filled(storage, source, directory, 0, "file", task)
            more = stack.enter_context(storage.reserve(more_bytes(storage, tree_id, charge_bytes)))
            reservations.append(more)
            with opened_directory(DATA, directory) as copy:
                versions.append(storage.sizing.version(copy))
            made.append(
                Record(
                    key=key,
                    name=key,  # a snapshot of its own may have any other
                    size_bytes=source.size_bytes,
                    charge_bytes=charge_bytes + more.charge_bytes,
                    tree_id=tree_id,
                    created_us=created_us,
                    recorded=dict(spec.recorded),
                    volume_key=source.key,
                    group_key=group_key,
                )
            )
        _judge(storage, sources, versions, began_ns, task)
        group = Record(group_key, spec.name, 0, 0, 0, created_us, recorded=dict(spec.recorded))
        _finish(storage, [*made, group])
        for reservation in reservations:
            reservation.commit()
        for record in (*made, group):
            storage.index.put(record)


def _judge(storage: Storage, sources: list[Record], versions: list[int], began_ns: int, task: Task) -> None:
    storage.sizing.sync(storage.root.directory)
    for source, version in zip(sources, versions, strict=True):
        with storage.root.data("volumes", source.key) as content:
            if version and storage.sizing.tree_id(content):
                other = storage.sizing.version(content) != version
            else:
                other = written(storage, source) and changed(content, began_ns, task)
        if other:
            raise Busy(
                f"volume {source.key} was written to while the group was copied, and a group must be of one moment; "
                "repeat the call when all of them are quiet"
            )


def _finish(storage: Storage, records: list[Record]) -> None:
    """Move all to their places, the group last."""
    try:
        with storage_errors(f"export.root {storage.options.root}"):
            for record in records:
                storage.root.finish(record, storage.sizing)
                fault("nfs.group.after_one")
    except BaseException:
        for record in reversed(records):
            storage.root.discard(place_of(record.key), record.key)
        raise
