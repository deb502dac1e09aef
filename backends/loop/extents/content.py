"""What lies in the runs of a volume or snapshot: reading it, copying it, comparing it."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from backends.loop.comparing import differing_blocks
from backends.loop.extents.segments import Segment, aligned_buffer
from backends.loop.extents.zeroing import Pace, Unpaced
from backends.loop.layout import Check
from backends.loop.records import RunRecord
from csi_core.errors import Busy, DataLoss, TimedOut
from csi_core.faults import fault

__all__ = ["Content", "ContentCopy"]

_BLOCK_BYTES: Final = 4096
_SLICE_BYTES: Final = 1 << 20
_ZEROS: Final = bytes(_SLICE_BYTES)


class Content:
    """The bytes of a volume or snapshot that nobody changes meanwhile, or whose writers are held."""

    def __init__(self, segments: Mapping[int, Segment], runs: Sequence[RunRecord], extent_bytes: int) -> None:
        self._segments = segments
        self._runs = runs
        self._extent_bytes = extent_bytes
        self.size_bytes = sum(run.length for run in runs) * extent_bytes

    def slices(self, start_bytes: int, end_bytes: int) -> Iterator[tuple[int, Segment, int, int]]:
        """Offset in the volume, segment, offset in it and length of pieces that are next to each other."""
        begin = 0
        for run in self._runs:
            length_bytes = run.length * self._extent_bytes
            segment = self._segments[run.segment]
            at = segment.offset_of(run.start)
            first, last = max(begin, start_bytes), min(begin + length_bytes, end_bytes)
            for offset in range(first, last, _SLICE_BYTES):
                yield offset, segment, at + offset - begin, min(_SLICE_BYTES, last - offset)
            begin += length_bytes

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """What stands there, fewer bytes at the end. The offset is a multiple of 4096."""
        buffer = aligned_buffer(-(-length_bytes // _BLOCK_BYTES) * _BLOCK_BYTES)
        end_bytes = min(offset_bytes + len(buffer), self.size_bytes)
        parts = []
        for _, segment, at, length in self.slices(offset_bytes, end_bytes):
            read_into(segment, at, buffer, length)
            parts.append(buffer[:length])
        return b"".join(parts)[:length_bytes]

    def data_ranges(self, start_bytes: int) -> Iterator[tuple[int, int]]:
        """Start and end of every block from ``start_bytes`` on that holds anything but zeros."""
        first = start_bytes // _BLOCK_BYTES * _BLOCK_BYTES
        whole = [(first, self.size_bytes)]
        return differing_blocks(lambda _, length: _ZEROS[:length], self.read, whole, first, self.size_bytes)

    def differing(self, base: Content, start_bytes: int) -> Iterator[tuple[int, int]]:
        """Start and end of every block that is not the same in ``base``; what one does not have counts as zeros."""
        size_bytes = max(self.size_bytes, base.size_bytes)
        first = start_bytes // _BLOCK_BYTES * _BLOCK_BYTES
        return differing_blocks(base.read, self.read, [(first, size_bytes)], first, size_bytes)

    def flush(self) -> None:
        """Make it durable."""
        for number in {run.segment for run in self._runs}:
            self._segments[number].flush()


class ContentCopy:
    """A full copy of all that is not zero; the target reads as zeros before. See ``CopyUnderWay``."""

    def __init__(
        self,
        find_source: Callable[[], Content] | None,
        target: Content,
        size_bytes: int,
        pace: Pace | Unpaced | None = None,
    ) -> None:
        """``pace`` spares others, where nobody is held meanwhile."""
        self._pace = pace or Unpaced()
        self._find_source = find_source
        self._target = target
        self._size_bytes = size_bytes

    def run(self, give_up_at: float | None, check: Check = lambda: None) -> bool:
        """As in ``CopyUnderWay``. Raises Busy: an elastic source has grown since the target was placed."""
        if self._find_source is None:
            return True
        source = self._find_source()  # not before: an elastic one grows until it is frozen
        size_bytes = min(self._size_bytes, source.size_bytes)
        if self._target.size_bytes < size_bytes:
            raise Busy("the volume has grown at this moment; repeat the call")
        buffer = aligned_buffer(_SLICE_BYTES)
        for offset, segment, at, length in source.slices(0, size_bytes):
            if give_up_at is not None and time.monotonic() >= give_up_at:
                raise TimedOut("the copy took longer than writers may be held")
            check()
            begin = time.monotonic()
            read_into(segment, at, buffer, length)
            if buffer[:length] != _ZEROS[:length]:
                self._write(offset, buffer, length)
            if give_up_at is None:
                self._pace.slept_after(time.monotonic() - begin)
        return False

    def finish(self) -> None:
        fault("extents.content.before_flush")
        self._target.flush()
        fault("extents.content.after_flush")

    def _write(self, offset: int, buffer: mmap.mmap, length: int) -> None:
        done = 0
        for _, segment, at, part in self._target.slices(offset, offset + length):
            write_from(segment, at, memoryview(buffer)[done : done + part])
            done += part


def read_into(segment: Segment, at: int, buffer: mmap.mmap, length: int) -> None:
    """Read exactly ``length`` bytes of a segment into the beginning of ``buffer``."""
    done = 0
    while done < length:
        count = os.preadv(segment.descriptor, [memoryview(buffer)[done:length]], at + done)
        if not count:
            raise DataLoss(f"segment {segment.path} ends at byte {at + done}; restore it")
        done += count


def write_from(segment: Segment, at: int, data: memoryview) -> None:
    """Write all of ``data`` to a segment."""
    done = 0
    while done < len(data):
        done += os.pwrite(segment.descriptor, data[done:], at + done)
