"""Making the segments of a pool, and making them longer, while a server uses the others.

Every byte of a segment is written once, with zeros, before it counts: a preallocated file that was never written would
change its extent map under the first writes of every volume, and what a device held before is nobody's business.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from backends.loop import images
from backends.loop.database import PoolDatabase
from backends.loop.extents.segments import Label, Segment, aligned_buffer, open_direct, size_of
from backends.loop.extents.zeroing import Unpaced, zero
from backends.loop.options import SegmentOptions
from backends.loop.records import ExtentPoolRecord, Records, SegmentRecord
from csi_core import durable
from csi_core.errors import ConfigError, FailedPrecondition
from csi_core.faults import fault

__all__ = ["Growth", "begin", "create", "grow"]

_SIGNATURES_BYTES: Final = 2 << 20
"""Where filesystems, partition tables and volume managers have their magic numbers."""
_SLICE_BYTES: Final = 8 << 20

Progress = Callable[[Path, int, int], None]
"""Told the segment, and how many bytes of how many are done."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What was added.

    Attributes:
        path: of the segment.
        number: its place in the pool.
        added_bytes: how much more can be given out.
    """

    path: Path
    number: int
    added_bytes: int


def create(
    database: PoolDatabase, segments: Sequence[SegmentOptions], extent_bytes: int, *, force: bool, progress: Progress
) -> list[Growth]:
    """Make a new pool of these segments; go on where an earlier call was killed.

    Args:
        database: of the pool.
        segments: block devices and files.
        extent_bytes: the unit; fixed from here on.
        force: overwrite devices and files that hold something.
        progress: told how far it got.

    Raises:
        ConfigError: there are no segments, or the pool has images.
        FailedPrecondition: a segment holds something; or another process makes or grows this pool just now.
        NoSpace: the filesystem has no room for a segment, which is as long as before.
        StorageFailure: a segment cannot be written.
    """
    if not segments:
        raise ConfigError("a pool of the layout extents needs segments: block devices, or files with a size")
    begin(database, extent_bytes)
    return grow(database, segments, force=force, progress=progress)


def begin(database: PoolDatabase, extent_bytes: int) -> None:
    """Record that this is a pool of the layout extents, where it is not recorded yet. Nobody may serve it then.

    Raises:
        ConfigError: it has images, or extents of another size.
    """
    records = Records(database)
    pool = records.extent_pool()
    if pool and pool.extent_bytes != extent_bytes:
        raise ConfigError(f"this pool has extents of {pool.extent_bytes} bytes, which cannot be changed any more")
    if pool is None:
        images_directory = database.path.parent / "images"
        if not records.empty() or (images_directory.is_dir() and any(images_directory.iterdir())):
            raise ConfigError("this pool holds images; make the new one in a directory of its own")
        fault("extents.create.before_commit")
        database.execute("INSERT INTO extent_pool VALUES (?, ?)", (str(uuid4()), extent_bytes))
        fault("extents.create.after_commit")


def grow(
    database: PoolDatabase, segments: Sequence[SegmentOptions], *, force: bool, progress: Progress
) -> list[Growth]:
    """Add the segments that the pool does not have yet, and take up those that have become longer.

    A running server takes notice by itself.

    Raises:
        As :func:`create`.
    """
    with _alone(database.path.parent):
        return _grown(database, segments, force=force, progress=progress)


def _grown(
    database: PoolDatabase, segments: Sequence[SegmentOptions], *, force: bool, progress: Progress
) -> list[Growth]:
    records = Records(database)
    pool = records.extent_pool()
    if pool is None:
        raise ConfigError("this pool has no segments yet; make it with csi-core pool create")
    grown = []
    for wanted in segments:
        known = {segment.path: segment for segment in records.segments()}
        segment = known.get(str(wanted.path))
        if segment is None:
            segment = _claimed(database, list(known.values()), wanted, pool, force=force)
        label = Label(pool.uuid, segment.number, pool.extent_bytes)
        before = segment.extents if segment.state == "ready" else 0
        with images.storage_errors(f"segment {wanted.path}"):
            extents = _written(wanted, segment, label, progress)
        if extents > before:
            fault("extents.grow.before_ready")
            database.execute(
                "UPDATE segment SET state = 'ready', extents = ? WHERE number = ?", (extents, segment.number)
            )
            fault("extents.grow.after_ready")
            grown.append(Growth(wanted.path, segment.number, (extents - before) * pool.extent_bytes))
    return grown


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two at once would fill one segment with zeros, and the second go on when the first has given it to volumes."""
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FailedPrecondition(
                f"another csi-core pool create or grow is at work in {directory} (fuser {directory} shows which); "
                "wait until it has ended"
            ) from None
        yield
    finally:
        os.close(lock)


