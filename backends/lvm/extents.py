"""Sizes in extents: what a request is rounded to, and what there is room for."""

from __future__ import annotations

from backends.lvm.options import LvmParameters
from backends.lvm.report import Report
from csi_core.errors import OutOfRange
from csi_core.model import Capacity, SizeRange, VolumeSpec
from csi_core.sizes import choose_size, whole_size

__all__ = ["DEFAULT_BYTES", "available", "available_thin", "chosen_size", "rounded", "stripes_of", "taken_bytes"]

DEFAULT_BYTES = 1 << 30
_SMALLEST_FILESYSTEM_BYTES = {"xfs": 300 << 20, "btrfs": 128 << 20}
"""What mkfs accepts; a smaller request gets a volume of this size."""
_LARGEST_BYTES = 8 << 60
"""LVM's largest LV."""
_LARGEST_EXTENTS = (1 << 32) - 1
"""LVM counts extents in 32 bits, and past that answers with nonsense."""
_CHECKSUMS_BYTES = 4 << 20
_CHECKSUMS_EACH_BYTES = 500 << 20
_JOURNALS_BYTES = ((512 << 20, 4 << 20), (1 << 30, 8 << 20), (4 << 30, 32 << 20))
_LARGEST_JOURNAL_BYTES = 64 << 20
"""What lvcreate gives to the checksums of an image: so much for each piece begun, and a journal by the image's size."""


def chosen_size(report: Report, spec: VolumeSpec, parameters: LvmParameters, at_least_bytes: int = 0) -> int:
    """The size in bytes of a new volume; ``at_least_bytes`` is its source's.

    Raises:
        OutOfRange: no size meets the request.
    """
    unit = report.extent_bytes * stripes_of(parameters)
    size_bytes = choose_size(
        spec.size,
        granularity_bytes=unit,
        minimum_bytes=max((_SMALLEST_FILESYSTEM_BYTES.get(c.fs_type, 1) for c in spec.capabilities), default=1),
        default_bytes=DEFAULT_BYTES // unit * unit,
        source_bytes=at_least_bytes,
    )
    return rounded(report, spec.size, size_bytes, stripes_of(parameters))


def rounded(report: Report, size: SizeRange, wanted_bytes: int, stripes: int) -> int:
    """``wanted_bytes`` as whole extents on every stripe.

    Raises:
        OutOfRange: that is more than the limit, or than LVM can make.
    """
    size_bytes = whole_size(size, wanted_bytes, report.extent_bytes * stripes)
    if size_bytes > _largest_bytes(report):
        raise OutOfRange(
            f"{size_bytes} bytes are asked for, and an LV of this group has at most {_largest_bytes(report)}"
        )
    return size_bytes


def stripes_of(parameters: LvmParameters) -> int:
    """How many disks share each piece of a volume's data."""
    return parameters.stripes if parameters.type == "striped" else 1


def available(report: Report, parameters: LvmParameters, spare_bytes: int, allocation: str = "normal") -> Capacity:
    """Room for thick volumes, and the largest one that LVM is sure to find a place for by that policy."""
    usable = [disk for disk in report.disks if disk.allocatable] if report.takes_more else []
    in_one_piece = allocation == "contiguous"
    free = sorted((disk.longest_run_bytes if in_one_piece else disk.free_bytes for disk in usable), reverse=True)
    unit = report.extent_bytes
    left = max(0, sum(disk.free_bytes for disk in usable) - spare_bytes)
    match parameters.type:
        case "striped":
            unit *= parameters.stripes
            room = largest = _nth(free, parameters.stripes) * parameters.stripes
        case "raid1":
            copies = parameters.mirrors + 1
            left //= copies
            leg = min(_nth(free, copies), left) - report.extent_bytes
            if parameters.integrity:
                leg -= _checksum_bytes(report, leg)
            room = largest = max(0, leg)
        case _:
            room = largest = left if allocation in ("normal", "anywhere") else _nth(free, 1)
    return Capacity(
        available_bytes=min(room, left) // unit * unit,
        maximum_volume_bytes=min(largest, left) // unit * unit,
        minimum_volume_bytes=unit,
    )


def available_thin(report: Report, promised_bytes: int) -> Capacity:
    """Room for thin volumes, of which so many bytes may be promised."""
    unit = report.extent_bytes
    return Capacity(promised_bytes, min(promised_bytes, _largest_bytes(report)) // unit * unit, unit)


def taken_bytes(report: Report, parameters: LvmParameters, size_bytes: int) -> int:
    """What a thick volume of that size takes of the group, on all its disks."""
    if parameters.type != "raid1" or not size_bytes:
        return size_bytes
    leg = size_bytes + report.extent_bytes + (_checksum_bytes(report, size_bytes) if parameters.integrity else 0)
    return leg * (parameters.mirrors + 1)


def _checksum_bytes(report: Report, image_bytes: int) -> int:
    """Whole extents."""
    journal_bytes = next((size for most, size in _JOURNALS_BYTES if image_bytes <= most), _LARGEST_JOURNAL_BYTES)
    wanted_bytes = (image_bytes // _CHECKSUMS_EACH_BYTES + 1) * _CHECKSUMS_BYTES + journal_bytes
    return -(-wanted_bytes // report.extent_bytes) * report.extent_bytes


def _largest_bytes(report: Report) -> int:
    return min(_LARGEST_BYTES, _LARGEST_EXTENTS * report.extent_bytes)


def _nth(free: list[int], number: int) -> int:
    """The free bytes of the disk with the ``number``-th most of them."""
    return free[number - 1] if len(free) >= number else 0
