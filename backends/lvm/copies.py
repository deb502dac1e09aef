"""Filling a new volume, or a full-copy snapshot, from an LV: a thin snapshot within its pool, else a copy of the data.

A copy is made of what stands still: of a snapshot, or of one taken for the purpose. What is being made bears the tag
``state=creating`` from its first moment: killed
anywhere, it is removed by the next call of that name or the next start, and made anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from backends.lvm import devicemapper, extents, fronts, names, removal, tags, transfer
from backends.lvm.creation import create_arguments, lvcreate, recorded_parameters, room, volume_fields
from backends.lvm.deviceclass import DeviceClass
from backends.lvm.devicemapper import Device
from backends.lvm.options import LvmParameters
from backends.lvm.records import Record, now_us
from csi_core.background import Task
from csi_core.errors import DataLoss, FailedPrecondition, NotFound, StorageFailure
from csi_core.faults import fault
from csi_core.model import ContentSource, SourceKind, VolumeSpec

__all__ = ["create", "full_copy", "inherited", "readable", "refuse_checksums", "thin_snapshot"]


def create(cls: DeviceClass, key: str, spec: VolumeSpec, parameters: LvmParameters) -> None:
    """Create the volume ``key`` from the source of ``spec``.

    Raises:
        As :func:`backends.lvm.volumes.create`.
    """
    assert spec.source is not None
    source = source_record(cls, spec.source)
    if cls.fill(source) is None:
        raise DataLoss(f"copy-on-write snapshot {source.key} ({source.name}) ran full and is lost; delete it")
    fields = {**inherited(source), **volume_fields(spec, parameters)}
    size_bytes = extents.chosen_size(cls.reports.current(), spec, parameters, at_least_bytes=source.size_bytes)
    if parameters.thin and source.lv.pool == cls.pool(parameters).name:
        with cls.hold("clone", key, shared=[source.key]), fronts.still(cls, [source.key]):
            source = source_record(cls, spec.source)  # held now, and so it stays
            thin_snapshot(cls, key, source, fields, size_bytes, read_only=False)
    else:
        full_copy(cls, key, source, fields, parameters, size_bytes)


def source_record(cls: DeviceClass, source: ContentSource) -> Record:
    """The LV that ``source`` means.

    Raises:
        NotFound: it is not in this class, or not any more.
    """
    located = names.split(source.handle, "s" if source.kind is SourceKind.SNAPSHOT else "v")
    if located is None or located[0] != cls.name:
        raise NotFound(f"no {source.kind.value} {source.handle} in device class {cls.name}")
    return cls.snapshot(located[1]) if source.kind is SourceKind.SNAPSHOT else cls.volume(located[1])


def inherited(source: Record) -> dict[str, str]:
    """What a copy takes over: the mark of its filesystem, that nobody has used it yet, and how it is wiped."""
    return {name: source.fields[name] for name in ("formatted", "wipe", "blank") if name in source.fields}


def thin_snapshot(
    cls: DeviceClass, key: str, source: Record, fields: Mapping[str, str], size_bytes: int, *, read_only: bool
) -> None:
    """Make ``key`` a thin snapshot of a thin LV: one command, unless it is to be larger. The caller holds both.

    Raises:
        LogicalVolumeExists: there is an LV of that name.
        NoSpace: the pool has no room.
    """
    grows = size_bytes > source.lv.size_bytes
    state = {"state": "creating"} if grows and "state" not in fields else {}
    permission = f"--permission={'r' if read_only else 'rw'}"
    with cls.pool_of(source).admitted(size_bytes, single_tenant=cls.options.single_tenant):
        fault("lvm.thin_snapshot.before_lvcreate")
        arguments = ["--snapshot", "--activate=n", "--setactivationskip=y", permission]
        lvcreate(cls, key, {**fields, **state}, *arguments, cls.lvm.path(source.lv.name), thin=True)
        fault("lvm.thin_snapshot.after_lvcreate")
        if grows:
            cls.lvm.change("lvextend", f"--size={size_bytes}b", cls.lvm.path(names.lv_name(key)))
            fault("lvm.thin_snapshot.after_lvextend")
            cls.retag(key, remove=tags.encode(state))
            fault("lvm.thin_snapshot.after_ready")


def full_copy(
    cls: DeviceClass,
    key: str,
    source: Record,
    fields: Mapping[str, str],
    parameters: LvmParameters,
    size_bytes: int,
) -> None:
    """Make ``key`` with the data of ``source``, in the background, and wait as long as the call may.

    Raises:
        TimedOut: it goes on; repeat the call.
        NoSpace: no room for it.
        FailedPrecondition: LVM takes no snapshot of ``source`` to copy from.
    """
    refuse_checksums(cls, source)

    def work(task: Task) -> None:
        try:
            _copy(cls, key, source.key, fields, parameters, size_bytes, task)
        except BaseException:
            removal.begin(cls, key)
            raise

    cls.copies.finish(key, work)


def refuse_checksums(cls: DeviceClass, source: Record) -> None:
    """Raise where a volume is a mirror with checksums. It is asked for: they may have been removed by hand.

    Raises:
        FailedPrecondition: LVM takes no snapshot of such.
    """
    if not recorded_parameters(source).integrity:
        return
    path = cls.lvm.path(source.lv.name)
    if cls.lvm.report("lvs", "--noheadings", "--options", "raidintegritymode", path).strip():
        raise FailedPrecondition(
            f"{source.key} is of type raid1 with integrity, and LVM takes no snapshots of such: it can neither be "
            f"snapshotted nor cloned; copy its files, or do without checksums (lvconvert --raidintegrity n {path})"
        )


def _copy(
    cls: DeviceClass,
    key: str,
    source_key: str,
    fields: Mapping[str, str],
    parameters: LvmParameters,
    size_bytes: int,
    task: Task,
) -> None:
    with cls.hold("copy", key, shared=[source_key]):
        source = cls.reports.current().ready(source_key)
        if source is None:
            raise NotFound(f"device class {cls.name} has no {source_key} any more")
        state = {"state": "creating"}
        with room(cls, parameters, size_bytes):
            fault("lvm.copy.before_lvcreate")
            made = create_arguments(cls, parameters, size_bytes)
            lvcreate(cls, key, {**fields, **state}, *made, thin=parameters.thin)
            fault("lvm.copy.after_lvcreate")
        with _still(cls, key, source) as origin, cls.active(key) as target:
            fault("lvm.copy.before_data")
            nodes = devicemapper.node(origin), devicemapper.node(target)
            transfer.copy_device(*nodes, source.size_bytes, task, sparse=parameters.thin)
            fault("lvm.copy.after_data")
            cls.retag(key, remove=tags.encode(state))
            fault("lvm.copy.after_ready")


@contextmanager
def readable(cls: DeviceClass, snapshot: Record) -> Iterator[Device]:
    """A snapshot's device, active for the time being; the caller holds it."""
    # A copy-on-write snapshot is active together with its origin only.
    origin_key = names.key_of(snapshot.lv.origin) if snapshot.copy_on_write else None
    with _readable(cls, snapshot.key, origin_key or snapshot.key) as device:
        yield device


