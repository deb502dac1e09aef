"""The root of mode ``share``: records in a directory of their own, and volumes where people look for them.

::

    SHARE/.csi-core/volumes/KEY/record.json   what is recorded of a volume
    SHARE/.csi-core/snapshots/KEY/...         snapshots: record and content
    SHARE/<subDir>                            a volume's content, and what nodes mount

A new volume's content is made beside its record, and moved to its place when the volume is recorded; deleted, it is
moved back first. So a crash leaves it in one of two places, both of which are looked at.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from backends.nfs.exports import Exports
from backends.nfs.options import ExportOptions
from backends.nfs.records import Record, read_record
from backends.nfs.root import Place, Root
from backends.nfs.share_options import ShareOptions
from backends.nfs.share_paths import OWN, overlap, parent_of
from backends.nfs.sizing import DATA
from backends.nfs.storage import Storage
from backends.nfs.trees import opened_directory
from csi_core.deadline import past_deadline
from csi_core.errors import AlreadyExists, CommandFailed, ConfigError, DataLoss, NotFound, TimedOut, Unavailable
from csi_core.faults import fault
from csi_core.ledger import Reservation
from csi_core.run import Completed, run

__all__ = ["ShareStorage"]

_LOCK: Final = "lock"
_ANSWER_S: Final = 5.0


class ShareRoot(Root):
    """The records' directory of a share; ``path`` is the share's own."""

    def __init__(self, share: Path) -> None:
        self._share = -1
        try:
            super().__init__(share)
        except BaseException as error:
            if self._share >= 0:
                os.close(self._share)
            if isinstance(error, ConfigError):
                raise ConfigError(str(error).replace("export.root", "share.root", 1)) from error
            raise
        self.path = share / OWN

    def close(self) -> None:
        super().close()
        os.close(self._lock_file)
        os.close(self._share)

    def _own(self, opened: int) -> int:
        """The records' directory; everything else is relative to the share itself."""
        self._share = opened
        with suppress(FileExistsError):
            os.mkdir(OWN, 0o711, dir_fd=opened)
        return os.open(OWN, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened)

    @contextmanager
    def data(self, place: Place, key: str) -> Iterator[int]:
        """An object's content: of a volume, at its place on the share."""
        with self.opened(place, key) as directory:
            record = read_record(directory, key) if place == "volumes" else None
            if not record or not record.directory or _there(directory, DATA):
                with opened_directory(DATA, directory) as content:
                    yield content
                return
        try:
            with (
                parent_of(self._share, record.directory) as (parent, name),
                opened_directory(name, parent) as content,
            ):
                yield content
        except FileNotFoundError as error:
            raise DataLoss(f"{record.directory} on the share is gone, or what was in it") from error

    def refuse_taken(self, directory: str, *, adopt: bool) -> None:
        """Raise where something is at a place on the share.

        Args:
            directory: the place.
            adopt: a directory may be there.

        Raises:
            AlreadyExists: something is.
        """
        try:
            with parent_of(self._share, directory) as (parent, name):
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not (adopt and stat.S_ISDIR(found.st_mode)):
            raise AlreadyExists(
                f"{directory} is on the share already, and no volume of this driver's; move it away, or say "
                "onDelete: retain to take the directory that a deleted volume has left there"
            )

    def settle(self, record: Record, *, adopt: bool) -> None:
        """Move a volume's content to its place; there already: nothing to do.

        Args:
            record: the volume's.
            adopt: take the directory that is there, if any, and drop the new, empty one.
        """
        with self.opened("volumes", record.key) as directory:
            if not _there(directory, DATA):
                return
            self.refuse_taken(record.directory, adopt=adopt)
            with parent_of(self._share, record.directory, make=True) as (parent, name):
                if _there(parent, name):
                    os.rmdir(DATA, dir_fd=directory)
                else:
                    fault("nfs.share.before_settle")
                    os.rename(DATA, name, src_dir_fd=directory, dst_dir_fd=parent)
                    fault("nfs.share.after_settle")
                os.fsync(parent)
            os.fsync(directory)

    def take_back(self, record: Record) -> None:
        """Move a volume's content beside its record, to be removed with it; not there: nothing to do."""
        with self.opened("volumes", record.key) as directory:
            if _there(directory, DATA):
                return
            try:
                with parent_of(self._share, record.directory) as (parent, name):
                    fault("nfs.share.before_take_back")
                    os.rename(name, DATA, src_dir_fd=parent, dst_dir_fd=directory)
                    fault("nfs.share.after_take_back")
                    os.fsync(directory)
                    os.fsync(parent)
            except FileNotFoundError:
                return

    def archive(self, record: Record) -> None:
        """Rename a volume's content to ``archived-NAME``; not there: nothing to do."""
        try:
            with parent_of(self._share, record.directory) as (parent, name):
                archived = f"archived-{name}"[: 255 - len(record.key) - 1]
                if _there(parent, archived):
                    archived = f"{archived}.{record.key}"
                fault("nfs.share.before_archive")
                os.rename(name, archived, src_dir_fd=parent, dst_dir_fd=parent)
                fault("nfs.share.after_archive")
                os.fsync(parent)
        except FileNotFoundError:
            return

    def _lock(self) -> None:
        # Over NFS a directory cannot be locked, and a file only when it is open for writing.
        self._lock_file = os.open(
            _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.directory
        )
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_file)
            raise Unavailable(f"the share at {self.path} is served by another process ({error.strerror})") from error


