"""Ranges of bytes in whole blocks, and finding them by looking at the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from csi_core.model import BlockRange

__all__ = ["differing_blocks", "merged"]

_BLOCK_BYTES: Final = 4096
_COMPARE_BYTES: Final = 1 << 20

Read = Callable[[int, int], bytes]
"""Answers the bytes at an offset, fewer where the data ends before."""


def merged(ranges: Iterable[tuple[int, int]], start_bytes: int, size_bytes: int) -> Iterator[BlockRange]:
    """Ascending ranges, rounded outwards to whole blocks, joined where they touch; all end after ``start_bytes``."""
    first, last = 0, 0
    for start, end in ranges:
        if min(end, size_bytes) <= start_bytes or start >= size_bytes:
            continue
        start_block = start // _BLOCK_BYTES * _BLOCK_BYTES
        end_block = min(-(-end // _BLOCK_BYTES) * _BLOCK_BYTES, size_bytes)
        if last and start_block <= last:
            last = max(last, end_block)
            continue
        if last:
            yield BlockRange(first, last - first)
        first, last = start_block, end_block
    if last:
        yield BlockRange(first, last - first)


def differing_blocks(
    old: Read, new: Read, ranges: Iterable[tuple[int, int]], start_bytes: int, size_bytes: int
) -> Iterator[tuple[int, int]]:
    """The blocks among ``ranges`` whose content is not the same in ``old`` and ``new``; ends count as zeros."""
    for found in merged(ranges, start_bytes, size_bytes):
        end = found.offset_bytes + found.size_bytes
        for offset in range(found.offset_bytes, end, _COMPARE_BYTES):
            length = min(_COMPARE_BYTES, end - offset)
            before, after = old(offset, length).ljust(length, b"\0"), new(offset, length).ljust(length, b"\0")
            if before == after:
                continue
            for place in range(0, length, _BLOCK_BYTES):
                if before[place : place + _BLOCK_BYTES] != after[place : place + _BLOCK_BYTES]:
                    yield offset + place, offset + place + _BLOCK_BYTES