def _claimed(
    database: PoolDatabase,
    present: Sequence[SegmentRecord],
    wanted: SegmentOptions,
    pool: ExtentPoolRecord,
    *,
    force: bool,
) -> SegmentRecord:
    """Record that a segment is being prepared, once it is certain that nothing is lost by that."""
    if unfinished := [segment.path for segment in present if segment.state != "ready"]:
        raise FailedPrecondition(f"segment {unfinished[0]} is half made; list it too, so that it is finished first")
    if wanted.path.is_block_device():
        _refuse_used_device(wanted.path, pool, force=force)
    else:
        _refuse_used_file(wanted, pool, force=force)
    segment = SegmentRecord(len(present), str(wanted.path), 0, "preparing")
    fault("extents.claim.before_commit")
    database.execute("INSERT INTO segment VALUES (?, ?, 0, 'preparing')", (segment.number, segment.path))
    fault("extents.claim.after_commit")
    return segment


def _refuse_used_device(path: Path, pool: ExtentPoolRecord, *, force: bool) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        raise FailedPrecondition(f"{path}: {error.strerror}; is it mounted, or part of another pool?") from error
    try:
        size_bytes = size_of(descriptor)
        ends = (0, max(0, size_bytes - _SIGNATURES_BYTES))
        _refuse_segment(path, pool, force=force)
        if not force and any(any(os.pread(descriptor, _SIGNATURES_BYTES, offset)) for offset in ends):
            raise FailedPrecondition(
                f"{path} is not empty: there is data at its beginning or end; make sure that nobody needs it, then "
                "repeat with --force, which overwrites all of it"
            )
    finally:
        os.close(descriptor)


def _refuse_used_file(wanted: SegmentOptions, pool: ExtentPoolRecord, *, force: bool) -> None:
    path = wanted.path
    if wanted.size < (least_bytes := 2 * pool.extent_bytes):
        raise ConfigError(f"segment {path} is no block device and needs a size, of {least_bytes} bytes at least")
    if not path.parent.is_dir():
        raise ConfigError(f"segment {path}: there is no directory {path.parent}; make it or mount it beforehand")
    if path.exists() and not path.is_file():
        raise ConfigError(f"segment {path} is neither a block device nor a file")
    if path.exists():
        _refuse_segment(path, pool, force=force)
    if path.exists() and path.stat().st_size and not force:
        raise FailedPrecondition(f"{path} is there and not empty; if nobody needs it, repeat with --force")


def _refuse_segment(path: Path, pool: ExtentPoolRecord, *, force: bool) -> None:
    descriptor = open_direct(path)
    try:
        label = Label.read(descriptor)
    finally:
        os.close(descriptor)
    if label and label.pool_uuid == pool.uuid:
        raise FailedPrecondition(
            f"{path} is segment {label.number} of this pool already, and recorded under another name: list it under "
            f"that one; or stop the server, and with sqlite3 change the path of number {label.number} in table segment "
            "of pool.db to this one"
        )
    if label and not force:
        raise FailedPrecondition(
            f"{path} is segment {label.number} of pool {label.pool_uuid}, which pool.db does not know: mount the disk "
            "that pool.db lies on, or put pool.db back from a copy; --force would overwrite all volumes of that pool"
        )


def _written(wanted: SegmentOptions, segment: SegmentRecord, label: Label, progress: Progress) -> int:
    """Fill with zeros what is new of a segment; answer how many extents it has."""
    path, extent_bytes = wanted.path, label.extent_bytes
    if segment.state == "ready":
        Segment(path, label, segment.extents).close()  # it is the one
    if not path.is_block_device():
        _allocated(path, wanted.size)
    descriptor = open_direct(path)
    try:
        extents = size_of(descriptor) // extent_bytes - 1
        done = (segment.extents + 1) * extent_bytes if segment.state == "ready" else 0
        end = (extents + 1) * extent_bytes
        if done < end:
            _zeroed(descriptor, path, done, end, progress)
        if segment.state != "ready":
            fault("extents.label.before_write")
            block = aligned_buffer(len(label.pack()))
            block[:] = label.pack()
            os.pwrite(descriptor, block, 0)
            os.fsync(descriptor)
            fault("extents.label.after_write")
    finally:
        os.close(descriptor)
    return max(extents, segment.extents)


def _zeroed(descriptor: int, path: Path, start: int, end: int, progress: Progress) -> None:
    done = 0

    def more(length: int) -> None:
        nonlocal done
        done += length
        progress(path, done, end - start)

    zero(descriptor, start, end - start, pace=Unpaced(), slice_bytes=_SLICE_BYTES, unread=True, progress=more)
    os.fsync(descriptor)
    fault("extents.grow.after_zeros")


def _allocated(path: Path, size_bytes: int) -> None:
    """Make the file, or make it longer, with all of its blocks."""
    with images.opened(path, create=True) as file:
        present_bytes = os.fstat(file).st_size
        if present_bytes < size_bytes:
            try:
                os.posix_fallocate(file, 0, size_bytes)
            except OSError:
                # What it took before the filesystem was full would count for the segment's, and pool.db may lie there.
                os.ftruncate(file, present_bytes)
                raise
        os.fsync(file)
    durable.sync(path.parent)
