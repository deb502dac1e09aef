"""Freezing mounted filesystems for a snapshot, and never leaving them frozen.

A freeze belongs to the filesystem, not to the process: it outlives the driver, and every writer of a
pod hangs for as long as it lasts. So a watchdog thaws when the time is up; and a file beside the
mount point, locked for as long as its process lives, says that it was a driver that froze it: the next
start thaws what a killed one left, and leaves alone what another driver or a backup program has frozen.
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

from csi_core.durable import sync
from csi_core.errors import CallError, FailedPrecondition, StorageFailure, TimedOut, Unavailable
from csi_core.faults import fault
from csi_core.node.mkfs_options import FILESYSTEMS
from csi_core.node.mountinfo import MountTable

__all__ = ["frozen", "thaw_left_frozen"]

_FIFREEZE: Final = 0xC0045877
_FITHAW: Final = 0xC0045878

_log = structlog.get_logger()


@dataclass(slots=True)
class _Frozen:
    """A frozen filesystem, with descriptors of its root and of its locked record."""

    mount_point: Path
    root: int
    record: int

    def thaw(self) -> bool:
        """Answer whether it still was frozen. Where this fails the record stays, and the next start tries again."""
        was_frozen = True
        try:
            try:
                fcntl.ioctl(self.root, _FITHAW, 0)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                was_frozen = False
            _record_path(self.mount_point).unlink(missing_ok=True)
        finally:
            os.close(self.record)
            os.close(self.root)
        return was_frozen


@dataclass(slots=True)
class _Freeze:
    """What one call has frozen. The call and its watchdog share it."""

    time_limit_s: float
    mutex: threading.Lock = field(default_factory=threading.Lock)
    held: list[_Frozen] = field(default_factory=list)
    expired: bool = False
    meddled_with: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, device: Path, mount_point: Path) -> None:
        root, record = -1, None
        try:
            root = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            record = _lock_record(mount_point, os.O_CREAT)
            if record is None:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            fault("node.freeze.before_freeze")
            fcntl.ioctl(root, _FIFREEZE, 0)
        except OSError as error:
            if root >= 0:
                os.close(root)
            if record is not None:
                _record_path(mount_point).unlink(missing_ok=True)
                os.close(record)
            raise _explain(error, device, mount_point) from error
        fault("node.freeze.after_freeze")
        with self.mutex:
            self.held.append(_Frozen(mount_point, root, record))
            late = self.expired
        if late:  # it came too late for the watchdog
            self.thaw()

    def thaw(self) -> None:
        with self.mutex:
            while self.held:
                frozen_one = self.held.pop()
                try:
                    if not frozen_one.thaw():
                        self.meddled_with.append(frozen_one.mount_point)
                except OSError as error:  # the others must not stay frozen for it
                    self.failures.append(f"{frozen_one.mount_point}: {error.strerror}")
                    _log.error("cannot thaw", path=str(frozen_one.mount_point), reason=error.strerror)

    def expire(self) -> None:
        with self.mutex:
            self.expired = True
        self.thaw()

    def check(self) -> None:
        if self.failures:
            raise StorageFailure(f"cannot thaw {'; '.join(self.failures)}; thaw it by hand (fsfreeze -u)")
        if self.expired:
            raise TimedOut(
                f"filesystems may be frozen for {self.time_limit_s:g} s and were thawed before the work was done"
            )
        if self.meddled_with:
            raise Unavailable(f"{self.meddled_with[0]} was thawed by somebody else before the work was done; repeat it")


@contextmanager
def frozen(devices: tuple[Path, ...], time_limit_s: float) -> Iterator[None]:
    """Keep the mounted filesystems on ``devices`` still, flush those that are not mounted.

    See :meth:`csi_core.hookspecs.Host.frozen`.

    Raises:
        TimedOut: the time was up and the watchdog has thawed them: what was done meanwhile must be thrown away.
        Unavailable: somebody else has thawed one of them: the same.
        StorageFailure: one of them could not be thawed.
        FailedPrecondition: somebody else has frozen one of them.
    """
    freeze = _Freeze(time_limit_s)
    watchdog = threading.Timer(time_limit_s, freeze.expire)
    watchdog.daemon = True
    watchdog.start()
    try:
        table = MountTable.read()
        for device in dict.fromkeys(devices):
            if mounts := table.of_device(device):
                freeze.add(device, mounts[0].path)
            else:
                sync(device)
        freeze.check()
        yield
    finally:
        watchdog.cancel()
        freeze.thaw()
    freeze.check()


def thaw_left_frozen() -> None:
    """Thaw what a driver that was killed has left frozen. Called before any backend starts."""
    table = MountTable.read()
    for mount in table.of_types(frozenset(FILESYSTEMS)):
        if table.is_on_network(mount.path.parent):  # a dead server would keep this driver from starting
            continue
        try:
            record = _lock_record(mount.path)
        except OSError:  # no record, and so not frozen by a driver
            continue
        if record is None:  # by one that is alive
            continue
        root = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _Frozen(mount.path, root, record).thaw():
                _log.warning("thawed a filesystem that was left frozen", path=str(mount.path))
        except OSError as error:
            _log.error("cannot thaw", path=str(mount.path), reason=error.strerror)


def _record_path(mount_point: Path) -> Path:
    return mount_point.parent / f".{mount_point.name}.csi-core-frozen"  # with_name() refuses "/"


def _lock_record(mount_point: Path, flags: int = 0) -> int | None:
    """Open and lock the record; None where a process that is alive has it."""
    record = os.open(_record_path(mount_point), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    try:
        fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(record)
        return None
    return record


def _explain(error: OSError, device: Path, mount_point: Path) -> CallError:
    if error.errno == errno.EBUSY:
        return FailedPrecondition(
            f"{device} at {mount_point} is frozen already, by somebody else; thaw it first (fsfreeze -u)"
        )
    return StorageFailure(f"freezing {device} at {mount_point}: {error.strerror}")
