"""What one would use in Python instead: each peer keeps the free extents of one segment in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bitarray.util import zeros
from intervaltree import IntervalTree
from pyroaring import BitMap
from sortedcontainers import SortedDict, SortedList

from csi_core._allocator import ExtentPool

__all__ = ["PEERS", "Peer", "Run"]

Run = tuple[int, int]
"""Start and length, in extents."""
NONE = 1 << 32


class Peer(Protocol):
    """An allocator of runs in one segment, of which some are free already."""

    def __init__(self, extents: int, free: Sequence[Run]) -> None: ...

    def allocate(self, length: int) -> int | None: ...

    def free(self, start: int, length: int) -> None: ...


class CsiCore:
    """``ExtentPool``: nearly best fit."""

    def __init__(self, extents: int, free: Sequence[Run]) -> None:
        self._pool = ExtentPool([extents])
        assert self._pool.allocate(extents)
        for start, length in free:
            self._pool.free(0, start, length)

    def allocate(self, length: int) -> int | None:
        run = self._pool.allocate(length)
        return run[1] if run else None

    def free(self, start: int, length: int) -> None:
        self._pool.free(0, start, length)


class SortedContainers:
    """``sortedcontainers``: free runs by place and by length, exact best fit."""

    def __init__(self, extents: int, free: Sequence[Run]) -> None:
        self._lengths = SortedDict(free)
        self._by_length = SortedList((length, start) for start, length in free)

    def allocate(self, length: int) -> int | None:
        index = self._by_length.bisect_left((length, 0))
        if index == len(self._by_length):
            return None
        found, start = self._by_length.pop(index)
        del self._lengths[start]
        if found > length:
            self._add(start + length, found - length)
        return start

    def free(self, start: int, length: int) -> None:
        index = self._lengths.bisect_left(start)
        if index < len(self._lengths) and self._lengths.peekitem(index)[0] == start + length:
            length += self._remove(index)
        if index > 0:
            before, extents = self._lengths.peekitem(index - 1)
            if before + extents == start:
                length += self._remove(index - 1)
                start = before
        self._add(start, length)

    def _add(self, start: int, length: int) -> None:
        self._lengths[start] = length
        self._by_length.add((length, start))

    def _remove(self, index: int) -> int:
        start, length = self._lengths.popitem(index)
        self._by_length.remove((length, start))
        return length


class BitArray:
    """``bitarray``: a bit an extent, searched for so many zeros in a row; first fit."""

    def __init__(self, extents: int, free: Sequence[Run]) -> None:
        self._used = ~zeros(extents)
        for start, length in free:
            self._used[start : start + length] = 0

    def allocate(self, length: int) -> int | None:
        start = self._used.find(zeros(length))
        if start < 0:
            return None
        self._used[start : start + length] = 1
        return start

    def free(self, start: int, length: int) -> None:
        self._used[start : start + length] = 0


class Roaring:
    """``pyroaring``: the free and the used extents as compressed bitmaps, searched run by run; next fit."""

    def __init__(self, extents: int, free: Sequence[Run]) -> None:
        self._free, self._used, self._extents, self._cursor = BitMap(), BitMap(range(extents)), extents, 0
        for start, length in free:
            self.free(start, length)

    def allocate(self, length: int) -> int | None:
        found = self._find(self._cursor, length)
        start = found if found is not None else self._find(0, length)
        if start is not None:
            self._free.remove_range(start, start + length)
            self._used.add_range(start, start + length)
            self._cursor = start + length
        return start

    def free(self, start: int, length: int) -> None:
        self._used.remove_range(start, start + length)
        self._free.add_range(start, start + length)

    def _find(self, position: int, length: int) -> int | None:
        while (start := _next(self._free, position)) < self._extents:
            position = min(_next(self._used, start), self._extents)
            if position - start >= length:
                return start
        return None


def _next(bits: BitMap, position: int) -> int:
    """The first set bit from ``position`` on, or a number beyond all."""
    try:
        return bits.next_set_bit(position)
    except ValueError:
        return NONE


class Intervals:
    """``intervaltree``: free runs by place; the shortest that fits is found by looking at all of them."""

    def __init__(self, extents: int, free: Sequence[Run]) -> None:
        self._free = IntervalTree()
        for start, length in free:
            self._free.addi(start, start + length)

    def allocate(self, length: int) -> int | None:
        fitting = (run for run in self._free if run.end - run.begin >= length)
        found = min(fitting, key=lambda run: run.end - run.begin, default=None)
        if found is None:
            return None
        self._free.remove(found)
        if found.begin + length < found.end:
            self._free.addi(found.begin + length, found.end)
        return int(found.begin)

    def free(self, start: int, length: int) -> None:
        end = start + length
        for run in self._free.overlap(start - 1, end + 1):
            self._free.remove(run)
            start, end = min(start, run.begin), max(end, run.end)
        self._free.addi(start, end)


PEERS: dict[str, tuple[type[Peer], int]] = {
    "csi-core": (CsiCore, 20_000),
    "sortedcontainers": (SortedContainers, 2_000),
    "bitarray": (BitArray, 40),
    "pyroaring": (Roaring, 200),
    "intervaltree": (Intervals, 100),
}
"""Each with as many calls as it makes in some tens of milliseconds."""
