"""Packed volumes as block devices.

One run of a file is a loop device with an offset and a size limit. Where the kernel has device-mapper, a block device
needs no loop device, several runs are joined, and a volume that grows while it is in use can get further ones.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from backends.loop import loopdev
from backends.loop.extents import dm
from backends.loop.extents.dm import DmDevice, Piece
from backends.loop.extents.segments import Segment
from backends.loop.loopdev import LoopDevice
from backends.loop.records import RunRecord
from csi_core._allocator import allocated_bytes, fiemap
from csi_core.errors import FailedPrecondition, StorageFailure
from csi_core.faults import fault

__all__ = ["Devices", "Mapped"]

_log = structlog.get_logger(__name__)
_MOST_RUNS: Final = 64
"""Of one volume, where device-mapper joins them: each is a look-up for every request."""
_SYS_BLOCK: Final = Path("/sys/block")

Mapped = LoopDevice | DmDevice


class Devices:
    """The block devices of the volumes of one pool."""

    def __init__(self, pool_uuid: str, segments: Mapping[int, Segment], extent_bytes: int, *, direct_io: bool) -> None:
        self._prefix = f"CSICORE-{pool_uuid}-"
        self._segments = segments
        self._extent_bytes = extent_bytes
        self._direct_io = direct_io
        self._joins = dm.available()
        self._whole = threading.Lock()

    @property
    def max_runs(self) -> int:
        """Of how many runs a volume may consist."""
        return _MOST_RUNS if self._joins else 1

    def find(self, key: str, runs: Sequence[RunRecord]) -> Mapped | None:
        """The device that shows these runs, or None."""
        if not runs:
            return None
        if self._joins and (mapped := dm.find(self._prefix + key)):
            return mapped
        return loopdev.find(self._segments[runs[0].segment].backing(runs[0].start))

    def attached(self) -> tuple[set[tuple[int, int]], set[str]]:
        """Every volume that is attached now: segment and first extent of a loop device, the key of what is joined."""
        numbers = {segment.backing(0).anywhere: number for number, segment in self._segments.items()}
        loops = {
            (number, device.backing.offset_bytes // self._extent_bytes - 1)
            for device in loopdev.attached()
            if (number := numbers.get(device.backing.anywhere)) is not None and device.backing.offset_bytes
        }
        return loops, {uuid.removeprefix(self._prefix) for uuid in self._joined_uuids()}

    def attach(self, key: str, runs: Sequence[RunRecord], size_bytes: int, *, read_only: bool, elastic: bool) -> Mapped:
        """Show the first ``size_bytes`` of these runs.

        Raises:
            FailedPrecondition: it is attached read-only, or of more pieces than this kernel can join.
        """
        if len(runs) > self.max_runs:
            raise FailedPrecondition(
                f"{key} lies in {len(runs)} pieces, and this kernel has no device-mapper to join them; load dm_mod, or "
                "move it together with csi-core pool defrag"
            )
        device = self.find(key, runs)
        if device and device.read_only and not read_only:
            raise FailedPrecondition(f"{key} is attached read-only as {device.node}; unstage it first")
        if isinstance(device, DmDevice) and device.active:
            self.fit(key, runs, size_bytes)
            dm.refuse_discards(device)  # a process may have been killed before it did
            return device
        if not read_only:
            for run in runs:
                self._fill_holes(run)
        joined = len(runs) > 1 or elastic or self._segments[runs[0].segment].is_block_device
        if self._joins and joined and not isinstance(device, LoopDevice):
            return self._join(key, runs, size_bytes, read_only=read_only)
        loop = loopdev.keep(device) if isinstance(device, LoopDevice) else self._bind(runs[0], size_bytes, read_only)
        loopdev.fit_size(loop, size_bytes)
        # Of a device that was found, too: a process may have been killed before this. A hole in a shared file would
        # make all others wait, so no discard gets through.
        loopdev.tune_discard(loop, 0)
        return loop

    def fit(self, key: str, runs: Sequence[RunRecord], size_bytes: int) -> None:
        """Let the device of these runs, if there is one, show ``size_bytes``.

        Raises:
            FailedPrecondition: it is a loop device, and has got a second run; it grows when it is staged again.
        """
        device = self.find(key, runs)
        if isinstance(device, DmDevice):
            if _size_bytes(device) < size_bytes:
                fault("extents.join.before_reload")
                dm.reload(self._prefix + key, self._pieces(runs, size_bytes), read_only=device.read_only)
                fault("extents.join.after_reload")
        elif device:
            if size_bytes > runs[0].length * self._extent_bytes:
                raise FailedPrecondition(
                    f"{key} has grown in another place than behind itself, and {device.node} cannot show that; it "
                    "grows when it is next staged"
                )
            fault("extents.map.before_fit")
            loopdev.fit_size(device, size_bytes)
            fault("extents.map.after_fit")

    def detach(self, key: str, runs: Sequence[RunRecord]) -> None:
        """Unbind the device of these runs; what was written is on the disk when this returns."""
        if not runs:
            return
        device = self.find(key, runs)
        if isinstance(device, DmDevice):
            fault("extents.join.before_remove")
            dm.remove(self._prefix + key)
            fault("extents.join.after_remove")
        elif device:
            fault("extents.map.before_unbind")
            loopdev.detach(device)
            fault("extents.map.after_unbind")
        # Whether attached or not: a process may have been killed between the two.
        for segment in {run.segment for run in runs}:
            self._segments[segment].flush()
            self._let_go(self._segments[segment])

    def writes(self) -> int:
        """How much has been written to all attached volumes of the pool; changes while somebody writes."""
        ours = {segment.backing(0).anywhere for segment in self._segments.values()}
        loops = [device for device in loopdev.attached() if device.backing.anywhere in ours]
        return sum(_writes(device) for device in (*loops, *(self._joined() if self._joins else ())))

    def _joined(self) -> list[DmDevice]:
        return [device for uuid in self._joined_uuids() if (device := dm.find(uuid))]

    def _joined_uuids(self) -> Iterator[str]:
        for directory in _SYS_BLOCK.glob("dm-*"):
            try:
                uuid = (directory / "dm/uuid").read_text(encoding="ascii").strip()
            except OSError:  # removed at this moment
                continue
            if uuid.startswith(self._prefix):
                yield uuid

    def _join(self, key: str, runs: Sequence[RunRecord], size_bytes: int, *, read_only: bool) -> DmDevice:
        with self._whole:  # a loop device over a whole file is let go of where nothing uses it
            pieces = self._pieces(runs, size_bytes)
            fault("extents.join.before_create")
            device = dm.create(f"csi-core-{key}", self._prefix + key, pieces, read_only=read_only)
            fault("extents.join.after_create")
        return device

    def _pieces(self, runs: Sequence[RunRecord], size_bytes: int) -> list[Piece]:
        pieces, left = [], size_bytes
        for run in runs:
            segment = self._segments[run.segment]
            length_bytes = min(left, run.length * self._extent_bytes)
            if length_bytes:
                pieces.append(Piece(self._block_device(segment), segment.offset_of(run.start), length_bytes))
            left -= length_bytes
        return pieces

    def _block_device(self, segment: Segment) -> int:
        """The number of the segment's device; of a file, that of a loop device over the whole of it."""
        if segment.is_block_device:
            return segment.found.st_rdev
        device = loopdev.find(segment.whole)
        if device is None:
            with segment.opened(write=True) as opened:
                device = loopdev.attach(opened, read_only=False, direct_io=self._direct_io)
        device = loopdev.keep(device)
        loopdev.fit_size(device, os.fstat(segment.descriptor).st_size)  # the file may have grown since
        loopdev.tune_discard(device, 0)
        return device.node.stat().st_rdev

    def _let_go(self, segment: Segment) -> None:
        """Unbind the loop device over a whole file, once no volume is mapped over it."""
        if not self._joins or segment.is_block_device:
            return
        with self._whole:
            device = loopdev.find(segment.whole)
            if device and not device.held:
                loopdev.detach(device)

    def _bind(self, run: RunRecord, size_bytes: int, read_only: bool) -> LoopDevice:
        segment = self._segments[run.segment]
        fault("extents.map.before_bind")
        with segment.opened(write=not read_only) as opened:
            device = loopdev.attach(
                opened,
                read_only=read_only,
                direct_io=self._direct_io,
                offset_bytes=segment.offset_of(run.start),
                size_limit_bytes=size_bytes,
            )
        fault("extents.map.after_bind")
        return device

    def _fill_holes(self, run: RunRecord) -> None:
        """Kernels before 6.17 let write-zeroes punch holes into a file; allocate them again."""
        segment = self._segments[run.segment]
        if segment.is_block_device:
            return
        offset, length = segment.offset_of(run.start), run.length * self._extent_bytes
        try:
            if allocated_bytes(fiemap(segment.descriptor, offset, length, sync=False)) < length:
                _log.warning("holes in a segment are filled", segment=str(segment.path), offset_bytes=offset)
                os.posix_fallocate(segment.descriptor, offset, length)
        except OSError as error:
            _log.warning("holes in a segment cannot be filled", segment=str(segment.path), error=error.strerror)


def _writes(device: Mapped) -> int:
    try:
        return sum(device.writes)
    except OSError:  # removed at this moment: another volume is detached while we look
        return 0


def _size_bytes(device: DmDevice) -> int:
    try:
        return int((_SYS_BLOCK / device.node.name / "size").read_text(encoding="ascii")) * 512
    except OSError as error:
        raise StorageFailure(f"{device.node} is gone: {error.strerror}") from error