class NoServer:
    """The server is somebody else's; see :class:`backends.nfs.exportfs.Server`."""

    def running(self) -> bool:
        """As far as this controller can know."""
        return True

    def granted(self) -> dict[tuple[str, str], bool]:
        """Not known here."""
        return {}

    def clients(self, path: Path) -> dict[str, bool]:  # noqa: ARG002
        """Nor this."""
        return {}

    def serves_beyond(self, root: Path) -> bool:  # noqa: ARG002
        """For all that is known."""
        return True

    def grant(self, path: Path, address: str, options: str) -> None:
        """The administrator's affair."""

    def revoke(self, path: Path, address: str) -> None:
        """The administrator's affair."""

    def refresh(self) -> None:
        """The administrator's affair."""

    def expire(self, addresses: Collection[str]) -> None:
        """The administrator's affair."""


class NoExports(Exports):
    """Volumes of a share have no exports of their own."""

    def let_in(self, record: Record) -> None:
        """Whoever may mount the share is in."""

    def change(self, record: Record) -> None:
        """Nor exported in another way."""

    def keep_out(self, record: Record, in_use: Iterable[str]) -> None:
        """Nobody can be kept out."""

    def reconcile(self, records: Iterable[Record]) -> None:
        """There is nothing to reconcile."""

    def stale(self, known: Mapping[str, Record]) -> list[tuple[Path, str]]:  # noqa: ARG002
        """None."""
        return []

    def missing(self, record: Record) -> list[str]:  # noqa: ARG002
        """None."""
        return []


class ShareStorage(Storage):
    """A share, opened. What may hang on its dead server is asked by a child with a deadline first."""

    root: ShareRoot

    def __init__(self, options: ShareOptions, backend_name: str, max_volumes_per_node: int = 0) -> None:
        """As :class:`Storage`; sizes are recorded, and not enforced.

        Raises:
            Unavailable: nothing is mounted at the root yet, or its server does not answer.
        """
        self._share = options
        self._mutex = threading.Lock()
        self._placing: dict[str, str] = {}
        self.reach()
        if options.require_mount and not options.root.is_mount():
            raise Unavailable(f"share.root {options.root}: nothing is mounted there yet; mount the share")
        records = ExportOptions(
            root=options.root / OWN,
            size_enforcement="none",
            capacity=options.capacity,
            overcommit=options.overcommit,
            warn_at=options.warn_at,
            stop_at=options.stop_at,
            node_addresses=options.node_addresses,
            resolve_nodes=options.resolve_nodes,
        )
        super().__init__(records, NoServer(), backend_name, max_volumes_per_node)

    def place(self, name: str, directory: str) -> None:
        """Keep a directory of the share for the volume ``name`` until it is made or given up.

        Raises:
            AlreadyExists: another volume has it, or one above or below it.
        """
        with self._mutex:
            taken = {other.directory: other.name for other in self.index.all("v")}
            taken |= {other: by for by, other in self._placing.items()}
            for other, by in taken.items():
                if by != name and overlap(directory, other):
                    raise AlreadyExists(
                        f"volume {by} has the directory {other} of the share; {directory} cannot be had"
                    )
            self._placing.setdefault(name, directory)

    def give_up(self, name: str) -> None:
        """The volume is made, or will not be; while a copy for it goes on, that is not known yet."""
        if not self.work.running(f"copy for volume {name}"):
            with self._mutex:
                self._placing.pop(name, None)

    def named(self, name: str) -> Record:
        """The volume that was just made under this name, as it was recorded.

        Raises:
            NotFound: it has been deleted since.
        """
        if record := self.index.named("v", name):
            return record
        raise NotFound(f"volume {name} was deleted as soon as it was made")

    def finish(self, record: Record, *reservations: Reservation) -> None:
        """As ever, and the record says where the content goes."""
        if not record.volume_key:
            record = replace(record, directory=self._placing[record.name])
        super().finish(record, *reservations)

    def reach(self) -> None:
        """Go on only if the share answers: a call that hangs on it would keep a worker for ever.

        Raises:
            Unavailable: it does not.
        """
        self._ask("--cached=never", "--format=%Z")

    def _open_root(self) -> Root:
        return ShareRoot(self._share.root)

    def _open_exports(self, server: NoServer, backend_name: str) -> Exports:  # type: ignore[override]
        return NoExports(server, self.options, self.root, backend_name)

    def _statvfs(self) -> tuple[int, int]:
        with past_deadline():
            unit, blocks, available = map(int, self._ask("--file-system", "--format=%S %b %a").stdout.split())
        return unit * blocks, unit * available

    def _ask(self, *options: str) -> Completed:
        try:
            return run(["stat", *options, "--", str(self._share.root)], timeout_s=_ANSWER_S, mutates=False)
        except (TimedOut, CommandFailed) as error:
            raise Unavailable(f"the share at {self._share.root} does not answer: {error}") from error


def _there(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
