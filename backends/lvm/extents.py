"""Sizes in extents: what a request is rounded to, and what there is room for."""

from __future__ import annotations

from backends.lvm.options import LvmParameters
from backends.lvm.report import Report
from csi_core.errors import OutOfRange
from csi_core.model import Capacity, SizeRange, VolumeSpec

__all__ = ["DEFAULT_BYTES", "available", "chosen_size", "rounded", "stripes_of"]

DEFAULT_BYTES = 1 << 30
_SMALLEST_FILESYSTEM_BYTES = {"xfs": 300 << 20, "btrfs": 128 << 20}
"""What mkfs accepts; a smaller request gets a volume of this size."""
_LARGEST_BYTES = 8 << 60
"""LVM's largest LV."""
_LARGEST_EXTENTS = (1 << 32) - 1
"""LVM counts extents in 32 bits, and past that answers with nonsense."""
_INTEGRITY_SHARE = 64
"""Checksums take less than one part in so many of an image, and two extents."""


def chosen_size(report: Report, spec: VolumeSpec, parameters: LvmParameters, at_least_bytes: int = 0) -> int:
    """The size in bytes of a new volume; ``at_least_bytes`` is its source's.

    Raises:
        OutOfRange: no size meets the request.
    """
    unit = report.extent_bytes * stripes_of(parameters)
    default_bytes = min(DEFAULT_BYTES, spec.size.limit_bytes or DEFAULT_BYTES) // unit * unit
    wanted = spec.size.required_bytes or at_least_bytes or default_bytes
    if wanted < at_least_bytes:
        raise OutOfRange(f"{wanted} bytes are asked for, and the source has {at_least_bytes}; ask for at least that")
    smallest = max((_SMALLEST_FILESYSTEM_BYTES.get(c.fs_type, 0) for c in spec.capabilities), default=0)
    return rounded(report, spec.size, max(wanted, smallest, 1), stripes_of(parameters))


def rounded(report: Report, size: SizeRange, wanted_bytes: int, stripes: int) -> int:
    """``wanted_bytes`` as whole extents on every stripe.

    Raises:
        OutOfRange: that is more than the limit, or than LVM can make.
    """
    unit = report.extent_bytes * stripes
    size_bytes = -(-wanted_bytes // unit) * unit
    if size.limit_bytes and size_bytes > size.limit_bytes:
        raise OutOfRange(
            f"the volume would have {size_bytes} bytes, because sizes are multiples of {unit}, and the limit is "
            f"{size.limit_bytes}"
        )
    largest_bytes = min(_LARGEST_BYTES, _LARGEST_EXTENTS * report.extent_bytes)
    if size_bytes > largest_bytes:
        raise OutOfRange(f"{size_bytes} bytes are asked for, and an LV of this group has at most {largest_bytes}")
    return size_bytes


def stripes_of(parameters: LvmParameters) -> int:
    """How many disks share each piece of a volume's data."""
    return parameters.stripes if parameters.type == "striped" else 1


def available(report: Report, parameters: LvmParameters, spare_bytes: int) -> Capacity:
    """Room for thick volumes, and the largest one that LVM is sure to find a place for."""
    free = sorted((disk.free_bytes for disk in report.disks if disk.allocatable and not disk.missing), reverse=True)
    unit = report.extent_bytes
    left = max(0, sum(free) - spare_bytes)
    match parameters.type:
        case "striped":
            unit *= parameters.stripes
            room = largest = _nth(free, parameters.stripes) * parameters.stripes
        case "raid1":
            copies = parameters.mirrors + 1
            leg = _nth(free, copies) - report.extent_bytes
            if parameters.integrity:
                leg -= leg // _INTEGRITY_SHARE + 2 * report.extent_bytes
            room = largest = max(0, leg)
            left //= copies
        case _:
            room = largest = left
    return Capacity(
        available_bytes=min(room, left) // unit * unit,
        maximum_volume_bytes=min(largest, left) // unit * unit,
        minimum_volume_bytes=unit,
    )


def _nth(free: list[int], number: int) -> int:
    """The free bytes of the disk with the ``number``-th most of them."""
    return free[number - 1] if len(free) >= number else 0
