"""What is wrong: health for the CO, findings for the administrator, and the repairs that are provably safe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from backends.lvm import names, removal
from backends.lvm.deviceclass import DeviceClass, group_complete, group_members
from backends.lvm.pools import PoolStatus, ThinPool
from backends.lvm.records import Record
from backends.lvm.report import Report
from csi_core.errors import NotFound, Unavailable
from csi_core.health import Finding, HealthKind, HealthProblem

__all__ = ["findings", "group_health", "repair", "volume_health"]

_MAX_AGE_S: Final = 10.0
"""Disks and mirrors fail without any change of the group's metadata."""
_METADATA_WARN_SHARE: Final = 0.9
_UNFINISHED: Final = "half-made or half-deleted"
_STRANGER: Final = "LV with a name of ours and without our tags"
_TORN: Final = "group of snapshots with members missing"


def group_health(cls: DeviceClass) -> Iterator[HealthProblem]:
    """What is wrong with the volume group and its thin pools."""
    group = cls.lvm.volume_group
    try:
        report = cls.reports.recent(_MAX_AGE_S)
    except Unavailable as error:
        yield HealthProblem(HealthKind.INACCESSIBLE, "VolumeGroupMissing", str(error))
        return
    if missing := [disk.device for disk in report.disks if disk.missing]:
        message = (
            f"volume group {group} misses {len(missing)} of {len(report.disks)} disks; bring them back, or repair it"
        )
        yield HealthProblem(HealthKind.DEGRADED, "PhysicalVolumeMissing", message)
    if report.exported:
        message = f"volume group {group} is exported, and none of its volumes can be used; take it back (vgimport)"
        yield HealthProblem(HealthKind.INACCESSIBLE, "VolumeGroupExported", message)
    if report.metadata_share >= _METADATA_WARN_SHARE:
        message = (
            f"the metadata area of volume group {group} is {report.metadata_share:.0%} full; when it is full no volume "
            "can be made or changed. Delete volumes, or make a group with a larger one (vgcreate --metadatasize)"
        )
        yield HealthProblem(HealthKind.DEGRADED, "MetadataAreaNearlyFull", message)
    for pool in cls.pools.values():
        yield from _pool_problems(cls, pool, report)
    for record in report.records.values():
        if record.copy_on_write and record.ready:
            yield from _snapshot_problems(cls, record)


def volume_health(cls: DeviceClass, key: str) -> Iterator[HealthProblem]:
    """What is wrong with one volume.

    Raises:
        NotFound: there is none.
    """
    report = cls.reports.recent(_MAX_AGE_S)
    record = report.ready(key)
    if record is None or names.kind_of(key) != "v":
        raise NotFound(f"device class {cls.name} has no volume {key}")
    yield from _lv_problems(cls, record)
    if record.lv.thin and record.lv.pool in cls.pools:
        yield from _pool_problems(cls, cls.pools[record.lv.pool], report)
    for snapshot in report.snapshots_of.get(record.lv.name, ()):
        if snapshot.ready:
            yield from _snapshot_problems(cls, snapshot)


def findings(cls: DeviceClass) -> Iterator[Finding]:
    """Compare tags, LVs and devices. Reads only; what a running call holds is left out."""
    report = cls.reports.current()
    torn: set[str] = set()
    for record in report.records.values():
        handle = names.join(cls.name, record.key)
        group = record.fields.get("group", "")
        if not record.ready:
            if not cls.under_way(record.key):
                advice = f"{cls.lvm.path(record.lv.name)} was never handed out or is deleted; it can be removed"
                yield Finding(handle, _UNFINISHED, advice, repairable=True)
        elif group and group not in torn and not group_complete(report, group):
            torn.add(group)
            if all(member.ready for member in group_members(report, group)) and not cls.under_way(record.key):
                advice = "a member was removed by hand; delete the group"
                yield Finding(names.join(cls.name, group), _TORN, advice)
        if record.ready and record.copy_on_write and cls.fill(record) is None:
            yield Finding(handle, "lost data", "the copy-on-write snapshot ran full; delete it")
    for lv in report.volumes.values():
        key = names.key_of(lv.name)
        if key and key not in report.records:
            advice = "it is not served and not touched; look what it is, then rename or remove it (lvremove)"
            yield Finding(cls.lvm.path(lv.name), _STRANGER, advice)


