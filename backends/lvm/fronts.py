"""Front devices: what a volume is attached as, a linear mapping of ours over the whole LV.

Why not the LV itself:

* An LV that is active is not for that reason attached: a copy reads it, a snapshot beside it is, an administrator
  looked into it, LVM's own start has activated it. A front device is there from attach to detach, and else never.
* lvcreate suspends the LV that it takes a snapshot of, and the kernel (before 6.8) refuses that with a filesystem on it
  that is frozen already. With the filesystem on the front device all members of a group can be frozen first, and raw
  block held, and then snapshots be taken, one by one, of LVs that nobody writes to.

A table of one linear target costs no more than one of LVM's own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog

from backends.lvm import devicemapper, names
from backends.lvm.deviceclass import DeviceClass
from backends.lvm.devicemapper import Device
from backends.lvm.records import Record
from csi_core.errors import CallError, FailedPrecondition, StorageFailure, TimedOut
from csi_core.faults import fault

__all__ = ["close", "fit", "opened", "resume_all", "still"]

_log = structlog.get_logger(__name__)
_SECTOR_BYTES: Final = 512
_LV_UUID_CHARACTERS: Final = 32
_LAYERS: Final = ("-real", "-cow", "-tpool")
"""What LVM puts below an LV: of an origin, of a copy-on-write snapshot, of a thin pool."""
_BUSY_WAIT_S: Final = 2.0
_BUSY_POLL_S: Final = 0.05


def opened(cls: DeviceClass, record: Record) -> Device:
    """The volume's front device, made or made whole where it has to be.

    Raises:
        Unavailable: a disk of the LV is missing.
    """
    name = _name(cls, record.key)
    with cls.active(record.key) as device:
        fault("lvm.attach.before_front")
        if devicemapper.find(name) is None:
            devicemapper.create(name, _uuid(device.uuid))
            fault("lvm.attach.after_front")
        _fit(name, device, record.size_bytes)
        fault("lvm.attach.after_table")
        front = devicemapper.find(name)
    if front is None:
        raise StorageFailure(f"device {name} has gone while it was being made")
    return front


def fit(cls: DeviceClass, key: str, size_bytes: int) -> None:
    """Have the front device show all of the LV; not attached: nothing to do."""
    device = cls.device(key)
    if device is not None and cls.front(key) is not None:
        _fit(_name(cls, key), device, size_bytes)


def close(cls: DeviceClass, key: str) -> None:
    """Take the front device away; not there: nothing to do.

    Raises:
        FailedPrecondition: something has it open.
    """
    name = _name(cls, key)
    give_up_s = time.monotonic() + _BUSY_WAIT_S
    while not devicemapper.remove(name):
        if time.monotonic() >= give_up_s:
            raise FailedPrecondition(f"/dev/mapper/{name} is open on this node; stop what uses it (lsof, lsblk)")
        time.sleep(_BUSY_POLL_S)


@contextmanager
def still(cls: DeviceClass, keys: Sequence[str]) -> Iterator[None]:
    """Keep what is attached of ``keys`` still: mounted filesystems frozen, and all I/O held.

    This is device-mapper's own freeze and no FIFREEZE beside it: thawing a filesystem whose device is held would wait
    for the device, and the core thaws before a backend is started.

    Raises:
        FailedPrecondition: somebody else has frozen one of them.
        TimedOut: it took longer than the class allows, and they were let go: throw away what was made meanwhile. Not
            for a single volume: LVM's snapshot of one LV is of one moment by itself, only less clean.
    """
    attached = [device for key in sorted(set(keys)) if (device := cls.front(key)) is not None]
    if not attached:
        yield
        return
    limit_s = cls.options.freeze_limit_seconds
    expired = threading.Event()

    def let_go() -> None:
        expired.set()
        _resume(attached)

    watchdog = threading.Timer(limit_s, let_go)
    watchdog.daemon = True
    watchdog.start()
    try:
        fault("lvm.still.before_hold")
        for device in attached:
            devicemapper.suspend(device.name)
            fault("lvm.still.after_hold")
        if expired.is_set():
            _resume(attached)  # one was held after the watchdog had let go
        yield
    finally:
        watchdog.cancel()
        _resume(attached)
    if expired.is_set() and len(attached) > 1:
        raise TimedOut(f"writers were held for {limit_s:g} s, the longest that is allowed, and let go; repeat the call")


def resume_all(cls: DeviceClass) -> None:
    """Let go what a process that was killed has held: LVs that one of LVM's was changing, then fronts of ours.

    LVM suspends an LV and what it lies on while it changes them, and where its command dies (with the container, or of
    a lack of memory) all I/O waits for ever. A refresh has LVM's lock, so it comes after whoever is alive and at it.
    """
    records = cls.reports.current().records.values()
    for name in (*cls.pools, *(record.lv.name for record in records)):
        _refresh_held(cls, name)
    for record in records:
        front = cls.front(record.key) if names.kind_of(record.key) == "v" else None
        if front is not None and front.suspended:
            devicemapper.resume(front.name)
            _log.warning("let go a volume that was left held", volume=record.key)


def _refresh_held(cls: DeviceClass, lv: str) -> None:
    name = names.dm_name(cls.options.volume_group, lv)
    layers = (devicemapper.find(f"{name}{layer}") for layer in ("", *_LAYERS))
    if not any(layer.suspended for layer in layers if layer is not None):
        return
    try:
        cls.lvm.change("lvchange", "--refresh", cls.lvm.path(lv))
        _log.warning("let go an LV that was left suspended", lv=cls.lvm.path(lv))
    except CallError as error:
        _log.error("an LV stays suspended, and all that use it wait", lv=cls.lvm.path(lv), error=str(error))


def _fit(name: str, device: Device, size_bytes: int) -> None:
    table = devicemapper.targets(name, table=True)
    if not table or table[0].length_sectors != size_bytes // _SECTOR_BYTES:
        devicemapper.load_linear(name, device.number, size_bytes // _SECTOR_BYTES)


def _resume(devices: Sequence[Device]) -> None:
    for device in devices:
        try:
            devicemapper.resume(device.name)
        except CallError as error:  # the others must not stay held for it
            _log.error("cannot let go", device=device.name, error=str(error))


def _uuid(lv_uuid: str) -> str:
    """A UUID as an LV of the same group has it, and no LV's: that of the LV below, backwards.

    So LVM takes no front device for a disk, whatever a tenant writes to it; and blkid, unlike for UUIDs with a suffix
    as LVM gives them to its inner layers, looks at what is on it.
    """
    group, lv = lv_uuid[:-_LV_UUID_CHARACTERS], lv_uuid[-_LV_UUID_CHARACTERS:]
    return f"{group}{lv[::-1]}"


def _name(cls: DeviceClass, key: str) -> str:
    return names.front_name(cls.options.volume_group, names.lv_name(key))
