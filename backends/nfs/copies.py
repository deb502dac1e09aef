"""Filling a new volume or snapshot with the content of another one, as of one moment."""

from __future__ import annotations

import os
import time
from typing import Final, Literal

from backends.nfs.intents import Intent, boot_id, drop_intent, write_intent
from backends.nfs.records import Record
from backends.nfs.root import place_of
from backends.nfs.sizing import DATA
from backends.nfs.storage import Storage
from backends.nfs.trees import copy_tree, newest_change_ns, opened_directory
from csi_core.background import Task
from csi_core.errors import Busy
from csi_core.faults import fault

__all__ = ["Consistency", "changed", "filled", "moment_ns", "more_bytes", "used_bytes", "written"]

Consistency = Literal["volume", "file"]
"""What of a volume that is written to is of one moment: all of it, or each file."""

_CLOCK: Final = "clock"
_WHILE_COPYING_BYTES: Final = 16 << 20


def used_bytes(storage: Storage, source: Record) -> int:
    """What a copy takes at most: what the source has, or its size where that is not counted."""
    if storage.sizing.counts and source.tree_id:
        return storage.sizing.usage(source.tree_id).used_bytes
    return source.size_bytes


def more_bytes(storage: Storage, tree_id: int, charge_bytes: int) -> int:
    """What a copy that is made costs beyond what was reserved for it.

    The source may have grown meanwhile, and btrfs counts what was written to it just before only in its snapshot.
    """
    return max(0, storage.charge(storage.sizing.usage(tree_id).used_bytes) - charge_bytes)


def filled(
    storage: Storage,
    source: Record,
    directory: int,
    limit_bytes: int,
    consistency: Consistency,
    task: Task,
    *,
    work: str = "",
    half_made: Intent | None = None,
) -> int:
    """Make the content in ``directory`` as a copy of ``source``; answer its id.

    Args:
        storage: the root.
        source: a volume or snapshot.
        directory: the new object's own directory, open.
        limit_bytes: what the copy may have; 0 for no limit.
        consistency: what has to be of one moment.
        task: asked to go on, and told how far it got.
        work: what is being made, to be noted, so that another process can go on with it; "" for what it is not to.
        half_made: the note of an earlier process, which had got some way.

    Raises:
        Busy: the source was written to meanwhile.
        NoSpace: it does not fit.
        DataLoss: the source's content is gone.
    """
    with storage.index.reading(source.key), storage.root.data(place_of(source.key), source.key) as content:
        fault("nfs.copy.before_copy")
        if storage.sizing.snapshots and storage.sizing.tree_id(content):
            tree_id = storage.sizing.snapshot(content, directory)
            storage.sizing.limit(tree_id, limit_bytes)
        else:
            tree_id = _tree(storage, directory)
            # XFS asks for the room of an extent once more while it shares it: a full volume would have no copy else.
            storage.sizing.limit(tree_id, limit_bytes and limit_bytes + limit_bytes // 16 + _WHILE_COPYING_BYTES)
            began_ns = half_made.began_ns if half_made else moment_ns(directory)
            if work and not half_made:
                write_intent(directory, Intent(work, source.key, began_ns, boot_id()))
                fault("nfs.copy.after_intent")
            with opened_directory(DATA, directory) as target:
                _copy(storage, source, content, target, task, resume=half_made is not None)
            # Who had the source while an earlier process copied it is not known.
            judged = written(storage, source) or (half_made is not None and not source.volume_key)
            if consistency == "volume" and judged and changed(content, began_ns, task):
                raise Busy(
                    f"volume {source.key} was written to while it was copied, and a copy must be of one moment; repeat "
                    f"the call when it is quiet, put the root on btrfs, or say consistency: file"
                )
            storage.sizing.limit(tree_id, limit_bytes)
            if work:
                drop_intent(directory)
        fault("nfs.copy.after_copy")
        return tree_id


def _tree(storage: Storage, directory: int) -> int:
    """The id of the content's directory, which an earlier process may have made."""
    try:
        with opened_directory(DATA, directory) as content:
            tree_id = storage.sizing.tree_id(content)
    except FileNotFoundError:
        return storage.sizing.make(directory)
    if storage.sizing.counts and not tree_id:
        raise Busy("what an earlier process copied is not counted as this one does; repeat the call")
    storage.sizing.adopt([tree_id])
    return tree_id


def _copy(storage: Storage, source: Record, content: int, target: int, task: Task, *, resume: bool) -> None:
    total_bytes, done_bytes = used_bytes(storage, source), 0

    def progress(more_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += more_bytes
        task.progress(done_bytes, total_bytes)

    copy_tree(content, target, progress, guarded=storage.root.guarded, resume=resume)
    fault("nfs.copy.before_sync")
    storage.sizing.sync_all(target)


def moment_ns(directory: int) -> int:
    """Now, by the clock that stamps files in ``directory``: earlier changes are stamped earlier, later ones not.

    On a share that is its server's clock.
    """
    file = os.open(_CLOCK, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        before_ns = os.fstat(file).st_ctime_ns
        while (now_ns := os.fstat(file).st_ctime_ns) == before_ns:
            time.sleep(0.0005)
            os.fchmod(file, 0o600)
        return now_ns
    finally:
        os.close(file)
        os.unlink(_CLOCK, dir_fd=directory)


def changed(content: int, since_ns: int, task: Task) -> bool:
    """Whether anything in the content was changed since a moment."""
    return newest_change_ns(content, task.check) >= since_ns


def written(storage: Storage, source: Record) -> bool:
    """Whether any node can have written to the source since its record was read."""
    if source.volume_key:
        return False
    now = storage.index.find("v", source.key)
    return now is not source or any(not publication.read_only for publication in source.publications.values())
