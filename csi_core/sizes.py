"""Which size a volume gets, out of the range that was asked for: for backends, each with units of its own."""

from __future__ import annotations

from csi_core.errors import OutOfRange
from csi_core.model import SizeRange

__all__ = ["choose_size", "whole_size"]


def choose_size(
    size: SizeRange, *, granularity_bytes: int, minimum_bytes: int, default_bytes: int, source_bytes: int = 0
) -> int:
    """The size of a new volume in bytes: what is required, else its source's, else the default.

    Args:
        size: what was asked for.
        granularity_bytes, minimum_bytes, default_bytes: as in :class:`~csi_core.model.Description`.
        source_bytes: the size of the snapshot or volume that it is filled from.

    Raises:
        OutOfRange: the range holds no such size.
    """
    if not size.required_bytes and not source_bytes and size.limit_bytes:
        default_bytes = min(default_bytes, size.limit_bytes // granularity_bytes * granularity_bytes)
    wanted_bytes = size.required_bytes or source_bytes or default_bytes
    if wanted_bytes < source_bytes:
        raise OutOfRange(
            f"{wanted_bytes} bytes are asked for, and the source has {source_bytes}; ask for at least that"
        )
    return whole_size(size, max(wanted_bytes, minimum_bytes), granularity_bytes)


def whole_size(size: SizeRange, wanted_bytes: int, granularity_bytes: int) -> int:
    """``wanted_bytes`` rounded up to what the backend makes.

    Raises:
        OutOfRange: that is above the limit.
    """
    size_bytes = -(-wanted_bytes // granularity_bytes) * granularity_bytes
    if size.limit_bytes and size_bytes > size.limit_bytes:
        raise OutOfRange(
            f"the volume would have {size_bytes} bytes, because sizes are multiples of {granularity_bytes}, "
            f"and the limit is {size.limit_bytes}"
        )
    return size_bytes