def repair(cls: DeviceClass, finding: Finding) -> bool:
    """Repair one of :func:`findings` if it still holds and nothing can be lost by it."""
    if finding.problem != _UNFINISHED:
        return False
    key = finding.subject.removeprefix(f"{cls.name}:")
    record = cls.reports.current().records.get(key)
    if record is None or record.ready or cls.under_way(key):
        return False
    removal.finish(cls, key)
    return True


def _lv_problems(cls: DeviceClass, record: Record) -> Iterator[HealthProblem]:
    raid = "raid" in record.lv.layout
    degraded = record.lv.health or (f"disks {failed}" if (failed := cls.failed_legs(record)) else "")
    if record.lv.partial and not raid:
        message = f"a disk of {record.key} is missing; bring it back, or restore the volume from a backup"
        yield HealthProblem(HealthKind.INACCESSIBLE, "PhysicalVolumeMissing", message)
    elif degraded:
        message = f"the mirror of {record.key} is not whole ({degraded}); see to its disk (lvconvert --repair)"
        yield HealthProblem(HealthKind.DEGRADED, "MirrorDegraded", message)


def _snapshot_problems(cls: DeviceClass, record: Record) -> Iterator[HealthProblem]:
    filled = cls.fill(record)
    called = f"copy-on-write snapshot {record.key} ({record.name or 'of a group'})"
    if filled is None:
        message = f"{called} ran full and is lost; delete it. Its volume is whole"
        yield HealthProblem(HealthKind.DATA_LOSS, "SnapshotInvalid", message)
    elif filled >= cls.options.snapshot_warn_at and record.lv.size_bytes < record.size_bytes:
        message = (
            f"{called} is {filled:.0%} full, and lost when it is full; copy what it holds, or extend it (lvextend)"
        )
        yield HealthProblem(HealthKind.DEGRADED, "SnapshotNearlyFull", message)


def _pool_problems(cls: DeviceClass, pool: ThinPool, report: Report) -> Iterator[HealthProblem]:
    path = cls.lvm.path(pool.name)
    lv, status = report.volumes.get(pool.name), pool.status()
    if lv is None or not lv.thin_pool:
        yield HealthProblem(HealthKind.INACCESSIBLE, "ThinPoolMissing", f"there is no thin pool {path}")
    elif status is None:
        message = f"thin pool {path} is not active; activate it (lvchange -ay {path})"
        yield HealthProblem(HealthKind.INACCESSIBLE, "ThinPoolInactive", message)
    else:
        yield from _filled(path, pool, status)
        if lv.attributes[7:8] != "z" and not cls.options.single_tenant:
            message = f"thin pool {path} does not zero new blocks; nothing is admitted (lvchange --zero y {path})"
            yield HealthProblem(HealthKind.DEGRADED, "ThinPoolDoesNotZero", message)


def _filled(path: str, pool: ThinPool, status: PoolStatus) -> Iterator[HealthProblem]:
    if status.mode not in ("rw", "out_of_data_space"):
        message = (
            f"thin pool {path} is {status.mode}: it takes no writes; deactivate and repair it (lvconvert --repair)"
        )
        yield HealthProblem(HealthKind.INACCESSIBLE, "ThinPoolFailed", message)
        return
    then = "writes wait until it is extended, a minute unless set otherwise, and then fail"
    if not status.queues_when_full:
        then = "writes fail"
    for what, share, advice in (
        ("Data", status.data_share, f"lvextend {path}"),
        ("Metadata", status.metadata_share, f"lvextend --poolmetadatasize +SIZE {path}"),
    ):
        if share >= pool.warn_at:
            stopped = "nothing more is admitted; " if share >= pool.stop_at else ""
            reason = f"ThinPool{what}{'Full' if share >= pool.stop_at else 'NearlyFull'}"
            message = f"the {what.lower()} of thin pool {path} is {share:.0%} full; {stopped}when it is full, {then}. "
            yield HealthProblem(HealthKind.DEGRADED, reason, f"{message}Extend it ({advice}) or delete volumes")
