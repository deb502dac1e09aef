"""The life of a volume: created, grown, deleted. What attaches it is in :mod:`backends.loop.attachments`."""

from __future__ import annotations

from typing import Final

from backends.loop import copying, handles, loopdev
from backends.loop.options import LoopParameters
from backends.loop.pool import Pool
from backends.loop.records import SnapshotRecord, VolumeRecord, dump, insert, now_us
from csi_core.errors import FailedPrecondition, NotFound, OutOfRange
from csi_core.faults import fault
from csi_core.model import ContentSource, SizeRange, SourceKind, Volume, VolumeSpec

__all__ = [
    "GRANULARITY_BYTES",
    "MINIMUM_BYTES",
    "create",
    "delete",
    "existing",
    "expand",
    "named",
    "refuse_attached",
    "taken",
]

GRANULARITY_BYTES: Final = 4096
MINIMUM_BYTES: Final = 1 << 20
_DEFAULT_BYTES: Final = 1 << 30
_SMALLEST_FILESYSTEM_BYTES: Final = {"xfs": 300 << 20, "btrfs": 128 << 20}
"""What mkfs accepts; a smaller request gets a volume of this size."""


def existing(pool: Pool, key: str) -> VolumeRecord:
    """The finished volume ``key``.

    Raises:
        NotFound: there is none.
    """
    record = pool.records.volume(key)
    if record is None or record.state == "creating":
        raise NotFound(f"pool {pool.name} has no volume {key}")
    return record


def named(pool: Pool, name: str) -> Volume | None:
    """The finished volume created under ``name``, or None."""
    record = pool.records.volume_named(name)
    return record.public(pool.name) if record and record.state != "creating" else None


def create(pool: Pool, spec: VolumeSpec, parameters: LoopParameters) -> Volume:
    """Create a volume in ``pool``. Whether the name is taken: :func:`taken`.

    A thin volume is one reservation and one commit: no file is touched before its first attach.

    Raises:
        NotFound: the source is gone.
        NoSpace: the pool has no room.
        OutOfRange: the size can never be met.
        FailedPrecondition: the source is in use and cannot be copied in time.
    """
    if spec.source is None:
        return _create_empty(pool, spec, parameters).public(pool.name)
    source_key = _source_key(pool, spec.source)
    with pool.claims.shared([source_key]):
        return _create_copy(pool, spec, parameters, _source(pool, spec.source.kind, source_key)).public(pool.name)


def taken(pool: Pool, name: str) -> Volume | None:
    """The finished volume created under ``name``.

    One of a call that failed half-way is discarded.

    Raises:
        Busy: a call is making it at this moment.
    """
    record = pool.records.volume_named(name)
    if record and record.state == "creating":
        with pool.claims.exclusive(record.key):
            record = pool.records.volume(record.key)
            if record and record.state == "creating":
                pool.discard(record.key)
                return None
    return record.public(pool.name) if record else None


def _create_empty(pool: Pool, spec: VolumeSpec, parameters: LoopParameters) -> VolumeRecord:
    size_bytes = _chosen_size(pool, spec, at_least_bytes=0)
    thick = parameters.provisioning == "thick"
    record = _new_record(pool, spec, parameters, size_bytes, state="creating" if thick else "promised")
    if not thick:
        _record(pool, record)
        return record
    with pool.half_made(record.key):
        _record(pool, record)
        pool.layout.ensure(record.key, size_bytes, thick=True)
        _finish(pool, record.key)
    return record


def _create_copy(
    pool: Pool, spec: VolumeSpec, parameters: LoopParameters, source: VolumeRecord | SnapshotRecord
) -> VolumeRecord:
    size_bytes = _chosen_size(pool, spec, at_least_bytes=source.size_bytes)
    thick = parameters.provisioning == "thick"
    record = _new_record(pool, spec, parameters, size_bytes, state="creating", formatted=source.formatted)
    with pool.half_made(record.key):
        _record(pool, record)
        source_key = source.key if source.state == "ready" else ""
        copying.take(pool, [copying.Copy(source_key, record.key, source.size_bytes)])
        if thick:
            # The clone shares its source's blocks, and a write into a shared block needs a new one.
            pool.layout.own(record.key)
        pool.layout.ensure(record.key, size_bytes, thick=thick)
        _finish(pool, record.key)
    return record


def _new_record(
    pool: Pool, spec: VolumeSpec, parameters: LoopParameters, size_bytes: int, *, state: str, formatted: str = ""
) -> VolumeRecord:
    thick = parameters.provisioning == "thick"
    return VolumeRecord(
        key=handles.new_key("v"),
        name=spec.name,
        state="creating" if state == "creating" else "promised",
        size_bytes=size_bytes,
        thick=thick,
        charge_bytes=pool.ledger.charge(thin=not thick, size_bytes=size_bytes),
        formatted=formatted,
        mkfs_options=parameters.mkfs_options,
        source=spec.source.handle if spec.source else "",
        recorded=dump(spec.recorded),
        created_us=now_us(),
    )


