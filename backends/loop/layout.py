"""The seam between what is recorded of a pool and where it lies.

Two layouts stand behind it: one file per volume (:mod:`backends.loop.image_layout`), and volumes packed into a few
segments (:mod:`backends.loop.extents.layout`). Everything above works with keys and records.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backends.loop.database import Row
from backends.loop.records import State, VolumeRecord
from csi_core.health import Finding, HealthProblem
from csi_core.hookspecs import Host
from csi_core.ledger import Ledger

__all__ = ["Check", "Copy", "CopyUnderWay", "Device", "Layout", "Placement"]


class Device(Protocol):
    """A volume as a block device of this node."""

    @property
    def node(self) -> Path:
        """The device node."""

    @property
    def read_only(self) -> bool:
        """Whether the device refuses writes."""

    @property
    def writes(self) -> tuple[int, int, int]:
        """How many writes and discards have ended since the device was made, and how many are under way."""


Check = Callable[[], None]
"""Called now and then by long work; raises when it is not wanted any more."""


class Placement(Protocol):
    """Room that is taken for a volume or snapshot, and given back where the block that holds it raises."""

    def rows(self) -> Sequence[Row]:
        """What to insert in the transaction that creates what it is for."""

    def record(self, connection: sqlite3.Connection) -> None:
        """Write it down in the transaction that grows what it is for."""


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


class CopyUnderWay(Protocol):
    """A copy whose source and target are opened and found whole."""

    def run(self, give_up_at: float | None, check: Check) -> bool:
        """Copy; answer whether the kernel did it in one step, between two writes.

        Args:
            give_up_at: a moment of ``time.monotonic()``, or None for as long as it takes.
            check: called before each part of a long copy.

        Raises:
            TimedOut: it was not done at that moment.
            Busy: the source has grown since the copy was begun.
        """

    def finish(self) -> None:
        """Make it durable, but for its name: :meth:`Layout.sync` does that for all."""


class Layout(Protocol):
    """Where the volumes and snapshots of one pool are."""

    @property
    def facts(self) -> Sequence[str]:
        """What ``describe`` says about it."""

    @property
    def largest_volume_bytes(self) -> int:
        """The largest volume that it can ever hold."""

    @property
    def container(self) -> str:
        """What has this limit, for messages."""

    @property
    def copies_at_once(self) -> bool:
        """Whether copies share blocks, and so take no time."""

    def start(self, ledger: Ledger, host: Host) -> None:
        """Begin what goes on in the background until :meth:`close`."""

    @property
    def copies_in_background(self) -> bool:
        """Whether copies may take longer than a call can wait."""

    def close(self) -> None:
        """Let go of what is open."""

    def space(self) -> tuple[int, int]:
        """Total and free bytes, physically."""

    def largest_free_bytes(self, *, thick: bool) -> int:
        """The largest volume that would find a place now, as far as the layout is concerned."""

    def recover(self) -> None:
        """Put in order what a crash or a stranger has left, once the records are."""

    # -- room ---------------------------------------------------------------------------------------

    def refuse(self, *, thick: bool, raw_block: bool) -> None:
        """Raise where it does not serve such a volume.

        Raises:
            InvalidArgument: says what to ask for instead.
        """

    def birth(self, *, thick: bool) -> State:
        """The state in which an empty volume is recorded first."""

    def rounded(self, size_bytes: int) -> int:
        """What a volume of this size takes."""

    def present_bytes(self, key: str) -> int:
        """How much of a volume or snapshot there is already; 0 where the layout does not count."""

    def placed(self, key: str, size_bytes: int, present_bytes: int) -> AbstractContextManager[Placement]:
        """Take room for something new: ``present_bytes`` now, and a place where it can grow to ``size_bytes``.

        Raises:
            NoSpace: says how much is free, and how much of that in one piece.
        """

    def extended(self, record: VolumeRecord, size_bytes: int) -> AbstractContextManager[Placement]:
        """Take the room that a volume needs to grow to ``size_bytes``. Raises as :meth:`placed`."""

    def ensure(self, key: str, size_bytes: int, *, thick: bool) -> None:
        """Make what was placed, durably; never shorter than it is.

        Raises:
            NoSpace: the filesystem cannot hold it.
        """

    def own(self, key: str) -> None:
        """Give a copy blocks of its own, shared with no other; durable after :meth:`ensure`."""

    def exists(self, key: str) -> bool:
        """Whether anything of it is there."""

    def snapshot_charge(self, ledger: Ledger, volume: VolumeRecord) -> int:
        """What a snapshot of a volume takes from the capacity, in bytes."""

    def abandon(self, key: str) -> None:
        """Free at once what a failed creation has written, where that makes room for recording it."""

    def seal(self, key: str) -> None:
        """Keep a snapshot from being written to by accident."""

    # -- what is deleted ----------------------------------------------------------------------------

    def retire(self, keys: Sequence[str]) -> None:
        """These are about to be in the trash: their room is not given out before :meth:`forgotten`."""

    def free(self, key: str, stopping: Callable[[], bool], urgent: Callable[[], bool]) -> None:
        """Free what is in the trash, or fill it with zeros; durable after :meth:`sync`. Can be repeated.

        Args:
            key: what.
            stopping: asked now and then whether to end.
            urgent: asked now and then whether somebody waits for the room, so that others are not spared.

        Raises:
            InterruptedError: ``stopping`` has turned true.
        """

    def sync(self) -> None:
        """Make names, and that they are gone, durable."""

    def forgotten(self, keys: Sequence[str]) -> None:
        """These are out of the trash, durably: what they took may be used again."""

    # -- devices of this node -----------------------------------------------------------------------

    def attach(self, record: VolumeRecord, *, read_only: bool) -> Device:
        """Make it a block device, or find the one it is.

        Raises:
            DataLoss: it is missing or cut off. It is never made anew.
            FailedPrecondition: it is attached read-only and is now to be written.
        """

    def device(self, key: str) -> Device | None:
        """The block device that it is now, or None."""

    def fit(self, record: VolumeRecord) -> None:
        """Let its device, if it has one, show all of it; never less than it shows now."""

    def detach(self, key: str) -> None:
        """Make it no block device any more; what was written is on the disk when this returns.

        Raises:
            Busy: something holds the device open.
        """

    def attached(self, keys: Sequence[str]) -> set[str]:
        """Those of ``keys`` that are attached, by whomever."""

    # -- content ------------------------------------------------------------------------------------

    def copying(self, copy: Copy) -> AbstractContextManager[CopyUnderWay]:
        """Open both sides of a copy.

        Raises:
            DataLoss: the source is missing or cut off.
        """

    def data_ranges(self, key: str, start_bytes: int) -> Iterator[tuple[int, int]]:
        """Start and end of every range from ``start_bytes`` on that may hold anything but zeros; ascending."""

    def differing(self, base_key: str, target_key: str, start_bytes: int) -> Iterator[tuple[int, int]]:
        """Start and end of every range in which the two may differ; ascending."""

    # -- care ---------------------------------------------------------------------------------------

    def volume_problems(self, record: VolumeRecord) -> Iterator[HealthProblem]:
        """What is wrong with one volume."""

    def snapshot_problem(self, key: str, size_bytes: int) -> str:
        """What is wrong with a snapshot, and what to do; "" where nothing is."""

    def findings(self) -> Iterator[Finding]:
        """What does not fit the records. Reads only."""

    def repair(self, finding: Finding) -> bool:
        """Repair one of :meth:`findings`, if it still holds and nothing can be lost by it."""

    def fill_holes(self, record: VolumeRecord) -> bool:
        """Allocate again what a thick volume has lost; answer whether there was anything to do."""
