"""One pool: a directory, its lock, its records, its ledger, its trash. Opened once, closed once."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import structlog

from backends.loop import hostfs, images
from backends.loop.claims import Claims
from backends.loop.database import PoolDatabase
from backends.loop.layout import ImagesLayout
from backends.loop.options import PoolOptions
from backends.loop.records import Records
from backends.loop.trash import Trash
from csi_core.errors import CallError, ConfigError, NoSpace, Unavailable
from csi_core.faults import fault
from csi_core.hookspecs import Host
from csi_core.ledger import Ledger, Reservation

__all__ = ["Pool"]

_log = structlog.get_logger(__name__)
_LOCK_WAIT_S: Final = 5.0
_LOCK_POLL_S: Final = 0.05
_TRASH_WAIT_S: Final = 2.0


class Pool:
    """An open pool.

    Attributes:
        name: as in the configuration and in every handle.
        options: its configuration.
        host: what the core offers.
        filesystem: what the filesystem under it can do.
        records, database: what is recorded.
        layout: where the images are.
        ledger: capacity, promised and used bytes.
        claims: who copies or changes what just now.
        trash: what waits to be freed.
    """

    def __init__(self, name: str, options: PoolOptions, host: Host) -> None:
        """Lock and open the pool, undo what a crash left half-done, take up the trash.

        Raises:
            ConfigError: the directory is missing, unsuitable, or served by another process.
            DataLoss: pool.db is damaged.
            Unavailable: its filesystem is not mounted yet.
        """
        if options.require_mount and not options.path.is_mount():
            raise Unavailable(f"pools.{name}.path {options.path}: nothing is mounted there yet; mount the pool's disk")
        self.name = name
        self.options = options
        self.host = host
        self.claims = Claims()
        with ExitStack() as undo:
            self._lock = _locked(name, options.path)
            undo.callback(os.close, self._lock)
            self.layout = ImagesLayout(options.path)
            self._refuse_unsafe()
            self.layout.prepare()
            self.filesystem = hostfs.probe(options.path, direct_io=options.direct_io)
            self.database = PoolDatabase(options.path / "pool.db")
            undo.callback(self.database.close)
            images.sync_directory(options.path)
            self.records = Records(self.database)
            self.ledger = Ledger(
                capacity_bytes=options.capacity or self._statvfs()[0],
                overcommit_ratio=options.overcommit,
                warn_at=options.warn_at,
                stop_at=options.stop_at,
                physical=self._statvfs,
            )
            self.trash = Trash(self.records, self.layout, self.ledger)
            with images.storage_errors(f"pool {name}"):
                self._recover()
            undo.pop_all()
        self.trash.start()

    def close(self) -> None:
        """Stop the trash, close the database, release the lock."""
        self.trash.stop()
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

    def discard(self, *keys: str) -> None:
        """Forget volumes, snapshots and groups, durably; their images are freed, and their charge with them, soon."""
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
                        self.layout.free(key)
                    self.discard(*keys)
                except (CallError, OSError) as error:
                    # The rows stay in state "creating": the next call of that name, or the next start, discards them.
                    _log.warning("half-made copy is discarded later", pool=self.name, keys=keys, error=str(error))
                raise

    def _statvfs(self) -> tuple[int, int]:
        """Total and free bytes of the filesystem under the pool."""
        found = os.statvfs(self.options.path)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def _refuse_unsafe(self) -> None:
        path = self.options.path
        if not self.options.allow_loop_host and hostfs.is_on_loop(path):
            raise ConfigError(
                f"pools.{self.name}.path {path} lies on a loop device, where a full or failing host goes unnoticed; "
                "use another filesystem, or set allowLoopHost: true for tests"
            )
        # Opened once it is never empty: then a copy of it was cut off.
        lost = not (path / "pool.db").exists() or not (path / "pool.db").stat().st_size
        if lost and self.layout.directory.is_dir() and any(self.layout.directory.iterdir()):
            raise ConfigError(
                f"{path} holds images and no pool.db; put pool.db back from a copy, or move its images elsewhere"
            )

    def _recover(self) -> None:
        unfinished = list(self.records.unfinished())
        if unfinished:
            fault("loop.start.before_rollback")
            self.records.discard(*unfinished)
            fault("loop.start.after_rollback")
            _log.info("half-made volumes and snapshots rolled back", pool=self.name, keys=unfinished)
        for stranger in self.layout.strangers(self.records.images_known):
            moved = self.layout.isolate(stranger)
            _log.warning("unknown file quarantined", pool=self.name, file=stranger.name, now=str(moved))
        self.ledger.load(self.records.promised_bytes())
        self._set_ballast_aside()

    def _set_ballast_aside(self) -> None:
        ballast, wanted = self.options.path / "ballast", self.options.ballast
        if not wanted or ballast.exists():
            return
        if self._statvfs()[1] < 2 * wanted:
            _log.warning("no room to set the ballast aside again", pool=self.name, bytes=wanted)
            return
        with images.storage_errors(f"{ballast}"), images.opened(ballast, create=True) as file:
            images.allocate(file, wanted)
            os.fsync(file)


def _locked(name: str, directory: Path) -> int:
    """A descriptor that holds the pool's lock; a process that is just ending is waited for."""
    try:
        lock = os.open(directory / "pool.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(
            f"pools.{name}.path {directory}: {error.strerror}; make the directory, or mount its filesystem, beforehand"
        ) from error
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
