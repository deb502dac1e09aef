"""Copies of images at one moment, for snapshots, clones and groups alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext

from backends.loop import images
from backends.loop.layout import Check, Copy, CopyUnderWay, Device
from backends.loop.pool import Pool
from csi_core.errors import FailedPrecondition, TimedOut
from csi_core.faults import fault

__all__ = ["Copy", "take"]


def take(pool: Pool, copies: Sequence[Copy], check: Check) -> None:
    """Make all copies as of one moment, durably. The caller holds claims on the sources.

    Writers of attached sources are frozen while that takes, at most ``freezeLimitSeconds``; what nobody can write
    to is not frozen and has no limit. Those of raw block cannot be frozen: a write meanwhile spoils the copy, unless it
    is a single one by reflink, which the kernel makes between two writes.

    Raises:
        DataLoss: a source is missing or cut off.
        FailedPrecondition: without reflink the copy of an attached volume did not end in time; or raw block was
            written to.
        Cancelled: ``check``, called now and then, has raised it.
        NoSpace: the filesystem ran full.
        TimedOut: freezing took too long.
    """
    with images.storage_errors("copy of an image"), ExitStack() as stack:
        under_way = [stack.enter_context(pool.layout.copying(copy)) for copy in copies]
        found = (pool.layout.device(copy.source_key) for copy in copies if copy.source_key)
        devices = [device for device in found if device and not device.read_only]
        fault("loop.copy.before_freeze")
        _copy_frozen(pool, under_way, devices, check)
        fault("loop.copy.after_thaw")
        for copy in under_way:
            copy.finish()
        pool.layout.sync()


def _copy_frozen(pool: Pool, copies: Sequence[CopyUnderWay], devices: Sequence[Device], check: Check) -> None:
    limit_s = pool.options.freeze_limit_seconds
    nodes = tuple(sorted(device.node for device in devices))
    try:
        with pool.host.frozen(nodes, limit_s) if nodes else nullcontext():
            fault("loop.copy.while_frozen")
            give_up_at = time.monotonic() + limit_s if devices else None
            before = [device.writes for device in devices]
            one_moment = len(copies) == 1
            for copy in copies:
                one_moment &= copy.run(give_up_at, check)
            if not one_moment:
                _refuse_written(devices, before)
    except TimedOut as error:
        if pool.layout.copies_at_once:
            raise
        raise FailedPrecondition(
            f"the volume is in use and cannot be copied within the {limit_s:g} s that its writers may be held; "
            "unpublish it first, raise freezeLimitSeconds, or keep the pool on XFS or btrfs, which copy at once"
        ) from error


def _refuse_written(devices: Sequence[Device], before: Sequence[tuple[int, int, int]]) -> None:
    for device, writes in zip(devices, before, strict=True):
        *_, under_way = now = device.writes
        if now != writes or under_way:
            raise FailedPrecondition(
                f"raw block device {device.node} was written to while it was copied, and its writers cannot be held; "
                "unpublish the volume first, or copy it alone from a pool on XFS or btrfs, which copy at once"
            )
