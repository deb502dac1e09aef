"""Snapshots and groups of them: read-only images of their own, which outlive the volume they were taken of."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack

from backends.loop import copying
from backends.loop.layout import Check
from backends.loop.pool import Pool
from backends.loop.records import GroupRecord, SnapshotRecord, VolumeRecord, dump, now_us, row_of
from backends.loop.volumes import existing, refuse_attached
from csi_core import handles
from csi_core.faults import fault
from csi_core.model import GroupSnapshot, GroupSnapshotSpec, Snapshot, SnapshotSpec

__all__ = ["create", "create_group", "delete", "delete_group", "find_group", "group_taken", "taken"]


def create(pool: Pool, spec: SnapshotSpec, volume_key: str) -> Snapshot:
    """Snapshot a volume. Whether the name is taken: :func:`taken`.

    Raises:
        NotFound: no such volume.
        NoSpace: the pool has no room for what the copy may come to need.
        Busy, TimedOut, FailedPrecondition: see :func:`backends.loop.copying.take`.
    """

    def take(check: Check) -> Snapshot:
        with pool.claims.shared([volume_key]):
            volume = existing(pool, volume_key)
            record = _new_record(pool, volume, name=spec.name, group_key="", recorded=dump(spec.recorded))
            _take(pool, [volume], [record], None, check)
        return record.public(pool.name)

    return pool.copy(f"snapshot {spec.name}", take)


def taken(pool: Pool, name: str) -> Snapshot | None:
    """The finished snapshot taken under ``name``. One of a call that failed half-way is discarded.

    Raises:
        TimedOut: it is being copied, which goes on.
    """
    pool.join(f"snapshot {name}")
    found = pool.records.snapshot_named(name)
    if found and found.state == "creating":
        pool.discard(found.key)
        return None
    return found.public(pool.name) if found else None


def delete(pool: Pool, key: str) -> None:
    """Delete a snapshot; one that is not there is deleted. Volumes made from it have blocks of their own.

    Raises:
        Busy: it is being copied or read.
        FailedPrecondition: an administrator has attached its image.
    """
    with pool.claims.exclusive(key):
        if pool.records.snapshot(key) is None:
            return
        refuse_attached(pool, key)
        fault("loop.delete_snapshot.before_commit")
        pool.discard(key)
        fault("loop.delete_snapshot.after_commit")


def create_group(pool: Pool, spec: GroupSnapshotSpec, volume_keys: Sequence[str]) -> GroupSnapshot:
    """Snapshot several volumes at one moment, all or none. Whether the name is taken: :func:`group_taken`.

    Raises:
        As :func:`create`.
    """

    def take(check: Check) -> GroupSnapshot:
        with pool.claims.shared(volume_keys):
            volumes = [existing(pool, key) for key in volume_keys]
            group = GroupRecord(handles.new_key("g"), spec.name, "creating", dump(spec.recorded), now_us())
            members = [_new_record(pool, v, name=None, group_key=group.key, recorded=group.recorded) for v in volumes]
            _take(pool, volumes, members, group, check)
        return _public_group(pool, group)

    return pool.copy(f"group snapshot {spec.name}", take)


def group_taken(pool: Pool, name: str) -> GroupSnapshot | None:
    """The finished group taken under ``name``. One of a call that failed half-way is discarded.

    Raises:
        TimedOut: it is being copied, which goes on.
    """
    pool.join(f"group snapshot {name}")
    found = pool.records.group_named(name)
    if found and found.state == "creating":
        _discard_group(pool, found)
        return None
    return _public_group(pool, found) if found else None


def find_group(pool: Pool, key: str) -> GroupSnapshot | None:
    """The finished group ``key``, or None."""
    found = pool.records.group(key)
    return _public_group(pool, found) if found and found.state == "ready" else None


def delete_group(pool: Pool, key: str) -> None:
    """Delete a group and its snapshots in one commit; one that is not there is deleted.

    Raises:
        Busy: a member is being copied or read. FailedPrecondition: as in :func:`delete`.
    """
    found = pool.records.group(key)
    if found:
        _discard_group(pool, found)


def _new_record(pool: Pool, volume: VolumeRecord, *, name: str | None, group_key: str, recorded: str) -> SnapshotRecord:
    return SnapshotRecord(
        key=handles.new_key("s"),
        name=name,
        state="creating",
        volume_key=volume.key,
        group_key=group_key,
        size_bytes=volume.size_bytes,
        charge_bytes=pool.layout.snapshot_charge(pool.ledger, volume),
        formatted=volume.formatted,
        recorded=recorded,
        created_us=now_us(),
    )


def _take(
    pool: Pool,
    volumes: Sequence[VolumeRecord],
    snapshots: Sequence[SnapshotRecord],
    group: GroupRecord | None,
    check: Check,
) -> None:
    records: list[SnapshotRecord | GroupRecord] = [*snapshots, group] if group else [*snapshots]

    def finish(connection: sqlite3.Connection) -> None:
        for record in snapshots:
            connection.execute("UPDATE snapshot SET state = 'ready' WHERE key = ?", (record.key,))
        if group:
            connection.execute("UPDATE snapshot_group SET state = 'ready' WHERE key = ?", (group.key,))

    with pool.half_made(*(record.key for record in records)):
        with ExitStack() as stack:
            reservation = stack.enter_context(pool.reserve(sum(record.charge_bytes for record in snapshots)))
            placements = [
                stack.enter_context(pool.placed(record.key, present_bytes, present_bytes))
                for record, volume in zip(snapshots, volumes, strict=True)
                for present_bytes in (pool.layout.present_bytes(volume.key),)
            ]
            fault("loop.snapshot.before_commit")
            placed = [row for placement in placements for row in placement.rows()]
            pool.database.insert([*map(row_of, records), *placed])
            fault("loop.snapshot.after_commit")
            reservation.commit()
        copying.take(
            pool,
            [
                copying.Copy(volume.key if volume.state == "ready" else "", snapshot.key, volume.size_bytes)
                for volume, snapshot in zip(volumes, snapshots, strict=True)
            ],
            check,
        )
        for record in snapshots:
            pool.layout.seal(record.key)
        fault("loop.snapshot.before_ready")
        pool.database.write(finish)
        fault("loop.snapshot.after_ready")


def _discard_group(pool: Pool, group: GroupRecord) -> None:
    keys = [member.key for member in pool.records.members(group.key)]
    with pool.claims.exclusive(*keys):
        for key in keys:
            refuse_attached(pool, key)
        fault("loop.delete_group.before_commit")
        pool.discard(group.key, *keys)
        fault("loop.delete_group.after_commit")


def _public_group(pool: Pool, group: GroupRecord) -> GroupSnapshot:
    return group.public(pool.name, tuple(member.public(pool.name) for member in pool.records.members(group.key)))
