"""Taking LVs away, such that nobody can read what they held.

An LV's extents go to whoever creates next. Before lvremove frees those of a thick LV they are wiped, in this order:

1. the tag ``state=deleting``: from here on the LV is nobody's volume, whatever happens;
2. a copy-on-write snapshot is split from its origin, which makes its store, full of the tenant's old blocks, an LV;
3. activate, wipe;
4. lvremove.

Killed anywhere in between, the next call for that handle or the next start goes on from there. Thin LVs, and thick ones
that were never handed out, need none of it: lvremove is all.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from functools import partial

import structlog

from backends.lvm import devicemapper, names, tags, wiping
from backends.lvm.deviceclass import DeviceClass, group_members
from backends.lvm.records import Record
from backends.lvm.report import Report
from csi_core.background import Cancelled, Task
from csi_core.errors import Busy, FailedPrecondition, NotFound, Unavailable
from csi_core.faults import fault

__all__ = [
    "begin",
    "clear_away",
    "finish",
    "refuse_used",
    "remove",
    "remove_at_once",
    "resume",
    "wipe_held",
]

_log = structlog.get_logger(__name__)
_BLANK = "blank"


def remove(cls: DeviceClass, key: str) -> None:
    """Remove a volume or snapshot, waiting as long as the call may; one that is not there is removed.

    Raises:
        FailedPrecondition: it is attached, or has copy-on-write snapshots.
        Busy: it is being copied or changed.
        TimedOut: it is still being wiped; repeat the call.
    """
    record = cls.reports.current().records.get(key)
    if record is None:
        return
    if record.state == "creating":
        cls.copies.cancel(key)
    refuse_used(cls, record)
    if record.lv.thin or _BLANK in record.fields:
        with cls.hold("delete", key):
            remove_at_once(cls, key)
    else:
        cls.wipes.finish(key, partial(wipe_and_remove, cls, key))


def remove_at_once(cls: DeviceClass, key: str) -> None:
    """Remove an LV that holds nothing others could read; the caller holds it."""
    record = cls.reports.current().records.get(key)
    if record is None:
        return
    refuse_used(cls, record)
    pool = cls.pools.get(record.lv.pool)
    fault("lvm.delete.before_remove")
    with pool.freed(record.lv.size_bytes) if pool else nullcontext():
        _lvremove(cls, key)
    fault("lvm.delete.after_remove")


def wipe_and_remove(cls: DeviceClass, key: str, task: Task) -> None:
    """Wipe an LV and remove it. Takes up where an earlier process was killed."""
    with cls.hold("wiping", key):
        wipe_held(cls, key, task)


def wipe_held(cls: DeviceClass, key: str, task: Task) -> None:
    """As :func:`wipe_and_remove`, for a caller that holds it already."""
    record = cls.reports.current().records.get(key)
    if record is None:
        return
    refuse_used(cls, record)
    if record.lv.partial and record.fields.get("wipe") != "none":
        raise _unwipeable(cls, record)
    if record.state != "deleting":
        fault("lvm.delete.before_mark")
        cls.retag(key, add=tags.encode({"state": "deleting"}), remove=tags.encode({"state": "creating"}))
        fault("lvm.delete.after_mark")
    if record.copy_on_write:
        cls.lvm.change("lvconvert", "--splitsnapshot", cls.lvm.path(record.lv.name))
        fault("lvm.delete.after_split")
    with cls.active(key) as device:
        node = devicemapper.node(device)
        match record.fields.get("wipe"):
            case "none":
                wiping.wipe_ends(node)
            case "zero":
                wiping.wipe(node, "zero", task)
            case _:
                wiping.wipe(node, "discard", task)
        if _leg_not_wiped(cls, record) and record.fields.get("wipe") != "none":
            raise _unwipeable(cls, record)
        fault("lvm.delete.after_wipe")
        _lvremove(cls, key)
    fault("lvm.delete.after_wiped_remove")


def _leg_not_wiped(cls: DeviceClass, record: Record) -> bool:
    """Whether a disk of an active mirror has failed that has not been given up, which leaves errors in its place."""
    for leg, state in enumerate(cls.failed_legs(record)):
        image = names.dm_name(cls.options.volume_group, f"{record.lv.name}_rimage_{leg}")
        if state == "D" and any(target.kind != "error" for target in devicemapper.targets(image)):
            return True
    return False


def _unwipeable(cls: DeviceClass, record: Record) -> Unavailable:
    """Its extents would be free for whoever creates next, and its data be readable when that disk is back."""
    return Unavailable(
        f"{record.key} cannot be wiped, because a disk of it is missing or fails: bring that back, or give it up for "
        f"good (lvconvert --repair, vgreduce --removemissing --force {cls.lvm.volume_group}); repeat the call then"
    )


def refuse_used(cls: DeviceClass, record: Record) -> None:
    """Raise where an LV cannot be taken away. Of one that was never finished nothing of ours depends.

    Raises:
        FailedPrecondition: it is attached on this node, or has copy-on-write snapshots.
        Busy: a copy reads it.
    """
    report = cls.reports.current()
    if stranger := report.strangers_on.get(record.lv.name):
        # lvremove would take it along, and free what it has kept of this LV's data to whoever creates next.
        raise FailedPrecondition(
            f"{record.key} is the origin of {cls.lvm.path(stranger)}, which this driver has not made and which cannot "
            "live without it; remove that first (lvremove)"
        )
    if not record.ready:
        return
    for snapshot in report.snapshots_of.get(record.lv.name, ()):
        if names.kind_of(snapshot.key) == "t":
            raise Busy(f"{record.key} is being copied; repeat the call when that has ended")
        if snapshot.state != "deleting":
            raise FailedPrecondition(
                f"{record.key} has the copy-on-write snapshot {snapshot.key} ({snapshot.name}), which cannot live "
                "without it; delete its snapshots first"
            )
    if cls.front(record.key) is not None:
        raise FailedPrecondition(f"{record.key} is attached on this node; unpublish and unstage it first")


def resume(cls: DeviceClass) -> None:
    """Go on, in the background, with what an earlier process was removing or had half made."""
    report = cls.reports.current()
    unfinished = {record.key: record for record in report.records.values() if not record.ready}
    for group in {record.fields["group"] for record in unfinished.values() if "group" in record.fields}:
        # A group goes as a whole: it was never complete, or is being deleted.
        unfinished |= {member.key: member for member in group_members(report, group)}
    for record in unfinished.values():
        _log.info("half-made or half-deleted LV is removed", volume_group=cls.lvm.volume_group, lv=record.lv.name)
        begin(cls, record.key)


def begin(cls: DeviceClass, key: str) -> None:
    """Remove in the background what was never finished; where the server is stopping, the next start does it."""
    with suppress(Cancelled):
        cls.wipes.begin(key, partial(clear_away, cls, key))


def finish(cls: DeviceClass, key: str) -> None:
    """Remove what was never finished, and wait for that as long as the call may.

    Raises:
        TimedOut: it goes on; repeat the call.
    """
    cls.wipes.finish(key, partial(clear_away, cls, key))


def clear_away(cls: DeviceClass, key: str, task: Task) -> None:
    """Remove what was never finished, or is part of what was not."""
    if _unfinished(cls, key) is None:
        return
    with cls.hold("clearing away", key):
        record = _unfinished(cls, key)  # whoever held it until now may have finished it
        if record is None:
            return
        if record.lv.thin or _BLANK in record.fields:
            remove_at_once(cls, key)
        else:
            wipe_held(cls, key, task)


def _unfinished(cls: DeviceClass, key: str) -> Record | None:
    report = cls.reports.current()
    record = report.records.get(key)
    return None if record is None or (record.ready and not _of_unfinished_group(report, record)) else record


def _of_unfinished_group(report: Report, record: Record) -> bool:
    group = record.fields.get("group", "")
    return bool(group) and any(not member.ready for member in group_members(report, group))


def _lvremove(cls: DeviceClass, key: str) -> None:
    lv = names.lv_name(key)
    # An lvcreate that was killed leaves what was to become checksums as LVs of their own, and their names taken.
    parts = [part for part in cls.reports.current().volumes if part.startswith(f"{lv}_rimage_")]
    for name in (*parts, lv):
        try:
            cls.lvm.change("lvremove", cls.lvm.path(name))
        except NotFound:
            _log.info("LV was gone already", lv=name)
