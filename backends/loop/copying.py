"""Copies of images at one moment, for snapshots, clones and groups alike."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

from backends.loop import images, loopdev
from backends.loop.loopdev import LoopDevice
from backends.loop.pool import Pool
from csi_core.errors import DataLoss, FailedPrecondition, TimedOut
from csi_core.faults import fault

__all__ = ["Copy", "take"]


@dataclass(frozen=True, slots=True)
class Copy:
    """One image to copy.

    Attributes:
        source_key: what to copy, or "" for a volume that has no image yet: the copy is one hole.
        target_key: the image to make.
        size_bytes: how much of the source there is; what lies behind it is no part of the copy.
    """

    source_key: str
    target_key: str
    size_bytes: int


def take(pool: Pool, copies: Sequence[Copy]) -> None:
    """Make all copies as of one moment, durably. The caller holds claims on the sources.

    Writers of attached sources are frozen while that takes, at most ``freezeLimitSeconds``; what nobody can write
    to is not frozen and has no limit. Those of raw block cannot be frozen: a write meanwhile spoils the copy, unless it
    is a single one by reflink, which the kernel makes between two writes.

    Raises:
        DataLoss: a source is missing or cut off.
        FailedPrecondition: without reflink the copy of an attached volume did not end in time; or raw block was
            written to.
        NoSpace: the filesystem ran full.
        TimedOut: freezing took too long.
    """
    with images.storage_errors("copy of an image"), ExitStack() as stack:
        opened: list[tuple[int | None, int, Copy]] = []
        devices: list[LoopDevice] = []
        for copy in copies:
            source = _opened_source(pool, copy, stack)
            device = loopdev.find(os.fstat(source)) if source is not None else None
            if device and not device.read_only:
                devices.append(device)
            opened.append((source, stack.enter_context(pool.layout.opened(copy.target_key, create=True)), copy))
        fault("loop.copy.before_freeze")
        _copy_frozen(pool, opened, devices)
        fault("loop.copy.after_thaw")
        for _, target, copy in opened:
            if os.fstat(target).st_size != copy.size_bytes:
                os.ftruncate(target, copy.size_bytes)
            os.fsync(target)
            fault("loop.copy.after_sync")
        pool.layout.sync()


def _opened_source(pool: Pool, copy: Copy, stack: ExitStack) -> int | None:
    if not copy.source_key:
        return None
    source = stack.enter_context(pool.layout.opened(copy.source_key, write=False))
    if os.fstat(source).st_size < copy.size_bytes:
        raise DataLoss(
            f"image {pool.layout.path(copy.source_key)} is shorter than the {copy.size_bytes} bytes recorded"
        )
    return source


def _copy_frozen(pool: Pool, opened: Sequence[tuple[int | None, int, Copy]], devices: Sequence[LoopDevice]) -> None:
    limit_s = pool.options.freeze_limit_seconds
    nodes = tuple(sorted(device.node for device in devices))
    try:
        with pool.host.frozen(nodes, limit_s) if nodes else nullcontext():
            fault("loop.copy.while_frozen")
            give_up_at = time.monotonic() + limit_s if devices else None
            before = [device.writes for device in devices]
            one_moment = len(opened) == 1
            for source, target, _ in opened:
                if source is not None and not images.clone(source, target):
                    images.copy_data(source, target, give_up_at=give_up_at)
                    one_moment = False
            if not one_moment:
                _refuse_written(devices, before)
    except TimedOut as error:
        if pool.filesystem.reflink:
            raise
        raise FailedPrecondition(
            f"the volume is in use and cannot be copied within the {limit_s:g} s that its writers may be held; "
            "unpublish it first, raise freezeLimitSeconds, or keep the pool on XFS or btrfs, which copy at once"
        ) from error


def _refuse_written(devices: Sequence[LoopDevice], before: Sequence[tuple[int, int, int]]) -> None:
    for device, writes in zip(devices, before, strict=True):
        *_, under_way = now = device.writes
        if now != writes or under_way:
            raise FailedPrecondition(
                f"raw block device {device.node} was written to while it was copied, and its writers cannot be held; "
                "unpublish the volume first, or copy it alone from a pool on XFS or btrfs, which copy at once"
            )
