"""Filling extents with zeros: what a volume leaves behind must never be read by the next one.

Direct writes of zeros rather than FALLOC_FL_ZERO_RANGE in a file: that takes the inode's lock, for which all volumes of
the file would wait. A block device has a request of its own for it (BLKZEROOUT), which the device may do by itself.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
import struct
import time
from collections.abc import Callable
from typing import Final

from backends.loop.extents.segments import aligned_buffer
from csi_core.faults import fault

__all__ = ["Pace", "Unpaced", "zero"]

_BLKZEROOUT: Final = 0x127F
_SLICE_BYTES: Final = 256 << 10
_SHARE: Final = 0.2
"""Of the time, for zeroing beside others who write."""
_LONGEST_PAUSE_S: Final = 0.5
_LOOK_AROUND_S: Final = 0.05


class Unpaced:
    """As fast as it goes."""

    def slept_after(self, spent_s: float) -> None:
        """Never sleeps."""


class Pace:
    """Holds back while others write: four fifths of the time are theirs. Alone, it does not pause."""

    def __init__(self, others: Callable[[], int], urgent: Callable[[], bool] = lambda: False) -> None:
        """``others``: a count that changes whenever somebody else has written; ``urgent``: somebody waits for room."""
        self._others = others
        self._urgent = urgent
        self._seen = others()
        self._looked_at = time.monotonic()
        self._busy = True

    def slept_after(self, spent_s: float) -> None:
        """Called after each slice with the time it took, which grows with what the others do."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_AROUND_S:
            count = self._others()
            self._busy, self._seen, self._looked_at = count != self._seen, count, now
        if self._busy and not self._urgent():
            time.sleep(min(_LONGEST_PAUSE_S, spent_s * (1 - _SHARE) / _SHARE))


def zero(
    descriptor: int,
    offset_bytes: int,
    length_bytes: int,
    *,
    pace: Pace | Unpaced,
    slice_bytes: int = _SLICE_BYTES,
    unread: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Fill a range with zeros; durable after fsync.

    Args:
        descriptor: of a segment, open for direct I/O.
        offset_bytes, length_bytes: what; multiples of 4096.
        pace: how much to hold back, after each slice.
        slice_bytes: how much at once.
        unread: write what reads as zeros, too: so that every block is really written.
        stopping: asked before each slice.
        progress: told the bytes done with each slice.

    Raises:
        InterruptedError: ``stopping`` answered true.
        OSError: the device failed.
    """
    is_file = not stat.S_ISBLK(os.fstat(descriptor).st_mode)
    zeros, content = (aligned_buffer(slice_bytes), aligned_buffer(slice_bytes)) if is_file else (None, None)
    for offset in range(offset_bytes, offset_bytes + length_bytes, slice_bytes):
        if stopping():
            raise InterruptedError
        length = min(slice_bytes, offset_bytes + length_bytes - offset)
        begin = time.monotonic()
        if zeros is None or content is None:
            fcntl.ioctl(descriptor, _BLKZEROOUT, struct.pack("=2Q", offset, length))
        # Reading is cheaper, for the disk and for the neighbours, and most of a filesystem was never written to.
        elif unread or _read(descriptor, offset, content, length) != zeros[:length]:
            _write(descriptor, offset, memoryview(zeros)[:length])
        progress(length)
        pace.slept_after(time.monotonic() - begin)
        if offset == offset_bytes:
            fault("extents.zero.after_slice")


def _read(descriptor: int, offset: int, content: mmap.mmap, length: int) -> bytes:
    os.preadv(descriptor, [memoryview(content)[:length]], offset)
    return content[:length]


def _write(descriptor: int, offset: int, zeros: memoryview) -> None:
    done = 0
    while done < len(zeros):
        done += os.pwrite(descriptor, zeros[done:], offset + done)
