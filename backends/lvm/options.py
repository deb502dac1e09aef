"""What an administrator and a StorageClass can set: pydantic models, the only place where keys are declared."""

from __future__ import annotations

import re
from typing import Final, Literal

from pydantic import Field, field_validator, model_validator

from backends.lvm.names import front_name, lv_name, make_key
from csi_core.handles import STORE_NAME
from csi_core.parameters import FilesystemParameters, Parameters, SizeBytes, parse_size

__all__ = [
    "RAID_OPTIONS",
    "THICK_OPTIONS",
    "ClassOptions",
    "LvmOptions",
    "LvmParameters",
    "LvmSnapshotParameters",
    "ThinPoolOptions",
    "cow_bytes",
]

_LVM_NAME: Final = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,126}")
_DM_NAME_BYTES: Final = 127
_DEVICE_PATTERN: Final = re.compile(r"[ar]\|[^|\"\\\s]{1,200}\|")
_CREATE_OPTIONS: Final = {
    "--addtag": r"[A-Za-z0-9_+./=!:&#][A-Za-z0-9_+./=!:&#-]{0,127}",
    "--alloc": "contiguous|cling|cling_by_tags|normal|anywhere",
    "--maxrecoveryrate": r"\d{1,9}[kKmM]?",
    "--minrecoveryrate": r"\d{1,9}[kKmM]?",
    "--readahead": r"auto|none|\d{1,6}",
    "--regionsize": r"\d{1,6}[kKmM]?",
}
"""The options of lvcreate that a class may add, with the form of their values; none changes what a volume is."""
RAID_OPTIONS: Final = ("--maxrecoveryrate", "--minrecoveryrate", "--regionsize")
"""Those of them that lvcreate takes for a mirror only, and refuses for all else."""
THICK_OPTIONS: Final = (*RAID_OPTIONS, "--alloc")
"""Those that it refuses for thin LVs, which take no extents."""


class ThinPoolOptions(Parameters):
    """One thin pool, an LV that an administrator has made in the volume group."""

    overcommit: float = Field(default=1.0, ge=1.0, le=1000.0, description="Promised bytes of volumes per real byte.")
    warn_at: float = Field(default=0.8, gt=0, le=1, description="Used share of data or metadata that degrades health.")
    stop_at: float = Field(default=0.95, gt=0, le=1, description="Used share of data or metadata that stops admission.")

    @model_validator(mode="after")
    def _watermarks_ordered(self) -> ThinPoolOptions:
        if self.warn_at > self.stop_at:
            raise ValueError("warnAt must not be above stopAt")
        return self


class ClassOptions(Parameters):
    """One device class: a volume group, and how volumes are taken from it."""

    volume_group: str = Field(description="The volume group. It must exist, and belong to one class only.")
    spare: SizeBytes = Field(default=0, description="Free bytes of the group that are left for the administrator.")
    thin_pools: dict[str, ThinPoolOptions] = Field(default={}, description="Thin pools of the group, by LV name.")
    default_thin_pool: str = Field(
        default="", description="Pool of thin volumes that name none; may be left out with one pool."
    )
    single_tenant: bool = Field(
        default=False,
        description="All volumes belong to one tenant: `wipe: none` is allowed, and thin pools that do not zero.",
    )
    snapshot_warn_at: float = Field(
        default=0.8, gt=0, lt=1, description="Filled share of a copy-on-write snapshot that degrades health."
    )
    freeze_limit_seconds: float = Field(
        default=10.0, gt=0, le=60, description="Longest time writers may be held while a group snapshot is taken."
    )
    create_options: list[str] = Field(
        default=[], description=f"Further options for lvcreate, `--option=value`, of: {', '.join(_CREATE_OPTIONS)}."
    )

    @field_validator("volume_group")
    @classmethod
    def _group_name(cls, name: str) -> str:
        if len(front_name(_lvm_name(name), lv_name(make_key("v", "")))) > _DM_NAME_BYTES:
            raise ValueError(
                f"{name!r} is too long: a volume's device name would have more than {_DM_NAME_BYTES} bytes"
            )
        return name

    @field_validator("create_options")
    @classmethod
    def _allowed(cls, given: list[str]) -> list[str]:
        for option in given:
            name, _, value = option.partition("=")
            if name not in _CREATE_OPTIONS:
                raise ValueError(f"{name!r} is not allowed; known: {', '.join(_CREATE_OPTIONS)}")
            if not re.fullmatch(_CREATE_OPTIONS[name], value) or value.startswith("csi."):
                raise ValueError(f"{option!r}: {name} does not take this value; write it like {name}=VALUE")
        return given

    @property
    def allocation(self) -> str:
        """LVM's policy by which extents are chosen."""
        given = (option.partition("=") for option in self.create_options)
        return next((policy for name, _, policy in given if name == "--alloc"), "normal")

    @model_validator(mode="after")
    def _pools(self) -> ClassOptions:
        for name in self.thin_pools:
            _lvm_name(name)
        if self.default_thin_pool and self.default_thin_pool not in self.thin_pools:
            raise ValueError(f"defaultThinPool {self.default_thin_pool!r} is none of thinPools")
        return self


