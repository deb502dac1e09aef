"""The life of a volume: created, grown, deleted. What attaches it is in :mod:`backends.loop.attachments`."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Final

from backends.loop import copying
from backends.loop.layout import Check
from backends.loop.options import LoopParameters
from backends.loop.pool import Pool
from backends.loop.records import SnapshotRecord, State, VolumeRecord, dump, now_us, row_of
from csi_core import handles
from csi_core.errors import FailedPrecondition, NotFound, OutOfRange
from csi_core.faults import fault
from csi_core.model import ContentSource, SizeRange, SourceKind, Volume, VolumeMode, VolumeSpec
from csi_core.sizes import choose_size, whole_size

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
_INITIAL_BYTES: Final = 256 << 20
"""An elastic volume begins with this much, or with a hundredth of its size if that is more."""
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
        InvalidArgument: the pool's layout does not serve it like this.
    """
    pool.layout.refuse(thick=parameters.provisioning == "thick", raw_block=spec.volume_mode is VolumeMode.BLOCK)
    if spec.source is None:
        return _create_empty(pool, spec, parameters).public(pool.name)
    source_key = _source_key(pool, spec.source)
    kind = spec.source.kind

    def copy(check: Check) -> Volume:
        with pool.claims.shared([source_key]):
            record = _create_copy(pool, spec, parameters, _source(pool, kind, source_key), check)
        return record.public(pool.name)

    return pool.copy(_copy_name(spec.name), copy)


def taken(pool: Pool, name: str) -> Volume | None:
    """The finished volume created under ``name``.

    One of a call that failed half-way is discarded.

    Raises:
        Busy: a call is making it at this moment.
        TimedOut: it is being copied, which goes on.
    """
    pool.join(_copy_name(name))
    if name not in pool.names:
        return None
    record = pool.records.volume_named(name)
    if record and record.state == "creating":
        with pool.claims.exclusive(record.key):
            record = pool.records.volume(record.key)
            if record and record.state == "creating":
                pool.discard(record.key)
                return None
    return record.public(pool.name) if record else None


def _copy_name(name: str) -> str:
    return f"copy for volume {name}"


def _create_empty(pool: Pool, spec: VolumeSpec, parameters: LoopParameters) -> VolumeRecord:
    size_bytes = _chosen_size(pool, spec, at_least_bytes=0)
    thick = parameters.provisioning == "thick"
    record = _new_record(pool, spec, parameters, size_bytes, state=pool.layout.birth(thick=thick))
    present_bytes = size_bytes if thick else _initial_size(spec, parameters, size_bytes)
    if record.state != "creating":
        _record(pool, record, present_bytes)
        return record
    with pool.half_made(record.key):
        _record(pool, record, present_bytes)
        pool.layout.ensure(record.key, size_bytes, thick=True)
        _finish(pool, record.key)
    return record


def _create_copy(
    pool: Pool, spec: VolumeSpec, parameters: LoopParameters, source: VolumeRecord | SnapshotRecord, check: Check
) -> VolumeRecord:
    size_bytes = _chosen_size(pool, spec, at_least_bytes=source.size_bytes)
    thick = parameters.provisioning == "thick"
    record = _new_record(pool, spec, parameters, size_bytes, state="creating", formatted=source.formatted)
    initial_bytes = max(pool.layout.present_bytes(source.key), _initial_size(spec, parameters, size_bytes))
    with pool.half_made(record.key):
        _record(pool, record, size_bytes if thick else initial_bytes)
        source_key = source.key if source.state == "ready" else ""
        copying.take(pool, [copying.Copy(source_key, record.key, source.size_bytes)], check)
        if thick:
            # The clone shares its source's blocks, and a write into a shared block needs a new one.
            pool.layout.own(record.key)
        pool.layout.ensure(record.key, size_bytes, thick=thick)
        _finish(pool, record.key)
    return record


