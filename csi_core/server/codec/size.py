"""Capacity ranges, in bytes (CSI ``CapacityRange``)."""

from __future__ import annotations

from csi_core._proto import csi_pb2 as pb
from csi_core.errors import InvalidArgument, OutOfRange
from csi_core.model import Description, SizeRange
from csi_core.server.codec.fields import not_negative

__all__ = ["check_reachable", "decode_size"]

_ANY = SizeRange()


def decode_size(message: pb.CapacityRange) -> SizeRange:
    """The range asked for; left out, it is 0 to 0: nothing said.

    Raises:
        InvalidArgument: a negative bound, or a limit below what is required.
    """
    required, limit = message.required_bytes, message.limit_bytes
    if not required and not limit:
        return _ANY
    not_negative(required, "capacity_range.required_bytes")
    not_negative(limit, "capacity_range.limit_bytes")
    if limit and limit < required:
        raise InvalidArgument(f"capacity_range: limit_bytes {limit} is below required_bytes {required}")
    return SizeRange(required, limit)


def check_reachable(size: SizeRange, description: Description) -> None:
    """Refuse a range that holds no size the backend can make.

    Raises:
        OutOfRange: the limit is below the smallest volume, or below the required size rounded up.
    """
    if not size.limit_bytes:
        return
    granularity = description.size_granularity_bytes
    wanted = max(size.required_bytes, description.minimum_size_bytes)
    smallest = -(-wanted // granularity) * granularity
    if smallest > size.limit_bytes:
        raise OutOfRange(
            f"capacity_range: no volume of at most {size.limit_bytes} bytes can be made; sizes are multiples of "
            f"{granularity} bytes, the smallest that fits is {smallest}"
        )
