"""Elastic volumes get their room while they are written to: ahead of the writer, up to what was claimed.

The kernel tells nobody that a filesystem fills up, so each mounted elastic volume is looked at again and again, often
enough for the fastest writer: it must not use up what is free between two looks and during one growth.

Looking alone would not do: memory is faster than any disk that a growth must wait for. So a writer may have no more
than a half of what is free waiting in the page cache; beyond that it waits for the disk, as the growth does.

A volume has a thread of its own: growing waits behind a freeze, which must keep no other volume waiting.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from backends.loop.extents import writeback
from csi_core.errors import CallError, NoSpace
from csi_core.faults import fault
from csi_core.hookspecs import Host, MountedFilesystem

__all__ = ["Grower", "Pacing", "Room", "first_bytes"]

_log = structlog.get_logger(__name__)
_MIB: Final = 1 << 20
_PEAK_BYTES_PER_S: Final = 4 << 30
"""Nobody writes faster, not even into the page cache."""
_GROWTH_S: Final = 0.05
"""What one growth takes: a commit, the device, the filesystem."""
_SHORTEST_S: Final = 0.01
_LONGEST_S: Final = 1.0
_UNMOUNTED_S: Final = 0.02
"""A pod may write at full speed as soon as its volume is mounted."""
_RETRY_S: Final = 1.0
_COMPLETE_S: Final = 1.0
"""It may be expanded."""
_LEAST_SLACK_BYTES: Final = 256 * _MIB
_AHEAD_S: Final = 0.25
"""Less than so many seconds of the observed writing is too little."""
_SMALLEST_STEP_BYTES: Final = 16 * _MIB
_LEAST_HELD_BYTES: Final = 16 * _MIB
"""In the page cache: less would slow down a writer that is far from the end."""


def first_bytes() -> int:
    """What a volume has at least when a filesystem is made on it: as much as is free after a growth."""
    return 2 * _LEAST_SLACK_BYTES


class Room(Protocol):
    """What the layout does for it."""

    def lengthen(self, key: str, present_bytes: int) -> int:
        """See :meth:`backends.loop.extents.layout.ExtentsLayout.lengthen`."""

    def claimed_bytes(self, key: str) -> int:
        """What the volume may have in the end, 0 where there is no such volume."""

    def present_bytes(self, key: str) -> int:
        """What it has now."""


@dataclass(slots=True)
class Pacing:
    """When to look again, and how much to have free, from what the last looks have seen."""

    free_bytes: int = 0
    seen_at: float = 0.0
    written_per_s: float = 0.0
    growth_s: float = 0.0
    """What growing has taken: on a disk that is busy writing back, a second and more."""

    def saw(self, free_bytes: int, now: float) -> None:
        """Take up what is free at a moment of ``time.monotonic()``."""
        if self.seen_at:
            written_per_s = max(0, self.free_bytes - free_bytes) / max(now - self.seen_at, 1e-3)
            # Faster is believed at once, slower only by and by.
            self.written_per_s = max(min(written_per_s, _PEAK_BYTES_PER_S), 0.9 * self.written_per_s)
        self.free_bytes, self.seen_at = free_bytes, now

    @property
    def slack_bytes(self) -> int:
        """Less free than this asks for more."""
        return max(_LEAST_SLACK_BYTES, int((_AHEAD_S + self.growth_s) * self.written_per_s))

    @property
    def cached_bytes(self) -> int:
        """So much may wait in the page cache: about half of what is free, a power of two, as it is seldom set anew."""
        return max(1 << max(self.free_bytes // 2, 1).bit_length() - 1, _LEAST_HELD_BYTES)

    @property
    def wait_s(self) -> float:
        """Until the next look: what is free lasts for two of them and a growth, even for the fastest writer."""
        return min(max((self.free_bytes / _PEAK_BYTES_PER_S - _GROWTH_S) / 2, _SHORTEST_S), _LONGEST_S)


class Grower:
    """Grows the elastic volumes of one pool that are attached to this node. Any thread may call any method."""

    def __init__(self, pool: str, room: Room, host: Host) -> None:
        self._pool = pool
        self._room = room
        self._host = host
        self._mutex = threading.Lock()
        self._volumes: dict[str, _Volume] = {}

    def watch(self, key: str, device: Path) -> None:
        """Begin with a volume that is attached as ``device``; one that is watched as that already goes on."""
        with self._mutex:
            known = self._volumes.get(key)
            if known and known.device == device:
                return
            if known:  # it was detached by hand, and its device may be another volume's by now
                known.stop()
            self._volumes[key] = _Volume(self._pool, key, device, self._room, self._host)
            self._volumes[key].start()

    def forget(self, key: str) -> bool:
        """End with a volume, and answer whether it was watched; from then on nothing of it is in use by us."""
        with self._mutex:
            volume = self._volumes.pop(key, None)
        if volume:
            volume.stop()
            volume.let_go()
        return volume is not None

    def stop(self) -> None:
        """End with all of them."""
        with self._mutex:
            volumes = list(self._volumes.values())
            self._volumes.clear()
        for volume in volumes:
            volume.stop()

    def problem(self, key: str) -> Exception | None:
        """Why a volume does not grow although it should."""
        with self._mutex:
            volume = self._volumes.get(key)
        return volume.problem if volume else None


class _Volume:
    """One volume and its thread."""

    def __init__(self, pool: str, key: str, device: Path, room: Room, host: Host) -> None:
        self._key = key
        self.device = device
        self._room = room
        self._host = host
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"loop-grow-{key[:8]}", daemon=True)
        self._log = _log.bind(pool=pool, volume=key)
        self._cached_bytes = -1
        self.problem: Exception | None = None

    def start(self) -> None:
        with suppress(CallError):  # pool.db cannot be read: the thread says so
            self._hold(Pacing(self._room.present_bytes(self._key) // 2))  # before anybody can write
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def let_go(self) -> None:
        """Nothing is left of it."""
        writeback.let_go(self.device)

    def _run(self) -> None:
        wait_s = 0.0
        filesystem: MountedFilesystem | None = None
        pacing = Pacing()
        while not self._stopping.wait(wait_s):
            try:
                if filesystem is None:
                    filesystem, pacing = self._found(), Pacing()
                free_bytes = filesystem.free_bytes() if filesystem else None
                if filesystem is None or free_bytes is None:
                    filesystem, wait_s = None, _UNMOUNTED_S
                    continue
                pacing.saw(free_bytes, time.monotonic())
                wait_s = self._keep_ahead(filesystem, pacing)
                self.problem = None
            except (CallError, OSError) as error:
                wait_s = _RETRY_S
                if str(error) != str(self.problem):  # once, not every second
                    self._log.warning("elastic volume does not grow", reason=str(error))
                self.problem = error

    def _found(self) -> MountedFilesystem | None:
        """The filesystem, grown to a device that was lengthened before a process was killed."""
        filesystem = self._host.filesystem_on(self.device)
        if filesystem:
            filesystem.grow()
        return filesystem

    def _keep_ahead(self, filesystem: MountedFilesystem, pacing: Pacing) -> float:
        """Grow it where too little is free; answer when to look again, in seconds."""
        more = self._hold(pacing)
        if pacing.free_bytes < pacing.slack_bytes:
            if not more:
                return _COMPLETE_S
            self._grow(filesystem, pacing)
        return pacing.wait_s

    def _hold(self, pacing: Pacing) -> bool:
        """Keep a writer from filling in memory what is free, while there is more to come; answer whether there is."""
        more = self._room.present_bytes(self._key) < self._room.claimed_bytes(self._key)
        cached_bytes = pacing.cached_bytes if more else 0
        if cached_bytes != self._cached_bytes:
            self._cached_bytes = cached_bytes
            if more:
                writeback.hold(self.device, cached_bytes)
            else:
                writeback.let_go(self.device)
        return more

    def _grow(self, filesystem: MountedFilesystem, pacing: Pacing) -> None:
        """Make the filesystem longer, so that twice the slack is free; by less where there is not so much.

        Raises:
            NoSpace: the pool is full.
        """
        began = time.monotonic()
        step_bytes = 2 * pacing.slack_bytes - pacing.free_bytes
        present_bytes = self._lengthen(step_bytes)
        fault("extents.grow.before_filesystem")
        filesystem.grow()
        fault("extents.grow.after_filesystem")
        pacing.growth_s = max(time.monotonic() - began, 0.9 * pacing.growth_s)
        free_bytes = filesystem.free_bytes()
        if free_bytes is not None:  # growth is no writing
            pacing.free_bytes, pacing.seen_at = free_bytes, time.monotonic()
            self._hold(pacing)
        self._log.info(
            "elastic volume has grown",
            bytes=present_bytes,
            written_per_s=int(pacing.written_per_s),
            took_s=round(time.monotonic() - began, 3),
        )

    def _lengthen(self, step_bytes: int) -> int:
        before_bytes = self._room.present_bytes(self._key)
        while True:
            try:
                return self._room.lengthen(self._key, before_bytes + step_bytes)
            except NoSpace:
                if step_bytes <= _SMALLEST_STEP_BYTES:
                    raise
                step_bytes = max(step_bytes // 2, _SMALLEST_STEP_BYTES)
