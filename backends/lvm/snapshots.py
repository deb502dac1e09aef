"""Snapshots: thin ones, which outlive their volume; copy-on-write ones, which do not; full copies, which do."""

from __future__ import annotations

from collections.abc import Mapping

from backends.lvm import copies, fronts, names, removal
from backends.lvm.commands import LogicalVolumeExists
from backends.lvm.creation import beside_spare, lvcreate, recorded_parameters
from backends.lvm.deviceclass import DeviceClass, visible_snapshot
from backends.lvm.options import LvmSnapshotParameters, cow_bytes
from backends.lvm.records import Record, now_us, parameter_fields, shown_snapshot
from backends.lvm.report import Report
from csi_core.errors import AlreadyExists, Busy, InvalidArgument
from csi_core.faults import fault
from csi_core.model import Created, Existing, Outcome, Snapshot, SnapshotSpec

__all__ = ["create", "listed", "public", "snapshot_fields", "take", "taken"]


def create(cls: DeviceClass, volume_key: str, spec: SnapshotSpec) -> Outcome[Snapshot]:
    """Snapshot a volume, or answer the snapshot of this name.

    Raises:
        NotFound: no such volume.
        NoSpace: no room for it.
        TimedOut: the copy goes on; repeat the call.
    """
    key = names.make_key("s", spec.name)
    parameters = _parameters(spec)
    for report in (cls.reports.unchanged, cls.reports.current):
        if (found := taken(cls, key, spec.name, report())) is not None:
            return Existing(found)
        volume = cls.volume(volume_key)
        fields = snapshot_fields(volume, {"name": spec.name, **parameter_fields(spec.recorded)})
        try:
            if parameters.mode == "copy":
                _copy(cls, key, volume, fields)
            else:
                with cls.hold("snapshot", key, shared=[volume_key]), fronts.still(cls, [volume_key]):
                    take(cls, key, volume, fields, parameters)
        except LogicalVolumeExists:
            continue
        # No report for the answer: the tags are all there is to say.
        return Created(shown_snapshot(cls.name, key, fields, volume.size_bytes))
    raise Busy(f"snapshot {spec.name!r} is being created or deleted by another call; repeat the call")


def taken(cls: DeviceClass, key: str, name: str, report: Report | None) -> Snapshot | None:
    """The finished snapshot ``key``. One of a call that failed half-way is removed."""
    record = report.records.get(key) if report else None
    if record is None or report is None:
        return None
    if record.ready:
        if record.name != name:
            raise AlreadyExists(f"{key} was made for {record.name!r}; choose another name than {name!r}")
        return public(cls, record)
    if record.state != "creating" or not cls.copies.running(key):
        removal.finish(cls, key)
    return None


def take(
    cls: DeviceClass, key: str, volume: Record, fields: Mapping[str, str], parameters: LvmSnapshotParameters
) -> None:
    """Take one native snapshot; the caller holds both, and sees to it that writers stand still.

    Raises:
        LogicalVolumeExists: there is an LV of that name.
        NoSpace: no room.
        FailedPrecondition: LVM takes none of it.
    """
    if volume.lv.thin:
        copies.thin_snapshot(cls, key, volume, fields, volume.lv.size_bytes, read_only=True)
        return
    copies.refuse_checksums(cls, volume)
    store_bytes = cow_bytes(parameters.cow_size, volume.size_bytes)
    room = f"--size={store_bytes}b" if store_bytes else "--extents=100%ORIGIN"
    with beside_spare(cls, store_bytes or volume.size_bytes):
        fault("lvm.snapshot.before_lvcreate")
        # Writable, as far as LVM knows: it never is attached, and its store is to be wiped in the end.
        lvcreate(cls, key, {**fields, "cow": "1"}, "--snapshot", room, cls.lvm.path(volume.lv.name))
        fault("lvm.snapshot.after_lvcreate")


def snapshot_fields(volume: Record, more: Mapping[str, str]) -> dict[str, str]:
    """What is recorded with a snapshot of ``volume``."""
    return {
        "made": str(now_us()),
        "of": volume.key,
        "size": str(volume.size_bytes),
        **copies.inherited(volume),
        **more,
    }


def public(cls: DeviceClass, record: Record) -> Snapshot:
    """As the contract's value; one that ran full is not ready, and never will be."""
    return record.snapshot(cls.name, ready=cls.fill(record) is not None)


def listed(report: Report, volume_key: str) -> list[Record]:
    """The finished snapshots, of one volume where its key is given."""
    return [
        record
        for record in report.records.values()
        if visible_snapshot(report, record.key) and (not volume_key or record.fields.get("of") == volume_key)
    ]


def _copy(cls: DeviceClass, key: str, volume: Record, fields: Mapping[str, str]) -> None:
    if volume.lv.thin:
        raise InvalidArgument(
            "parameter 'mode': snapshots of thin volumes outlive them as they are; leave mode at native"
        )
    copies.full_copy(cls, key, volume, fields, recorded_parameters(volume), volume.size_bytes)


def _parameters(spec: SnapshotSpec) -> LvmSnapshotParameters:
    return spec.parameters if isinstance(spec.parameters, LvmSnapshotParameters) else LvmSnapshotParameters()