def _record(pool: Pool, record: VolumeRecord) -> None:
    with pool.reserve(record.charge_bytes) as reservation:
        fault("loop.create.before_commit")
        pool.database.write(lambda connection: insert(connection, record))
        fault("loop.create.after_commit")
        reservation.commit()


def _finish(pool: Pool, key: str) -> None:
    fault("loop.create.before_ready")
    pool.database.execute("UPDATE volume SET state = 'ready' WHERE key = ?", (key,))
    fault("loop.create.after_ready")


def _source_key(pool: Pool, source: ContentSource) -> str:
    found = handles.split(source.handle, "s" if source.kind is SourceKind.SNAPSHOT else "v")
    if found is None or found[0] != pool.name:
        raise NotFound(f"no {source.kind.value} {source.handle} in pool {pool.name}")
    return found[1]


def _source(pool: Pool, kind: SourceKind, key: str) -> VolumeRecord | SnapshotRecord:
    if kind is SourceKind.VOLUME:
        return existing(pool, key)
    record = pool.records.snapshot(key)
    if record is None or record.state != "ready":
        raise NotFound(f"pool {pool.name} has no snapshot {key}")
    return record


def _chosen_size(pool: Pool, spec: VolumeSpec, at_least_bytes: int) -> int:
    wanted = spec.size.required_bytes or at_least_bytes or min(_DEFAULT_BYTES, spec.size.limit_bytes or _DEFAULT_BYTES)
    if wanted < at_least_bytes:
        raise OutOfRange(f"{wanted} bytes are asked for, and the source has {at_least_bytes}; ask for at least that")
    smallest = max((_SMALLEST_FILESYSTEM_BYTES.get(c.fs_type, 0) for c in spec.capabilities), default=0)
    return _rounded(pool, spec.size, max(wanted, smallest, MINIMUM_BYTES))


def _rounded(pool: Pool, size: SizeRange, wanted_bytes: int) -> int:
    size_bytes = -(-wanted_bytes // GRANULARITY_BYTES) * GRANULARITY_BYTES
    if size.limit_bytes and size_bytes > size.limit_bytes:
        raise OutOfRange(f"the volume would have {size_bytes} bytes, and the limit is {size.limit_bytes}")
    if size_bytes > pool.filesystem.largest_image_bytes:
        raise OutOfRange(
            f"{size_bytes} bytes are asked for, and one file on {pool.filesystem.fs_type} holds at most "
            f"{pool.filesystem.largest_image_bytes}"
        )
    return size_bytes


def expand(pool: Pool, key: str, size: SizeRange) -> int:
    """Grow a volume, and its device where it is attached; answer its size in bytes. Never shrinks.

    The file grows before the record does, so a file shorter than its record always means lost data.

    Raises:
        NotFound, NoSpace, OutOfRange: nothing was changed.
    """
    with pool.claims.exclusive(key):
        record = existing(pool, key)
        size_bytes = record.size_bytes
        if size.required_bytes > size_bytes:
            size_bytes = _rounded(pool, size, size.required_bytes)
            _grow(pool, record, size_bytes)
        found = pool.layout.found(key)
        device = loopdev.find(found) if found else None
        if device:
            # Also after a crash between the commit and here: the call comes again.
            fault("loop.expand.before_device")
            loopdev.fit_size(device, size_bytes)
            fault("loop.expand.after_device")
        return size_bytes


def _grow(pool: Pool, record: VolumeRecord, size_bytes: int) -> None:
    charge_bytes = max(record.charge_bytes, pool.ledger.charge(thin=not record.thick, size_bytes=size_bytes))
    with pool.reserve(charge_bytes - record.charge_bytes) as reservation:
        if record.state == "ready":
            pool.layout.ensure(record.key, size_bytes, thick=record.thick)
        fault("loop.expand.before_commit")
        pool.database.execute(
            "UPDATE volume SET size_bytes = ?, charge_bytes = ? WHERE key = ?", (size_bytes, charge_bytes, record.key)
        )
        fault("loop.expand.after_commit")
        reservation.commit()


def delete(pool: Pool, key: str) -> None:
    """Delete a volume; one that is not there is deleted. Its snapshots live on.

    Raises:
        FailedPrecondition: it is attached.
        Busy: it is being copied.
    """
    with pool.claims.exclusive(key):
        record = pool.records.volume(key)
        if record is None:
            return
        refuse_attached(pool, key)
        fault("loop.delete.before_commit")
        if record.state == "promised" and pool.layout.found(key) is None:
            pool.database.execute("DELETE FROM volume WHERE key = ?", (key,))
            fault("loop.delete.after_commit")
            pool.ledger.release(record.charge_bytes)
        else:
            pool.discard(key)
            fault("loop.delete.after_discard")


def refuse_attached(pool: Pool, key: str) -> None:
    """Raise where the image ``key`` is bound to a loop device.

    Raises:
        FailedPrecondition: it is, by whomever.
    """
    found = pool.layout.found(key)
    device = loopdev.find(found) if found else None
    if device:
        raise FailedPrecondition(f"{key} is attached as {device.node}; unpublish and unstage it first")
