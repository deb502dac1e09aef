"""One pool: a directory, its lock, its records, its ledger, its trash. Opened once, closed once."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final, TypeVar

import structlog

from backends.loop import hostfs, images
from backends.loop.claims import Claims
from backends.loop.database import PoolDatabase
from backends.loop.extents.layout import ExtentsLayout
from backends.loop.image_layout import ImagesLayout
from backends.loop.layout import Check, Layout, Placement
from backends.loop.names import Names
from backends.loop.options import PoolOptions
from backends.loop.records import Records, VolumeRecord
from backends.loop.trash import Trash
from csi_core import durable
from csi_core.background import BackgroundWork
from csi_core.errors import Busy, CallError, ConfigError, NoSpace, Unavailable
from csi_core.faults import fault
from csi_core.hookspecs import Host
from csi_core.ledger import Ledger, Reservation

__all__ = ["Pool", "locked"]

T = TypeVar("T")
_log = structlog.get_logger(__name__)
_LOCK_WAIT_S: Final = 5.0
_LOCK_POLL_S: Final = 0.05
_TRASH_WAIT_S: Final = 2.0
_LEAST_ROOM_BYTES: Final = 1 << 20


class Pool:
    """An open pool.

    Attributes:
        name: as in the configuration and in every handle.
        options: its configuration.
        host: what the core offers.
        filesystem: what the filesystem under it can do.
        records, database: what is recorded.
        layout: where volumes and snapshots are.
        names: of its volumes.
        ledger: capacity, promised and used bytes.
        claims: who copies or changes what just now.
        trash: what waits to be freed.
    """

    def __init__(self, name: str, options: PoolOptions, host: Host) -> None:
        """Lock and open the pool, undo what a crash left half-done, take up the trash.

        Raises:
            ConfigError: the directory is missing, unsuitable, or served by another process.
            DataLoss: pool.db is damaged.
            Unavailable: its filesystem is not mounted yet, or full; or its segments are not made.
        """
        if options.require_mount and not options.path.is_mount():
            raise Unavailable(f"pools.{name}.path {options.path}: nothing is mounted there yet; mount the pool's disk")
        self.name = name
        self.options = options
        if options.layout == "extents" and options.path.is_dir() and not _holds_a_pool(options.path):
            raise self._unmade()  # before anything is written: this may be the mount point of a disk that is missing
        self.host = host
        self.claims = Claims()
        self._copies = BackgroundWork()
        with _full_is_waited_for(options.path), ExitStack() as undo:
            self._lock = locked(name, options.path)
            undo.callback(os.close, self._lock)
            self._refuse_unsafe()
            self.filesystem = hostfs.probe(options.path, direct_io=options.direct_io)
            self.database = PoolDatabase(options.path / "pool.db")
            undo.callback(self.database.close)
            durable.sync(options.path)
            self.records = Records(self.database)
            self.names = Names(self.records.volume_names())
            self.layout = self._opened_layout()
            undo.callback(self.layout.close)
            self.ledger = Ledger(
                capacity_bytes=options.capacity or self.layout.space()[0],
                overcommit_ratio=options.overcommit,
                warn_at=options.warn_at,
                stop_at=options.stop_at,
                physical=self.layout.space,
                physical_max_age_s=0 if options.layout == "extents" else 1,
            )
            self.trash = Trash(self.records, self.layout, self.ledger)
            with images.storage_errors(f"pool {name}"):
                self._recover()
            undo.pop_all()
        self.trash.start()
        self.layout.start(self.ledger, host)

    def close(self) -> None:
        """Stop the trash, close the segments and the database, release the lock."""
        self._copies.stop()
        self.trash.stop()
        self.layout.close()
        self.database.close()
        os.close(self._lock)

    def reserve(self, charge_bytes: int) -> Reservation:
        """Take ``charge_bytes`` from the capacity until the reservation is committed or left.

        Raises:
            NoSpace: no room, also after waiting a moment for images that are being freed.
        """
        try:
            return self.ledger.reserve(charge_bytes)
        except NoSpace:
            if self.trash.emptied(timeout_s=0):
                raise
            self.trash.emptied(_TRASH_WAIT_S)
            return self.ledger.reserve(charge_bytes)

    def copy(self, key: str, work: Callable[[Check], T]) -> T:
        """Do ``work``, which copies data: at once, or in the background where that takes longer than a call may wait.

        Args:
            key: names it; a call with the same key joins what is under way.
            work: is handed what to call now and then, which raises when the pool is closed.

        Raises:
            TimedOut: it goes on; repeat the call.
        """
        if not self.layout.copies_in_background:
            return work(_unchecked)
        done: list[T] = []
        self._copies.finish(key, lambda task: done.append(work(task.check)))
        if not done:  # another call's, which has just ended
            raise Busy(f"{key} has ended at this moment; repeat the call to learn how")
        return done[0]

    def join(self, key: str) -> None:
        """Wait for the copy of this key, where one is under way.

        Raises:
            TimedOut: it goes on; repeat the call.
        """
        if self._copies.running(key):
            self._copies.finish(key, lambda _: None)

    def charge(self, *, thick: bool, size_bytes: int) -> int:
        """What a volume of this size takes from the capacity, in bytes."""
        return self.ledger.charge(thin=not thick, size_bytes=self.layout.rounded(size_bytes))

    def placed(self, key: str, size_bytes: int, present_bytes: int) -> AbstractContextManager[Placement]:
        """Take room for something new; see :meth:`backends.loop.layout.Layout.placed`."""
        return self._room(lambda: self.layout.placed(key, size_bytes, present_bytes))

    def extended(self, record: VolumeRecord, size_bytes: int) -> AbstractContextManager[Placement]:
        """Take the room that a volume needs to grow; see :meth:`backends.loop.layout.Layout.extended`."""
        return self._room(lambda: self.layout.extended(record, size_bytes))

    def discard(self, *keys: str) -> None:
        """Forget volumes, snapshots and groups, durably; their images are freed, and their charge with them, soon."""
        self.layout.retire(keys)
        self.records.discard(*keys)
        self.trash.more()

    @contextmanager
    def half_made(self, *keys: str) -> Iterator[None]:
        """Hold the keys of what is being created, and discard them all where the block raises."""
        with self.claims.exclusive(*keys):
            try:
                yield
            except BaseException:
                try:
                    # First: a filesystem that it has filled has no room for a commit either.
                    for key in keys:
                        self.layout.abandon(key)
                    self.discard(*keys)
                except (CallError, OSError) as error:
                    # The rows stay in state "creating": the next call of that name, or the next start, discards them.
                    _log.warning("half-made copy is discarded later", pool=self.name, keys=keys, error=str(error))
                raise

    @contextmanager
    def _room(self, take: Callable[[], AbstractContextManager[Placement]]) -> Iterator[Placement]:
        """As :meth:`reserve`, for the place itself: what was deleted just now may still hold it."""
        with ExitStack() as stack:
            try:
                placement = stack.enter_context(take())
            except NoSpace:
                if self.trash.emptied(timeout_s=0):
                    raise
                self.trash.emptied(_TRASH_WAIT_S)
                placement = stack.enter_context(take())
            yield placement

    def _opened_layout(self) -> Layout:
        recorded = "extents" if self.records.extent_pool() else "images"
        made = recorded == "extents" and any(segment.state == "ready" for segment in self.records.segments())
        if self.options.layout == "extents" and not made and self.records.empty():
            raise self._unmade()
        if recorded != self.options.layout:
            raise ConfigError(f"pools.{self.name}.layout must be {recorded}: {self.options.path}/pool.db says so")
        if recorded == "extents":
            return ExtentsLayout(self.name, self.options, self.database)
        layout = ImagesLayout(self.name, self.options, self.filesystem, self.records)
        layout.prepare()
        return layout

    def _unmade(self) -> Unavailable:
        # Not ConfigError: a server that waits is where the command can be given, and goes on by itself.
        return Unavailable(
            f"pools.{self.name} has no segments yet: make them with csi-core pool create {self.name}, unless "
            f"{self.options.path} is where a disk must be mounted first that has them"
        )

    def _refuse_unsafe(self) -> None:
        path = self.options.path
        if not self.options.allow_loop_host and hostfs.is_on_loop(path):
            raise ConfigError(
                f"pools.{self.name}.path {path} lies on a loop device, where a full or failing host goes unnoticed; "
                "use another filesystem, or set allowLoopHost: true for tests"
            )
        # Opened once it is never empty: then a copy of it was cut off.
        lost = not (path / "pool.db").exists() or not (path / "pool.db").stat().st_size
        if lost and (path / "images").is_dir() and any((path / "images").iterdir()):
            raise ConfigError(
                f"{path} holds images and no pool.db; put pool.db back from a copy, or move its images elsewhere"
            )

    def _recover(self) -> None:
        unfinished = list(self.records.unfinished())
        if unfinished:
            self.layout.retire(unfinished)
            fault("loop.start.before_rollback")
            self.records.discard(*unfinished)
            fault("loop.start.after_rollback")
            _log.info("half-made volumes and snapshots rolled back", pool=self.name, keys=unfinished)
        self.layout.recover()
        self.ledger.load(self.records.promised_bytes())
        self._set_ballast_aside()

    def _set_ballast_aside(self) -> None:
        ballast, wanted = self.options.path / "ballast", self.options.ballast
        if not wanted or ballast.exists():
            return
        found = os.statvfs(self.options.path)
        if found.f_bavail * found.f_frsize < 2 * wanted:
            _log.warning("no room to set the ballast aside again", pool=self.name, bytes=wanted)
            return
        with images.storage_errors(f"{ballast}"), images.opened(ballast, create=True) as file:
            images.allocate(file, wanted)
            os.fsync(file)


def _holds_a_pool(directory: Path) -> bool:
    return any((directory / name).exists() for name in ("pool.db", "images"))


@contextmanager
def _full_is_waited_for(directory: Path) -> Iterator[None]:
    """A filesystem without a block for pool.db's log is no wrong configuration: the server starts when there is one."""
    try:
        yield
    except (NoSpace, Unavailable) as error:
        found = os.statvfs(directory)
        if isinstance(error, NoSpace) or found.f_bavail * found.f_frsize < _LEAST_ROOM_BYTES:
            full = f"the filesystem of {directory} is full; delete its file ballast, or free space"
            raise Unavailable(f"{full} ({error})") from error
        raise


def _unchecked() -> None:
    """A copy that is made at once goes on until it is done."""


def locked(name: str, directory: Path) -> int:
    """A descriptor that holds the pool's lock; a process that is just ending is waited for."""
    try:
        lock = os.open(directory / "pool.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        advice = "make the directory, or mount its filesystem, beforehand"
        if isinstance(error, PermissionError):
            advice = "run as root, or give this user the directory"
        raise ConfigError(f"pools.{name}.path {directory}: {error.strerror}; {advice}") from error
    give_up = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                os.close(lock)
                raise ConfigError(
                    f"pools.{name}.path {directory} is served by another process; stop it (fuser {directory}/pool.lock "
                    "shows which) or give this one a directory of its own"
                ) from None
            time.sleep(_LOCK_POLL_S)
        else:
            return lock
