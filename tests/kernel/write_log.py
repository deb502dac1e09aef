"""What a disk was sent, in order, and the disk as a power cut would have left it at any moment.

dm-log-writes keeps a copy of every write on a second disk. A write counts as done from the flush that covers it, and
the log is ordered by that: its beginning up to a flush is what a disk that loses its cache is certain to hold.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SUPER: Final = struct.Struct("<QQQI")  # magic, version, entries, sector size in bytes
ENTRY: Final = struct.Struct("<QQQQ")  # sector, sectors, flags, bytes of data beside the header
MAGIC: Final = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
BLKFLSBUF: Final = 0x1261


@dataclass(frozen=True)
class Entry:
    """One write, discard, flush or mark.

    Attributes:
        offset_bytes, length_bytes: where on the disk.
        flags: FLUSH, FUA, DISCARD, MARK.
        data_at_bytes: where in the log its data is.
        mark: text of a mark.
    """

    offset_bytes: int
    length_bytes: int
    flags: int
    data_at_bytes: int
    mark: str

    @property
    def durable(self) -> bool:
        """Whether a power cut right after it is certain to leave everything up to here."""
        return bool(self.flags & (FLUSH | FUA | MARK))


@contextmanager
def mapped(name: str, size_bytes: int, target: str) -> Iterator[Path]:
    """The device ``name``, made of one target; in the end its name is free again, also where it is in use."""
    dmsetup("create", name, "--table", f"0 {size_bytes // 512} {target}")
    try:
        yield Path("/dev/mapper", name)
    finally:
        take_away(name)


def take_away(name: str) -> None:
    """Remove a device.

    Raises:
        CalledProcessError: it is in use. It fails all I/O from now on, has another name, and goes when it is closed.
    """
    try:
        dmsetup("remove", "--retry", name)
    except subprocess.CalledProcessError:
        left = f"{name}-left-{time.monotonic_ns()}"
        dmsetup("wipe_table", "--noflush", "--nolockfs", name)
        dmsetup("rename", name, left)
        dmsetup("remove", "--deferred", left)
        raise


def logged(disk: Path, log: Path, size_bytes: int, name: str) -> AbstractContextManager[Path]:
    """A device that passes everything on to the beginning of ``disk``, and notes it in ``log``."""
    return mapped(name, size_bytes, f"log-writes {disk} {log}")


def mark(name: str, text: str) -> None:
    """Note a moment in the log of the device ``name``."""
    dmsetup("message", name, "0", "mark", text)


def branch(disk: Path, spare: Path, size_bytes: int, name: str) -> AbstractContextManager[Path]:
    """``disk`` as it is now, to be written to without changing it; the writes go to ``spare`` and are forgotten."""
    return mapped(name, size_bytes, f"snapshot {disk} {spare} N 16")


def entries(log: Path) -> Iterator[Entry]:
    """The entries of a log whose device is closed."""
    with log.open("rb") as file:
        # It was written to below the cache, which is kept where somebody else has the disk open.
        fcntl.ioctl(file, BLKFLSBUF, 0)
        magic, version, count, sector_bytes = SUPER.unpack(file.read(SUPER.size))
        assert (magic, version) == (MAGIC, 1), f"{log} holds no log of writes"
        at_bytes = sector_bytes
        for _ in range(count):
            file.seek(at_bytes)
            header = file.read(sector_bytes)
            sector, sectors, flags, beside_bytes = ENTRY.unpack_from(header)
            mark = header[ENTRY.size : ENTRY.size + beside_bytes].decode() if flags & MARK else ""
            at_bytes += sector_bytes
            yield Entry(sector * sector_bytes, sectors * sector_bytes, flags, at_bytes, mark)
            if not flags & DISCARD:
                at_bytes += sectors * sector_bytes


class Replay:
    """Writes a log to another disk, entry by entry; to be closed."""

    def __init__(self, log: Path, disk: Path) -> None:
        self._log = os.open(log, os.O_RDONLY)
        self._disk = os.open(disk, os.O_RDWR)

    def apply(self, entry: Entry) -> None:
        if entry.flags & DISCARD:
            return  # allowed to do nothing
        offset_bytes, end_bytes, at_bytes = (
            entry.offset_bytes,
            entry.offset_bytes + entry.length_bytes,
            entry.data_at_bytes,
        )
        while offset_bytes < end_bytes:
            data = os.pread(self._log, min(1 << 20, end_bytes - offset_bytes), at_bytes)
            assert data, "the log ends before its last entry"
            os.pwrite(self._disk, data, offset_bytes)
            offset_bytes, at_bytes = offset_bytes + len(data), at_bytes + len(data)

    def sync(self) -> None:
        os.fsync(self._disk)

    def close(self) -> None:
        os.close(self._log)
        os.close(self._disk)


def dmsetup(*arguments: str) -> str:
    # There is no udev in a guest; dmsetup makes and removes the device nodes itself.
    environment = {**os.environ, "DM_DISABLE_UDEV": "1"}
    return subprocess.run(["dmsetup", *arguments], env=environment, check=True, capture_output=True, text=True).stdout
