"""Freezing mounted filesystems for a snapshot, and never leaving them frozen.

A freeze belongs to the filesystem, not to the process: it outlives the driver, and every writer of a
pod hangs for as long as it lasts. So a watchdog thaws when the time is up; and a file beside the
mount point says that it was this driver that froze it, so that the next start can thaw what a killed
one left, and leaves alone what a backup program of the node has frozen.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from csi_core.errors import CallError, FailedPrecondition, StorageFailure, TimedOut
from csi_core.faults import fault
from csi_core.node.mkfs_options import FILESYSTEMS
from csi_core.node.mountinfo import MountTable

__all__ = ["frozen", "thaw_left_frozen"]

_FIFREEZE: Final = 0xC0045877
_FITHAW: Final = 0xC0045878

_log = structlog.get_logger()


@dataclass(slots=True)
class _Frozen:
    mount_point: Path
    root: int

    def thaw(self) -> None:
        try:
            fcntl.ioctl(self.root, _FITHAW, 0)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: not frozen any more
                raise
        finally:
            os.close(self.root)
            _record(self.mount_point).unlink(missing_ok=True)


@dataclass(slots=True)
class _Freeze:
    """What one call has frozen. The call and its watchdog share it."""

    mutex: threading.Lock = field(default_factory=threading.Lock)
    held: list[_Frozen] = field(default_factory=list)
    expired: bool = False

    def add(self, device: Path, mount_point: Path) -> None:
        root = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        record = _record(mount_point)
        try:
            record.touch()
            fault("node.freeze.before_freeze")
            fcntl.ioctl(root, _FIFREEZE, 0)
        except OSError as error:
            os.close(root)
            record.unlink(missing_ok=True)
            raise _explain(error, device, mount_point) from error
        fault("node.freeze.after_freeze")
        with self.mutex:
            self.held.append(_Frozen(mount_point, root))
            late = self.expired
        if late:  # it came too late for the watchdog
            self.thaw()

    def thaw(self) -> None:
        with self.mutex:
            while self.held:
                self.held.pop().thaw()

    def check(self, time_limit_s: float) -> None:
        if self.expired:
            raise TimedOut(f"filesystems may be frozen for {time_limit_s:g} s and were thawed before the work was done")

    def expire(self) -> None:
        with self.mutex:
            self.expired = True
        self.thaw()


@contextmanager
def frozen(devices: tuple[Path, ...], time_limit_s: float) -> Iterator[None]:
    """Keep the mounted filesystems on ``devices`` still, flush those that are not mounted.

    See :meth:`csi_core.hookspecs.Host.frozen`.

    Raises:
        TimedOut: the time was up and the watchdog has thawed them: what was done meanwhile must be thrown away.
        FailedPrecondition: somebody else has frozen one of them.
    """
    freeze = _Freeze()
    watchdog = threading.Timer(time_limit_s, freeze.expire)
    watchdog.daemon = True
    watchdog.start()
    try:
        table = MountTable.read()
        for device in dict.fromkeys(devices):
            if mounts := table.of_device(device):
                freeze.add(device, mounts[0].path)
            else:
                _flush(device)
        freeze.check(time_limit_s)
        yield
    finally:
        watchdog.cancel()
        freeze.thaw()
    freeze.check(time_limit_s)


def thaw_left_frozen() -> None:
    """Thaw what a driver that was killed has left frozen. Called before any backend starts."""
    for mount in MountTable.read().of_types(frozenset(FILESYSTEMS)):
        if not _record(mount.path).exists():
            continue
        root = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _Frozen(mount.path, root).thaw()
        _log.warning("thawed a filesystem that was left frozen", path=str(mount.path))


def _record(mount_point: Path) -> Path:
    return mount_point.parent / f".{mount_point.name}.csi-core-frozen"  # with_name() refuses "/"


def _flush(device: Path) -> None:
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(error: OSError, device: Path, mount_point: Path) -> CallError:
    if error.errno == errno.EBUSY:
        return FailedPrecondition(
            f"{device} at {mount_point} is frozen already, by somebody else; thaw it first (fsfreeze -u)"
        )
    return StorageFailure(f"freezing {device} at {mount_point}: {error.strerror}")
