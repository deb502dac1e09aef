"""Volumes as block devices of this node: the LV active, and a front device over it (:mod:`backends.lvm.fronts`)."""

from __future__ import annotations

import structlog

from backends.lvm import devicemapper, fronts, names, tags, wiping
from backends.lvm.deviceclass import DeviceClass
from backends.lvm.devicemapper import Device
from backends.lvm.records import Record
from csi_core.errors import CallError, FailedPrecondition, NotFound
from csi_core.faults import fault
from csi_core.model import BlockSource

__all__ = ["attach", "detach", "find", "mark_formatted"]

_log = structlog.get_logger(__name__)
_BLANK = {"blank": "1"}


def attach(cls: DeviceClass, key: str) -> BlockSource:
    """Activate the volume and put a front device over it, or find that it is there.

    Raises:
        NotFound: no such volume.
        Unavailable: a disk is missing.
    """
    record = cls.volume(key)
    fault("lvm.attach.before_activate")
    with cls.active(key) as device:
        fault("lvm.attach.after_activate")
        if "blank" in record.fields:
            _unblank(cls, record, device)
        return _source(record, fronts.opened(cls, record))


def detach(cls: DeviceClass, key: str) -> None:
    """Take the front device away, and deactivate the volume; what was written is on the disk when this returns.

    Raises:
        FailedPrecondition: something holds it open.
    """
    fault("lvm.detach.before_close")
    fronts.close(cls, key)
    fault("lvm.detach.after_close")
    _note_lost(cls, key)
    try:
        cls.deactivate_unused(key)
    except (FailedPrecondition, NotFound) as error:
        # Somebody else has the LV open, or has removed it. It is not attached any more, which is what counts.
        _log.warning("LV stays active", volume=key, error=str(error))
    fault("lvm.detach.after_deactivate")


def find(cls: DeviceClass, key: str) -> BlockSource | None:
    """The volume as it is attached now, or None."""
    record = cls.reports.current().ready(key)
    front = cls.front(key) if record else None
    return _source(record, front) if record and front else None


def mark_formatted(cls: DeviceClass, key: str, fs_type: str) -> None:
    """Record that the volume has a filesystem. Once: the first word stands.

    Raises:
        NotFound: no such volume.
    """
    record = cls.volume(key)
    if "formatted" in record.fields:
        return
    fault("lvm.format.before_tag")
    cls.retag(key, add=tags.encode({"formatted": fs_type}))
    fault("lvm.format.after_tag")


def _note_lost(cls: DeviceClass, key: str) -> None:
    """Record which copy-on-write snapshots ran full: of one that is not active nothing else tells."""
    origin = names.lv_name(key)
    targets = devicemapper.targets(names.dm_name(cls.options.volume_group, origin))
    if not any(target.kind == "snapshot-origin" for target in targets):
        return  # it has none; no report is needed to say so
    for snapshot in cls.reports.current().snapshots_of.get(origin, ()):
        if not snapshot.ready or "lost" in snapshot.fields or cls.fill(snapshot) is not None:
            continue
        try:
            cls.retag(snapshot.key, add=tags.encode({"lost": "1"}))
        except CallError as error:
            _log.warning("lost snapshot cannot be marked so", snapshot=snapshot.key, error=str(error))


def _unblank(cls: DeviceClass, record: Record, device: Device) -> None:
    """First attach of a thick volume: what others have left on its disks is no content of this one.

    What was wiped at its deletion reads as zeros; signatures of the time before this driver are overwritten here.
    """
    fault("lvm.attach.before_wipe")
    wiping.wipe_ends(devicemapper.node(device))
    fault("lvm.attach.after_wipe")
    cls.retag(record.key, remove=tags.encode(_BLANK))
    fault("lvm.attach.after_unblank")


def _source(record: Record, front: Device) -> BlockSource:
    return BlockSource(
        device=devicemapper.node(front),
        size_bytes=record.size_bytes,
        formatted=record.fields.get("formatted", ""),
        mkfs_options=tuple(record.fields.get("mkfs", "").split()),
        keep_allocated=not record.lv.thin,
        copied="source" in record.fields,
    )
