"""Volumes as block devices of this node."""

from __future__ import annotations

from backends.loop.layout import Device
from backends.loop.pool import Pool
from backends.loop.records import VolumeRecord
from backends.loop.volumes import existing
from csi_core.errors import NotFound
from csi_core.faults import fault
from csi_core.model import AttachRequest, BlockSource, VolumeMode

__all__ = ["attach", "detach", "find", "mark_formatted"]


def attach(pool: Pool, key: str, request: AttachRequest) -> BlockSource:
    """Make the volume a block device of its recorded size, or find the one it is.

    Raises:
        NotFound: no such volume.
        DataLoss: its image is missing or cut off. It is never made anew.
        FailedPrecondition: it is attached read-only and is now to be written.
        InvalidArgument: an elastic volume is to be used as raw block.
    """
    with pool.claims.exclusive(key):
        record = existing(pool, key)
        # A read-only mount of a filesystem must still be able to replay its journal: only raw block devices are
        # read-only themselves.
        block = request.capability.volume_mode is VolumeMode.BLOCK
        pool.layout.refuse(thick=record.thick, raw_block=block)
        if record.state == "promised":
            _make_image(pool, record)
        read_only = block and (request.read_only or request.capability.access_mode.read_only)
        return _source(pool, record, pool.layout.attach(record, read_only=read_only))


def detach(pool: Pool, key: str) -> None:
    """Make the volume no block device any more; what was written is on the disk when this returns.

    Not attached: nothing to do.

    Raises:
        Busy: something holds the device open.
    """
    with pool.claims.exclusive(key):
        pool.layout.detach(key)


def find(pool: Pool, key: str) -> BlockSource | None:
    """The volume as it is attached now, or None."""
    record = pool.records.volume(key)
    device = pool.layout.device(key) if record else None
    return _source(pool, record, device) if record and device else None


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


def _source(pool: Pool, record: VolumeRecord, device: Device) -> BlockSource:
    packed = pool.options.layout == "extents"
    return BlockSource(
        device=device.node,
        size_bytes=record.size_bytes,
        formatted=record.formatted,
        mkfs_options=tuple(record.mkfs_options.split()),
        keep_allocated=bool(record.thick) or packed,
        copied=bool(record.source),
        elastic=packed and not record.thick,
    )


def _make_image(pool: Pool, record: VolumeRecord) -> None:
    """First attach of a thin volume: from the commit on, a missing image is lost data."""
    fault("loop.attach.before_image")
    pool.layout.ensure(record.key, record.size_bytes, thick=False)
    fault("loop.attach.before_ready")
    pool.database.execute("UPDATE volume SET state = 'ready' WHERE key = ?", (record.key,))
    fault("loop.attach.after_ready")