def _new_record(
    pool: Pool, spec: VolumeSpec, parameters: LoopParameters, size_bytes: int, *, state: State, formatted: str = ""
) -> VolumeRecord:
    thick = parameters.provisioning == "thick"
    return VolumeRecord(
        key=handles.new_key("v"),
        name=spec.name,
        state=state,
        size_bytes=size_bytes,
        thick=thick,
        charge_bytes=pool.charge(thick=thick, size_bytes=size_bytes),
        formatted=formatted,
        mkfs_options=parameters.mkfs_options,
        source=spec.source.handle if spec.source else "",
        recorded=dump(spec.recorded),
        created_us=now_us(),
    )


def _record(pool: Pool, record: VolumeRecord, present_bytes: int) -> None:
    with (
        pool.reserve(record.charge_bytes) as reservation,
        pool.placed(record.key, record.size_bytes, present_bytes) as placement,
    ):
        pool.names.add(record.name)
        fault("loop.create.before_commit")
        pool.database.insert([row_of(record), *placement.rows()])
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
    size_bytes = choose_size(
        spec.size,
        granularity_bytes=GRANULARITY_BYTES,
        minimum_bytes=max(_smallest_filesystem(spec), MINIMUM_BYTES),
        default_bytes=_DEFAULT_BYTES,
        source_bytes=at_least_bytes,
    )
    return _fitting(pool, size_bytes)


def _initial_size(spec: VolumeSpec, parameters: LoopParameters, size_bytes: int) -> int:
    """What an elastic volume begins with."""
    wanted = parameters.initial_size or max(_INITIAL_BYTES, size_bytes // 100)
    return min(size_bytes, max(wanted, _smallest_filesystem(spec)))


def _smallest_filesystem(spec: VolumeSpec) -> int:
    return max((_SMALLEST_FILESYSTEM_BYTES.get(c.fs_type, 0) for c in spec.capabilities), default=0)


def _fitting(pool: Pool, size_bytes: int) -> int:
    if size_bytes > pool.layout.largest_volume_bytes:
        raise OutOfRange(
            f"{size_bytes} bytes are asked for, and {pool.layout.container} holds at most "
            f"{pool.layout.largest_volume_bytes}"
        )
    return size_bytes


def expand(pool: Pool, key: str, size: SizeRange) -> int:
    """Grow a volume, and its device where it is attached; answer its size in bytes. Never shrinks.

    Raises:
        NotFound, NoSpace, OutOfRange: nothing was changed.
    """
    with pool.claims.exclusive(key):
        record = existing(pool, key)
        if size.required_bytes > record.size_bytes:
            record = _grow(pool, record, _fitting(pool, whole_size(size, size.required_bytes, GRANULARITY_BYTES)))
        pool.layout.fit(record)
        return record.size_bytes


def _grow(pool: Pool, record: VolumeRecord, size_bytes: int) -> VolumeRecord:
    charge_bytes = max(record.charge_bytes, pool.charge(thick=record.thick, size_bytes=size_bytes))

    def work(connection: sqlite3.Connection) -> None:
        statement = "UPDATE volume SET size_bytes = ?, charge_bytes = ? WHERE key = ?"
        connection.execute(statement, (size_bytes, charge_bytes, record.key))
        placement.record(connection)

    with (
        pool.reserve(charge_bytes - record.charge_bytes) as reservation,
        pool.extended(record, size_bytes) as placement,
    ):
        fault("loop.expand.before_commit")
        pool.database.write(work)
        fault("loop.expand.after_commit")
        reservation.commit()
    return replace(record, size_bytes=size_bytes, charge_bytes=charge_bytes)


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
        if record.state == "promised" and not pool.layout.exists(key):
            pool.layout.retire([key])
            pool.records.forget_unused(key)
            fault("loop.delete.after_commit")
            pool.layout.forgotten([key])
            pool.ledger.release(record.charge_bytes)
        else:
            pool.discard(key)
            fault("loop.delete.after_discard")


def refuse_attached(pool: Pool, key: str) -> None:
    """Raise where the image ``key`` is bound to a loop device.

    Raises:
        FailedPrecondition: it is, by whomever.
    """
    if device := pool.layout.device(key):
        raise FailedPrecondition(f"{key} is attached as {device.node}; unpublish and unstage it first")
