"""The life of a volume: created, grown, deleted. What fills it from a source is in :mod:`backends.lvm.copies`."""

from __future__ import annotations

from backends.lvm import copies, extents, fronts, names, removal, tags
from backends.lvm.commands import LogicalVolumeExists
from backends.lvm.creation import create_arguments, lvcreate, recorded_parameters, room, volume_fields
from backends.lvm.deviceclass import DeviceClass
from backends.lvm.options import LvmParameters
from backends.lvm.report import Report
from csi_core.errors import AlreadyExists, Busy, FailedPrecondition, InvalidArgument
from csi_core.faults import fault
from csi_core.model import Created, Existing, Outcome, SizeRange, Volume, VolumeSpec

__all__ = ["create", "expand", "named"]


def create(cls: DeviceClass, spec: VolumeSpec, parameters: LvmParameters) -> Outcome[Volume]:
    """Create a volume, or answer the one of this name.

    An empty one is one command and no report: its name is its key, and lvcreate refuses a second one.

    Raises:
        NotFound: the source is gone.
        NoSpace: no room.
        OutOfRange: the size can never be met.
        InvalidArgument, FailedPrecondition: the class does not allow these parameters.
        TimedOut: it is still being filled; repeat the call.
    """
    if parameters.wipe == "none" and not cls.options.single_tenant:
        raise InvalidArgument(
            f"parameter 'wipe': none would show the next tenant of class {cls.name} what this one deletes; the "
            "administrator allows it with singleTenant"
        )
    # An outdated report is no reason to take a new one: lvcreate itself knows whether the name is taken.
    for report in (cls.reports.unchanged, cls.reports.current):
        if (found := _taken(cls, spec.name, report())) is not None:
            return Existing(found)
        try:
            make = _create_empty if spec.source is None else _create_copy
            return Created(make(cls, spec, parameters))
        except LogicalVolumeExists:
            continue
    raise Busy(f"volume {spec.name!r} is being created or deleted by another call; repeat the call")


def named(cls: DeviceClass, name: str) -> Volume | None:
    """The finished volume created under ``name``, or None."""
    record = cls.reports.current().ready(names.make_key("v", name))
    return record.volume(cls.name) if record else None


def _taken(cls: DeviceClass, name: str, report: Report | None) -> Volume | None:
    """The finished volume of that name. One of a call that failed half-way is removed.

    Raises:
        Busy: it is being made or deleted at this moment.
    """
    key = names.make_key("v", name)
    record = report.records.get(key) if report else None
    if report and record is None and names.lv_name(key) in report.volumes:
        raise AlreadyExists(
            f"{cls.lvm.path(names.lv_name(key))} is there and was not made by this driver; rename or remove it"
        )
    if record is None:
        return None
    if record.ready:
        if record.name != name:
            raise AlreadyExists(f"{record.key} was made for {record.name!r}; choose another name than {name!r}")
        return record.volume(cls.name)
    if record.state != "creating" or not cls.copies.running(key):  # a copy that runs is joined
        removal.finish(cls, key)
    return None


def _create_empty(cls: DeviceClass, spec: VolumeSpec, parameters: LvmParameters) -> Volume:
    key = names.make_key("v", spec.name)
    with cls.hold("create", key):
        size_bytes = extents.chosen_size(cls.reports.latest(), spec, parameters)
        fields = volume_fields(spec, parameters)
        if not parameters.thin:
            fields["blank"] = "1"
        # A mirror takes lvcreate several changes of the group, and is none, or has no checksums, before the last.
        state = {"state": "creating"} if parameters.type == "raid1" else {}
        with room(cls, parameters, size_bytes):
            fault("lvm.create.before_lvcreate")
            lvcreate(
                cls, key, {**fields, **state}, *create_arguments(cls, parameters, size_bytes), thin=parameters.thin
            )
            fault("lvm.create.after_lvcreate")
        if state:
            cls.retag(key, remove=tags.encode(state))
    return Volume(names.join(cls.name, key), spec.name, size_bytes, dict(spec.recorded))


def _create_copy(cls: DeviceClass, spec: VolumeSpec, parameters: LvmParameters) -> Volume:
    key = names.make_key("v", spec.name)
    copies.create(cls, key, spec, parameters)
    return cls.volume(key).volume(cls.name)


def expand(cls: DeviceClass, key: str, size: SizeRange) -> int:
    """Grow a volume, and its device where it is attached; answer its size in bytes. Never shrinks.

    Raises:
        NotFound, NoSpace, OutOfRange: nothing was changed.
        FailedPrecondition: it has copy-on-write snapshots and is attached.
    """
    with cls.hold("expand", key):
        record = cls.volume(key)
        if size.required_bytes <= record.size_bytes:
            fronts.fit(cls, key, record.size_bytes)  # a process was killed before it came to this
            return record.size_bytes
        parameters = recorded_parameters(record)
        size_bytes = extents.rounded(cls.reports.latest(), size, size.required_bytes, extents.stripes_of(parameters))
        if record.lv.thin:
            parameters = LvmParameters(type="thin", thin_pool=cls.pool_of(record).name)
        elif record.lv.name in cls.reports.current().snapshots_of and cls.front(key) is not None:
            raise FailedPrecondition(
                f"{key} has copy-on-write snapshots and grows only while it is not attached; delete them or unpublish"
            )
        with room(cls, parameters, size_bytes, record.size_bytes):
            fault("lvm.expand.before_lvextend")
            cls.lvm.change("lvextend", f"--size={size_bytes}b", cls.lvm.path(record.lv.name))
            fault("lvm.expand.after_lvextend")
        fronts.fit(cls, key, size_bytes)
        fault("lvm.expand.after_front")
        return size_bytes
