"""What an administrator and a StorageClass can set: pydantic models, the only place where keys are declared."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from csi_core._allocator import MAX_EXTENT_BYTES, MIN_EXTENT_BYTES
from csi_core.handles import STORE_NAME
from csi_core.parameters import FilesystemParameters, Parameters, SizeBytes

__all__ = ["LoopOptions", "LoopParameters", "PoolOptions"]


class SegmentOptions(Parameters):
    """A block device or file that the volumes of a pool are packed into."""

    path: Path = Field(description="A block device, or a file that csi-core pool create makes. Absolute.")
    size: SizeBytes = Field(default=0, description="Size of the file; a block device is taken whole.")

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("must be an absolute path")
        return path


class PoolOptions(Parameters):
    """One pool: a directory on ext4, XFS or btrfs with pool.db and, in the layout images, one file per volume."""

    layout: Literal["images", "extents"] = Field(
        default="images",
        description="images: one file per volume. extents: volumes are packed into the segments, see below.",
    )
    segments: tuple[SegmentOptions, ...] = Field(
        default=(), description="What a pool of the layout extents consists of, for csi-core pool create and grow."
    )
    extent_size: SizeBytes = Field(
        default=1 << 20, description="Unit in which extents are given out, a power of two; fixed at pool create."
    )
    path: Path = Field(description="The pool's directory. It must exist: a missing mount is never made up for.")
    require_mount: bool = Field(
        default=False,
        description="Wait until a filesystem is mounted there: an empty mount point looks like a new pool.",
    )
    capacity: SizeBytes = Field(
        default=0, description="Bytes that may be promised; the filesystem's size unless given."
    )
    overcommit: float = Field(
        default=1.0, ge=1.0, le=1000.0, description="Promised bytes of thin volumes per real byte."
    )
    warn_at: float = Field(default=0.85, gt=0, le=1, description="Used share of the filesystem that degrades health.")
    stop_at: float = Field(default=0.95, gt=0, le=1, description="Used share of the filesystem that stops admission.")
    allow_loop_host: bool = Field(default=False, description="Accept a filesystem that itself lies on a loop device.")
    direct_io: bool = Field(default=True, description="Bypass the host's page cache, where the host filesystem can.")
    freeze_limit_seconds: float = Field(
        default=5.0, gt=0, le=60, description="Longest time writers may be held while a copy is taken."
    )
    ballast: SizeBytes = Field(
        default=0, description="Bytes set aside in a file an administrator can delete when full."
    )

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("must be an absolute path")
        return path

    @field_validator("extent_size")
    @classmethod
    def _power_of_two(cls, size: int) -> int:
        if not MIN_EXTENT_BYTES <= size <= MAX_EXTENT_BYTES or size & (size - 1):
            raise ValueError("must be a power of two from 64Ki to 64Mi")
        return size

    @model_validator(mode="after")
    def _segments_fit_layout(self) -> PoolOptions:
        if self.segments and self.layout != "extents":
            raise ValueError("segments are for layout: extents")
        return self

    @model_validator(mode="after")
    def _watermarks_ordered(self) -> PoolOptions:
        if self.warn_at > self.stop_at:
            raise ValueError("warnAt must not be above stopAt")
        return self


class LoopOptions(Parameters):
    """The ``options`` of a loop backend in the configuration file."""

    pools: dict[str, PoolOptions] = Field(min_length=1, description="Pools by name.")
    default_pool: str = Field(default="", description="Pool of volumes that name none; may be left out with one pool.")

    @model_validator(mode="after")
    def _names(self) -> LoopOptions:
        for name in self.pools:
            if not STORE_NAME.fullmatch(name):
                raise ValueError(f"pool name {name!r}: use at most 32 of a-z, 0-9 and -, and no dash at the ends")
        if self.default_pool and self.default_pool not in self.pools:
            raise ValueError(f"defaultPool {self.default_pool!r} is not one of the pools: {', '.join(self.pools)}")
        if not self.default_pool and len(self.pools) > 1:
            raise ValueError(f"defaultPool must be one of {', '.join(self.pools)}, because there are several pools")
        return self

    @property
    def default(self) -> str:
        """The pool of volumes that name none."""
        return self.default_pool or next(iter(self.pools))


class LoopParameters(FilesystemParameters):
    """StorageClass parameters of the loop backend."""

    pool: str = Field(default="", description="Pool to take the volume from; the backend's defaultPool unless given.")
    provisioning: Literal["thin", "thick"] = Field(
        default="thin",
        description="thin: space is taken as it is written (a sparse image, or an elastic volume that grows). "
        "thick: all space is allocated beforehand.",
    )
    initial_size: SizeBytes = Field(
        default=0,
        description="What an elastic volume (thin, layout extents) begins with; 256Mi or a hundredth of its size, "
        "whichever is more, unless given.",
    )
