"""Filling a new volume or snapshot with the content of another one, as of one moment."""

from __future__ import annotations

import time
from typing import Final, Literal

from backends.nfs.records import Record
from backends.nfs.root import Place
from backends.nfs.sizing import DATA
from backends.nfs.storage import Storage
from backends.nfs.trees import copy_tree, newest_change_ns, opened_directory
from csi_core.background import Task
from csi_core.errors import Busy
from csi_core.faults import fault

__all__ = ["Consistency", "filled", "used_bytes"]

Consistency = Literal["volume", "file"]
"""What of a volume that is written to is of one moment: all of it, or each file."""

_COARSE_CLOCK: Final = 5
"""CLOCK_REALTIME_COARSE of linux/time.h, which the time module lacks."""


def used_bytes(storage: Storage, source: Record) -> int:
    """What a copy takes at most: what the source has, or its size where that is not counted."""
    return storage.sizing.usage(source.tree_id).used_bytes or (0 if storage.sizing.counts else source.size_bytes)


def filled(
    storage: Storage, source: Record, directory: int, limit_bytes: int, consistency: Consistency, task: Task
) -> int:
    """Make the content in ``directory`` as a copy of ``source``; answer its id.

    Args:
        storage: the root.
        source: a volume or snapshot.
        directory: the new object's own directory, open.
        limit_bytes: what the copy may have; 0 for no limit.
        consistency: what has to be of one moment.
        task: asked to go on, and told how far it got.

    Raises:
        Busy: the source was written to meanwhile.
        NoSpace: it does not fit.
        DataLoss: the source's content is gone.
    """
    place: Place = "volumes" if source.key.startswith("v") else "snapshots"
    with storage.index.reading(source.key), storage.root.data(place, source.key) as content:
        fault("nfs.copy.before_copy")
        if storage.sizing.snapshots:
            tree_id = storage.sizing.snapshot(content, directory)
            storage.sizing.limit(tree_id, limit_bytes)
        else:
            tree_id = storage.sizing.make(directory)
            storage.sizing.limit(tree_id, limit_bytes)
            with opened_directory(DATA, directory) as target:
                _copy(storage, source, content, target, consistency, task)
        fault("nfs.copy.after_copy")
        return tree_id


def _copy(storage: Storage, source: Record, content: int, target: int, consistency: Consistency, task: Task) -> None:
    total_bytes, done_bytes = used_bytes(storage, source), 0

    def progress(more_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += more_bytes
        task.progress(done_bytes, total_bytes)

    began_ns = _next_tick_ns()
    copy_tree(content, target, progress, guarded=storage.root.guarded)
    fault("nfs.copy.before_sync")
    storage.sizing.sync_all(target)
    if consistency == "volume" and _written(storage, source) and newest_change_ns(content, task.check) >= began_ns:
        raise Busy(
            f"volume {source.key} was written to while it was copied, and a copy must be of one moment; repeat the "
            f"call when it is quiet, put the root on btrfs, or say consistency: file"
        )


def _next_tick_ns() -> int:
    """Now, by the clock that files are stamped with: earlier changes are stamped earlier, later ones not."""
    before_ns = time.clock_gettime_ns(_COARSE_CLOCK)
    while (now_ns := time.clock_gettime_ns(_COARSE_CLOCK)) == before_ns:
        time.sleep(0.0005)
    return now_ns


def _written(storage: Storage, source: Record) -> bool:
    """Whether any node can have written to the source since its record was read."""
    if source.volume_key:
        return False
    now = storage.index.find("v", source.key)
    return now is not source or any(not publication.read_only for publication in source.publications.values())
