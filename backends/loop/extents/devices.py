"""Packed volumes as block devices: a loop device that shows one run of a segment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from backends.loop import loopdev
from backends.loop.extents.segments import Segment
from backends.loop.loopdev import LoopDevice
from backends.loop.records import RunRecord
from csi_core._allocator import allocated_bytes, fiemap
from csi_core.errors import FailedPrecondition
from csi_core.faults import fault

__all__ = ["Devices"]

_log = structlog.get_logger(__name__)
MAX_RUNS: Final = 1


class Devices:
    """The block devices of the volumes of one pool."""

    def __init__(self, segments: Mapping[int, Segment], extent_bytes: int, *, direct_io: bool) -> None:
        self._segments = segments
        self._extent_bytes = extent_bytes
        self._direct_io = direct_io

    @property
    def max_runs(self) -> int:
        """Of how many runs a volume may consist."""
        return MAX_RUNS

    def find(self, runs: Sequence[RunRecord]) -> LoopDevice | None:
        """The device that shows these runs, or None."""
        return loopdev.find(self._segments[runs[0].segment].backing(runs[0].start)) if runs else None

    def attach(self, key: str, runs: Sequence[RunRecord], size_bytes: int, *, read_only: bool) -> LoopDevice:
        """Show the first ``size_bytes`` of these runs.

        Raises:
            FailedPrecondition: it is attached read-only, or of more pieces than this kernel can join.
        """
        if len(runs) > self.max_runs:
            raise FailedPrecondition(
                f"{key} lies in {len(runs)} pieces, and this kernel has no device-mapper to join them; load dm_mod, or "
                "move it together with csi-core pool defrag"
            )
        run = runs[0]
        segment = self._segments[run.segment]
        device = self.find(runs)
        if device is None:
            if not read_only:
                self._fill_holes(segment, run)
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
        elif device.read_only and not read_only:
            raise FailedPrecondition(f"{key} is attached read-only as {device.node}; unstage it first")
        else:
            device = loopdev.keep(device)
        loopdev.fit_size(device, size_bytes)
        # Of a device that was found, too: a process may have been killed before this. A hole in a shared file would
        # make all others wait, so no discard gets through.
        loopdev.tune_discard(device, 0)
        return device

    def fit(self, runs: Sequence[RunRecord], size_bytes: int) -> None:
        """Let the device of these runs, if there is one, show ``size_bytes``."""
        if device := self.find(runs):
            fault("extents.map.before_fit")
            loopdev.fit_size(device, size_bytes)
            fault("extents.map.after_fit")

    def detach(self, runs: Sequence[RunRecord]) -> None:
        """Unbind the device of these runs; what was written is on the disk when this returns."""
        if not runs:
            return
        if device := self.find(runs):
            fault("extents.map.before_unbind")
            loopdev.detach(device)
            fault("extents.map.after_unbind")
        # Whether attached or not: a process may have been killed between the two.
        for segment in {run.segment for run in runs}:
            self._segments[segment].flush()

    def writes(self) -> int:
        """How much has been written to all attached volumes of the pool; grows while somebody writes."""
        ours = {segment.backing(0).anywhere for segment in self._segments.values()}
        return sum(sum(device.writes) for device in loopdev.attached() if device.backing.anywhere in ours)

    def _fill_holes(self, segment: Segment, run: RunRecord) -> None:
        """Kernels before 6.17 let write-zeroes punch holes into a file; allocate them again."""
        if segment.is_block_device:
            return
        offset, length = segment.offset_of(run.start), run.length * self._extent_bytes
        try:
            if allocated_bytes(fiemap(segment.descriptor, offset, length, sync=False)) < length:
                _log.warning("holes in a segment are filled", segment=str(segment.path), offset_bytes=offset)
                os.posix_fallocate(segment.descriptor, offset, length)
        except OSError as error:
            _log.warning("holes in a segment cannot be filled", segment=str(segment.path), error=error.strerror)