@contextmanager
def _readable(cls: DeviceClass, key: str, activated_key: str) -> Iterator[Device]:
    with cls.active(activated_key):
        device = cls.device(key)
        if device is None:
            raise StorageFailure(f"snapshot {key} has no device, although its LV is active")
        yield device


@contextmanager
def _still(cls: DeviceClass, target_key: str, source: Record) -> Iterator[Device]:
    """An active device with the source's data that nobody writes to."""
    if names.kind_of(source.key) == "s":
        with readable(cls, source) as device:
            yield device
        return
    with cls.active(source.key):
        key = "t" + target_key[1:]
        # It is to go from its first moment, whatever happens.
        fields = {"made": str(now_us()), "state": "deleting", "of": source.key, **inherited(source)}
        shape = ["--activate=n", "--setactivationskip=y"] if source.lv.thin else ["--extents=100%ORIGIN"]
        arguments = ["--snapshot", *shape, cls.lvm.path(source.lv.name)]
        try:
            with cls.hold("copy", key):
                with fronts.still(cls, [source.key]):
                    fault("lvm.copy.before_still")
                    lvcreate(cls, key, fields, *arguments, thin=source.lv.thin)
                    fault("lvm.copy.after_still")
                with _readable(cls, key, key if source.lv.thin else source.key) as device:
                    yield device
                if source.lv.thin:
                    removal.remove_at_once(cls, key)
                else:
                    removal.wipe_held(cls, key, Task(key))
        except BaseException:
            removal.begin(cls, key)
            raise
