"""Making an LV of ours: its tags, its room, and the arguments of lvcreate for each type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from backends.lvm import names, tags
from backends.lvm.deviceclass import DeviceClass
from backends.lvm.extents import taken_bytes
from backends.lvm.options import RAID_OPTIONS, THICK_OPTIONS, LvmParameters
from backends.lvm.records import Record, now_us, parameter_fields
from csi_core.errors import NoSpace
from csi_core.model import VolumeSpec

__all__ = ["beside_spare", "create_arguments", "lvcreate", "recorded_parameters", "room", "volume_fields"]

_MIRROR: Final = "--type=raid1"


def volume_fields(spec: VolumeSpec, parameters: LvmParameters) -> dict[str, str]:
    """What is recorded with a new volume."""
    fields = {"name": spec.name, "made": str(now_us()), **parameter_fields(spec.recorded)}
    if spec.source:
        fields["source"] = spec.source.handle
    if parameters.mkfs_options:
        fields["mkfs"] = parameters.mkfs_options
    if parameters.wipe != "discard":
        fields["wipe"] = parameters.wipe
    return fields


def lvcreate(cls: DeviceClass, key: str, fields: Mapping[str, str], *arguments: str, thin: bool = False) -> None:
    """Run lvcreate for an LV of ours, with its tags from its first moment, and what the class adds for such LVs.

    Raises:
        LogicalVolumeExists: there is one of that name.
        NoSpace: no room.
    """
    refused = THICK_OPTIONS if thin else () if _MIRROR in arguments else RAID_OPTIONS
    options = [option for option in cls.options.create_options if option.partition("=")[0] not in refused]
    added = [f"--addtag={tag}" for tag in tags.encode(fields)]
    cls.lvm.change("lvcreate", f"--name={names.lv_name(key)}", *options, *added, *arguments)


@contextmanager
def room(cls: DeviceClass, parameters: LvmParameters, size_bytes: int, present_bytes: int = 0) -> Iterator[None]:
    """Hold room for a volume while it is made, or while one of ``present_bytes`` grows.

    Of thick volumes LVM itself keeps the books; only the administrator's spare is ours to see to.

    Raises:
        NoSpace: there is none.
    """
    if parameters.thin:
        with cls.pool(parameters).admitted(size_bytes, present_bytes, single_tenant=cls.options.single_tenant):
            yield
        return
    report = cls.reports.latest()
    taken, present = (taken_bytes(report, parameters, size) for size in (size_bytes, present_bytes))
    with beside_spare(cls, taken - present):
        yield


@contextmanager
def beside_spare(cls: DeviceClass, needed_bytes: int) -> Iterator[None]:
    """Take so much of the group's free space within, one taker at a time where some of it is to be left.

    Raises:
        NoSpace: it would have to come from what is set aside.
    """
    if not cls.options.spare:
        yield
        return
    with cls.spare_turns:
        left_bytes = cls.reports.current().free_bytes - cls.options.spare
        if needed_bytes > left_bytes:
            raise NoSpace(
                f"no room: {needed_bytes} bytes are needed, {max(0, left_bytes)} left in volume group "
                f"{cls.lvm.volume_group} beside the {cls.options.spare} set aside (spare)"
            )
        yield


def create_arguments(cls: DeviceClass, parameters: LvmParameters, size_bytes: int) -> list[str]:
    """How lvcreate makes a volume: inactive, so that nothing of it is on the node before it is attached.

    A thick one is not wiped here but at its first attach: LVM would have to activate it for that.
    """
    arguments = ["--activate=n", "--setactivationskip=y"]
    if parameters.thin:
        return [
            *arguments,
            "--type=thin",
            f"--thinpool={cls.pool(parameters).name}",
            f"--virtualsize={size_bytes}b",
            cls.lvm.volume_group,
        ]
    arguments += ["--zero=n", "--wipesignatures=n", f"--size={size_bytes}b", f"--type={parameters.type}"]
    if parameters.type == "striped":
        arguments += [f"--stripes={parameters.stripes}", f"--stripesize={parameters.stripe_size >> 10}k"]
    if parameters.type == "raid1":
        arguments += [f"--mirrors={parameters.mirrors}", *(["--raidintegrity=y"] if parameters.integrity else [])]
    return [*arguments, cls.lvm.volume_group]


def recorded_parameters(record: Record) -> LvmParameters:
    """The parameters that a volume was made with, as far as they say how it is laid out."""
    layout = record.lv.layout
    known = {k: v for k, v in record.recorded.items() if k in ("stripes", "stripeSize", "mirrors", "integrity")}
    if "striped" in layout:
        return LvmParameters.model_validate({"type": "striped"} | {k: known[k] for k in known if k[0] == "s"})
    if "raid1" in layout:
        return LvmParameters.model_validate({"type": "raid1"} | {k: known[k] for k in known if k[0] in "mi"})
    return LvmParameters()
