"""Volumes as block devices of this node."""

from __future__ import annotations

import os
from contextlib import suppress

import structlog

from backends.loop import images, loopdev
from backends.loop.loopdev import LoopDevice
from backends.loop.pool import Pool
from backends.loop.records import VolumeRecord
from backends.loop.volumes import existing
from csi_core.errors import DataLoss, FailedPrecondition, NotFound
from csi_core.faults import fault
from csi_core.model import AttachRequest, BlockSource, VolumeMode

__all__ = ["attach", "detach", "find", "mark_formatted"]

_log = structlog.get_logger(__name__)
_DISCARD_LIMIT_BYTES = 64 << 20
"""One discard punches at most this much at once; the default, 4 GiB, stalls writers for seconds."""


def attach(pool: Pool, key: str, request: AttachRequest) -> BlockSource:
    """Bind the volume to a loop device of its recorded size, or find the one it has.

    Raises:
        NotFound: no such volume.
        DataLoss: its image is missing or cut off. It is never made anew.
        FailedPrecondition: it is attached read-only and is now to be written.
    """
    with pool.claims.exclusive(key):
        record = existing(pool, key)
        if record.state == "promised":
            _make_image(pool, record)
        # A read-only mount of a filesystem must still be able to replay its journal: only raw block devices are
        # read-only themselves.
        block = request.capability.volume_mode is VolumeMode.BLOCK
        read_only = block and (request.read_only or request.capability.access_mode.read_only)
        device = _bound(pool, record, read_only=read_only)
        return _source(record, device)


def detach(pool: Pool, key: str) -> None:
    """Unbind the volume; what was written is on the disk when this returns. Not attached: nothing to do.

    Raises:
        Busy: something holds the device open.
    """
    with pool.claims.exclusive(key):
        found = pool.layout.found(key)
        if found is None:
            return
        if device := loopdev.find(found):
            fault("loop.detach.before_unbind")
            loopdev.detach(device)
            fault("loop.detach.after_unbind")
        # Whether attached or not: a process may have been killed between the two. Of a deleted volume the image may go
        # at any moment.
        with suppress(DataLoss), images.storage_errors(f"image {key}"), pool.layout.opened(key, write=False) as image:
            os.fsync(image)


def find(pool: Pool, key: str) -> BlockSource | None:
    """The volume as it is attached now, or None."""
    record, found = pool.records.volume(key), pool.layout.found(key)
    device = loopdev.find(found) if record and found else None
    return _source(record, device) if record and device else None


def mark_formatted(pool: Pool, key: str, fs_type: str) -> None:
    """Record that the volume has a filesystem. Once: the first word stands.

    Raises:
        NotFound: no such volume.
    """
    fault("loop.format.before_commit")
    pool.database.execute("UPDATE volume SET formatted = ? WHERE key = ? AND formatted = ''", (fs_type, key))
    fault("loop.format.after_commit")
    if not pool.records.volume(key):
        raise NotFound(f"pool {pool.name} has no volume {key}")


def _source(record: VolumeRecord, device: LoopDevice) -> BlockSource:
    return BlockSource(
        device=device.node,
        size_bytes=record.size_bytes,
        formatted=record.formatted,
        mkfs_options=tuple(record.mkfs_options.split()),
        keep_allocated=bool(record.thick),
        copied=bool(record.source),
    )


def _make_image(pool: Pool, record: VolumeRecord) -> None:
    """First attach of a thin volume: from the commit on, a missing image is lost data."""
    fault("loop.attach.before_image")
    pool.layout.ensure(record.key, record.size_bytes, thick=False)
    fault("loop.attach.before_ready")
    pool.database.execute("UPDATE volume SET state = 'ready' WHERE key = ?", (record.key,))
    fault("loop.attach.after_ready")


def _bound(pool: Pool, record: VolumeRecord, *, read_only: bool) -> LoopDevice:
    path = pool.layout.path(record.key)
    with images.storage_errors(f"image {path}"), pool.layout.opened(record.key, write=not read_only) as image:
        found = os.fstat(image)
        if found.st_size < record.size_bytes:
            raise DataLoss(f"{path} has {found.st_size} bytes of the {record.size_bytes} recorded; restore it")
        device = loopdev.find(found)
        if device is None:
            device = _bind(pool, record, image, read_only=read_only)
        elif device.read_only and not read_only:
            raise FailedPrecondition(f"{record.key} is attached read-only as {device.node}; unstage it first")
        else:
            device = loopdev.keep(device)
        if found.st_size > record.size_bytes and not device.size_limit_bytes:
            # An expansion was cut off before its commit: nobody was told of the rest.
            device = loopdev.limit_size(device, record.size_bytes)
        loopdev.fit_size(device, record.size_bytes)
        # Of a device that was found, too: a process may have been killed before this.
        loopdev.tune_discard(device, 0 if record.thick else _DISCARD_LIMIT_BYTES)
        return device


def _bind(pool: Pool, record: VolumeRecord, image: int, *, read_only: bool) -> LoopDevice:
    if record.thick and not read_only:
        _refill(record, image)
    fault("loop.attach.before_bind")
    device = loopdev.attach(image, read_only=read_only, direct_io=pool.options.direct_io)
    fault("loop.attach.after_bind")
    if pool.options.direct_io and pool.filesystem.direct_io and not device.direct_io:
        _log.warning("direct I/O refused", pool=pool.name, volume=record.key, device=str(device.node))
    return device


def _refill(record: VolumeRecord, image: int) -> None:
    """Fill holes that a discard has punched into a thick volume (kernels before 6.17 cannot forbid all of them)."""
    try:
        images.allocate(image, record.size_bytes)
    except OSError as error:
        # Its data is all there; volume health says that it is not thick any more.
        _log.warning("thick volume has holes that cannot be filled", volume=record.key, error=error.strerror)