class LvmOptions(Parameters):
    """The ``options`` of an LVM backend in the configuration file."""

    classes: dict[str, ClassOptions] = Field(min_length=1, description="Device classes by name.")
    default_class: str = Field(
        default="", description="Class of volumes that name none; may be left out with one class."
    )
    device_filter: list[str] = Field(
        default=[],
        description='LVM\'s devices/filter, such as `["a|/dev/nvme.*|", "r|.*|"]`; that of the system unless given.',
    )

    @field_validator("device_filter")
    @classmethod
    def _patterns(cls, given: list[str]) -> list[str]:
        for pattern in given:
            if not _DEVICE_PATTERN.fullmatch(pattern):
                raise ValueError(f"{pattern!r} is not a filter; write it like a|/dev/sd.*| or r|.*|")
        return given

    @model_validator(mode="after")
    def _names(self) -> LvmOptions:
        owners: dict[str, str] = {}
        for name, options in self.classes.items():
            if not STORE_NAME.fullmatch(name):
                raise ValueError(f"class name {name!r}: use at most 32 of a-z, 0-9 and -, and no dash at the ends")
            other = owners.setdefault(options.volume_group, name)
            if other != name:
                raise ValueError(f"classes {other!r} and {name!r} share volumeGroup {options.volume_group!r}; use one")
        if self.default_class and self.default_class not in self.classes:
            raise ValueError(f"defaultClass {self.default_class!r} is not one of: {', '.join(self.classes)}")
        if not self.default_class and len(self.classes) > 1:
            raise ValueError(f"defaultClass must be one of {', '.join(self.classes)}, because there are several")
        return self

    @property
    def default(self) -> str:
        """The class of volumes that name none."""
        return self.default_class or next(iter(self.classes))


class LvmParameters(FilesystemParameters):
    """StorageClass parameters of the LVM backend."""

    device_class: str = Field(
        default="", description="Device class to take the volume from; the backend's defaultClass unless given."
    )
    type: Literal["linear", "striped", "raid1", "thin"] = Field(
        default="linear",
        description="linear: on any disk. striped: over several, for speed. raid1: mirrored. thin: from a thin pool.",
    )
    stripes: int = Field(default=2, ge=2, le=128, description="Disks that a striped volume is spread over.")
    stripe_size: SizeBytes = Field(default=64 << 10, description="Bytes on one disk before the next; a power of two.")
    mirrors: int = Field(default=1, ge=1, le=9, description="Copies that a raid1 volume has beside the first.")
    integrity: bool = Field(default=False, description="raid1 with checksums, which finds silent corruption; slower.")
    thin_pool: str = Field(default="", description="Thin pool of the class; its defaultThinPool unless given.")
    wipe: Literal["discard", "zero", "none"] = Field(
        default="discard",
        description="What becomes of deleted data. discard: the blocks are given back to the device so that they read "
        "as zeros, or overwritten where it cannot promise that. zero: overwritten. none: left where it is; the class "
        "must be singleTenant.",
    )

    @field_validator("stripe_size")
    @classmethod
    def _power_of_two(cls, size_bytes: int) -> int:
        if not 4096 <= size_bytes <= 1 << 30 or size_bytes & (size_bytes - 1):
            raise ValueError("must be a power of two from 4Ki to 1Gi")
        return size_bytes

    @model_validator(mode="after")
    def _of_the_type(self) -> LvmParameters:
        for type_name, names in {
            "striped": ("stripes", "stripe_size"),
            "raid1": ("mirrors", "integrity"),
            "thin": ("thin_pool",),
        }.items():
            if self.type != type_name and (given := self.model_fields_set & set(names)):
                alias = type(self).model_fields[min(given)].alias
                raise ValueError(f"{alias} is for type {type_name}, and the type is {self.type}")
        return self

    @property
    def thin(self) -> bool:
        """Whether space is taken as it is written."""
        return self.type == "thin"


class LvmSnapshotParameters(Parameters):
    """VolumeSnapshotClass parameters of the LVM backend."""

    mode: Literal["native", "copy"] = Field(
        default="native",
        description="native: a thin snapshot of a thin volume; of others, copy-on-write. copy: a full copy, which "
        "outlives its volume and slows no writer; not for thin volumes, whose snapshots do so anyway.",
    )
    cow_size: str = Field(
        default="100%",
        description="Room for what is overwritten after a copy-on-write snapshot: a share of the volume, or a size. "
        "When it is full the snapshot is lost; `100%` is never full.",
    )

    @field_validator("cow_size")
    @classmethod
    def _share_or_size(cls, given: str) -> str:
        if match := re.fullmatch(r"(\d{1,3})%", given):
            if not 1 <= int(match[1]) <= 100:
                raise ValueError("a share lies between 1% and 100%")
        elif not parse_size(given):
            raise ValueError("must not be zero")
        return given


def cow_bytes(cow_size: str, volume_bytes: int) -> int | None:
    """Bytes for a copy-on-write store, or None where it is to hold all of the volume."""
    if cow_size.endswith("%"):
        share = int(cow_size[:-1])
        return None if share == 100 else volume_bytes * share // 100
    size_bytes = parse_size(cow_size)
    return None if size_bytes >= volume_bytes else size_bytes


def _lvm_name(name: str) -> str:
    if not _LVM_NAME.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"{name!r} is no name of LVM's")
    return name
